"""Tables, pictures and documents with the packages that analysts use."""

import base64
import os
import unittest

from tests.fake_init import Session

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.session = Session()

    @classmethod
    def tearDownClass(cls):
        cls.session.close()

    def run_code(self, code):
        return self.session.run(code)


class Tables(PackageTest):
    def test_frames(self):
        self.run_code("import pandas as pd, numpy as np")
        result = self.run_code("df = pd.DataFrame({'a': [1, 2], 'b': ['x', None], 'c': [0.5, np.nan]})\ndf").result
        self.assertIn("<table", result["data"]["text/html"])
        self.assertEqual(result["json"], [{"a": 1, "b": "x", "c": 0.5}, {"a": 2, "b": None, "c": None}])
        self.assertEqual(self.run_code("df.groupby('b').a.sum()").result["json"], {"x": 1})
        self.assertEqual(self.run_code("df.groupby('b')[['a']].sum()").result["json"], [{"b": "x", "a": 1}])
        self.assertEqual(self.run_code("df.a").result["json"], [1, 2])
        times = self.run_code("pd.to_datetime(pd.Series(['2024-05-01', None]))").result["json"]
        self.assertEqual(times, ["2024-05-01T00:00:00", None])
        self.assertFalse(self.run_code("pd.DataFrame(np.zeros((1000, 1000)))").result["hasJson"])
        wide = self.run_code("print(pd.DataFrame([range(18)], columns=['column%d' % i for i in range(18)]))").stdout
        self.assertIn("column17", wide)
        self.assertNotIn("...", wide)

    def test_arrays(self):
        self.run_code("import numpy as np")
        cases = {
            "np.int64(3)": 3,
            "np.float64(0.5)": 0.5,
            "np.bool_(True)": True,
            "np.arange(3)": [0, 1, 2],
            "np.array([[1.0, np.nan]])": [[1.0, None]],
            "[np.int8(1)]": [1],
        }
        for code, form in cases.items():
            self.assertEqual(self.run_code(code).result["json"], form, code)
        self.assertFalse(self.run_code("np.array([1j])").result["hasJson"])
        self.assertTrue(self.run_code("np.empty(1 << 55)").error["isMemoryError"])


class Lists(PackageTest):
    def test_the_packages_are_listed_without_a_warning(self):
        seen = self.run_code("import pkg_resources\n[d.project_name for d in pkg_resources.working_set]")
        self.assertIn("numpy", seen.result["json"])
        self.assertEqual(seen.stderr, "")
        warned = self.run_code("import warnings\nwarnings.warn('another')")
        self.assertIn("UserWarning: another", warned.stderr)


class Pictures(PackageTest):
    def pictures(self, outcome):
        found = [d["data"]["image/png"] for d in outcome.displays if "image/png" in d["data"]]
        if outcome.result and "image/png" in outcome.result["data"]:
            found.append(outcome.result["data"]["image/png"])
        for picture in found:
            self.assertTrue(base64.b64decode(picture).startswith(b"\x89PNG"))
        return found

    def test_figures(self):
        self.run_code("import matplotlib; matplotlib.use('Agg')\nimport matplotlib.pyplot as plt")
        cases = {
            "plt.plot([1, 2]);": 1,
            "plt.plot([1, 2]); plt.savefig('a.png')": 1,
            "fig, ax = plt.subplots(); ax.plot([1]); ax": 1,
            "fig, ax = plt.subplots(); ax.plot([1])\nfig": 1,
            "fig": 1,
            "fig, ax = plt.subplots(); ax.plot([1]); display(fig)": 1,
            "fig, ax = plt.subplots(); ax.plot([1]); fig.show()": 1,
            "for i in range(3):\n    plt.figure(); plt.plot([i])": 3,
            "plt.plot([1]); plt.close()": 0,
            "plt.figure()": 0,
            "plt.plot([1]); 1 / 0": 1,
            "from matplotlib.figure import Figure\nf = Figure(); f.subplots(); f": 1,
            "1": 0,
            "%matplotlib inline\nplt.plot([1])": 1,
            "plt.switch_backend('agg'); plt.plot([1])": 1,
        }
        for code, count in cases.items():
            with self.subTest(code):
                self.assertEqual(len(self.pictures(self.run_code(code))), count)

    def test_show_keeps_the_order(self):
        self.run_code("import matplotlib.pyplot as plt")
        outcome = self.run_code("plt.plot([1]); print('a'); plt.show(); print('b'); plt.plot([2]); plt.show()")
        self.assertEqual((len(outcome.displays), outcome.stdout, outcome.stderr), (2, "a\nb\n", ""))
        before = ["", ""]
        for display in range(2):
            place = [i for i, (kind, _) in enumerate(outcome.events) if kind == "display"][display]
            before[display] = "".join(text for kind, text in outcome.events[:place] if kind == "stdout")
        self.assertIn("a", before[0])
        self.assertIn("b", before[1])

    def test_plotly(self):
        self.run_code("import plotly.graph_objects as go\nfig = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))")
        named = ["fig.show(renderer='%s')" % name for name in ("notebook", "colab", "browser")]
        for code in ("fig.show()", "fig", "display(fig)", *named):
            with self.subTest(code):
                outcome = self.run_code(code)
                self.assertIsNone(outcome.error)
                (display,) = outcome.displays
                self.assertEqual(display["data"]["application/vnd.plotly.v1+json"]["data"][0]["type"], "scatter")
                self.assertLess(len(repr(display)), 100_000)

    def test_pillow(self):
        self.run_code("from PIL import Image\nimage = Image.new('RGB', (4, 4))")
        self.assertEqual(list(self.run_code("image").result["data"]), ["image/png"])
        self.assertEqual(len(self.pictures(self.run_code("image.show()"))), 1)
        self.assertEqual(len(self.pictures(self.run_code("display(image)"))), 1)


class Documents(PackageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(os.path.join(FIXTURES, "encrypted.xlsx"), "rb") as file:
            content = file.read()
        for name in ("book.xlsx", "text.docx", "slides.pptx"):
            cls.session.write(name, content)
        cls.session.write("garbage.xlsx", b"not a workbook")
        code = """
from PIL import Image
from pypdf import PdfReader, PdfWriter
import matplotlib.pyplot as plt
figure = plt.figure(); figure.text(0.1, 0.5, 'hello text'); figure.savefig('text.pdf'); plt.close()
Image.new('RGB', (50, 50)).save('scan.pdf')
writer = PdfWriter(clone_from='text.pdf'); writer.encrypt('secret'); writer.write('locked.pdf')
writer = PdfWriter(); writer.append('scan.pdf'); writer.append('text.pdf'); writer.write('mixed.pdf')
writer = PdfWriter(); writer.add_blank_page(100, 100); writer.write('blank.pdf')
"""
        error = cls.session.run(code).error
        assert error is None, error

    def test_encrypted_office_files(self):
        cases = {
            "import pandas; pandas.read_excel('book.xlsx')": "book.xlsx",
            "import openpyxl; openpyxl.load_workbook('book.xlsx')": "book.xlsx",
            "openpyxl.load_workbook(open('book.xlsx', 'rb'))": "book.xlsx",
            "import docx; docx.Document('text.docx')": "text.docx",
            "import pptx; pptx.Presentation('slides.pptx')": "slides.pptx",
            "import io, pathlib; openpyxl.load_workbook(io.BytesIO(pathlib.Path('book.xlsx').read_bytes()))": "the file",
        }
        for code, name in cases.items():
            with self.subTest(code):
                error = self.run_code(code).error
                self.assertIn("is encrypted with a password", error["message"])
                self.assertIn(name, error["message"])
        caught = "try:\n    openpyxl.load_workbook('book.xlsx')\nexcept Exception as e:\n    print(type(e).__name__, e)"
        self.assertIn("BadZipFile 'book.xlsx' is encrypted", self.run_code(caught).stdout)

    def test_other_errors_stay(self):
        for code in ("import openpyxl; openpyxl.load_workbook('garbage.xlsx')", "import docx; docx.Document('absent.docx')"):
            self.assertNotIn("encrypted", self.run_code(code).error["message"])

    def test_encrypted_pdf(self):
        error = self.run_code("import pypdf; pypdf.PdfReader('locked.pdf').pages[0]").error
        self.assertEqual(error["name"], "FileNotDecryptedError")
        self.assertIn("encrypted with a password", error["message"])
        error = self.run_code("import pdfplumber; pdfplumber.open('locked.pdf')").error
        self.assertIn("encrypted with a password", error["message"])
        opened = self.run_code("pypdf.PdfReader('locked.pdf', password='secret').pages[0].extract_text()")
        self.assertIn("hello", opened.result["json"])

    def test_scans(self):
        warning = "scan.pdf: the pages hold only images; there is no text to extract (OCR is not included)\n"
        readers = [
            "import pypdf; r = pypdf.PdfReader('{}'); [p.extract_text() for p in list(r.pages) * 2]",
            "import pdfplumber\nwith pdfplumber.open('{}') as pdf: print([p.extract_text() for p in pdf.pages])",
        ]
        for code in readers:
            with self.subTest(code):
                self.assertEqual(self.run_code(code.format("scan.pdf")).stderr, warning)
                self.assertEqual(self.run_code(code.format("text.pdf")).stderr, "")
                self.assertEqual(self.run_code(code.format("mixed.pdf")).stderr, "")
                self.assertEqual(self.run_code(code.format("blank.pdf")).stderr, "")


if __name__ == "__main__":
    unittest.main()
