"""Says what is wrong with documents that cannot be read: encrypted Office files and PDFs, and PDFs that are scans.

The libraries raise what they always raised, so programs that catch it go on; only the text is made useful.
"""

import functools
import sys

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")
HEAD_LIMIT = 64 * 1024 * 1024  # the directory of a compound file may stand at its end
PAGES_LOOKED_AT = 50

OFFICE_HINT = "is encrypted with a password; remove the password first, or decrypt it (for example with msoffcrypto)"
PDF_HINT = "the PDF is encrypted with a password; remove the password first, or pass it when opening the file"


# --- Office ---


def openpyxl(module):
    module.load_workbook = _explained(module.load_workbook)


def pandas_excel(module):
    module.ExcelFile.__init__ = _explained(module.ExcelFile.__init__, position=1)


def docx(module):
    module.Document = _explained(module.Document)


def pptx(module):
    module.Presentation = _explained(module.Presentation)


def _explained(function, position=0):
    """The function, whose error names the encryption when its file argument is an encrypted package."""

    @functools.wraps(function)
    def wrapper(*arguments, **options):
        try:
            return function(*arguments, **options)
        except Exception as error:
            files = [*arguments[position : position + 1], *options.values()]
            for file in files:
                if _is_encrypted_package(file):
                    _set_message(error, "%s %s" % (_label(file), OFFICE_HINT))
                    break
            raise

    return wrapper


def _is_encrypted_package(file):
    """Whether this is a path, bytes or file object of a compound file that holds an encrypted package."""
    try:
        if isinstance(file, (bytes, bytearray)):
            head = bytes(file[:HEAD_LIMIT])
        elif hasattr(file, "read") and hasattr(file, "seek"):
            position = file.tell()
            file.seek(0)
            head = file.read(HEAD_LIMIT)
            file.seek(position)
        elif isinstance(file, str) or hasattr(file, "__fspath__"):
            with open(file, "rb") as opened:
                head = opened.read(8)
                if head == OLE_MAGIC:
                    head += opened.read(HEAD_LIMIT)
        else:
            return False
        return head[:8] == OLE_MAGIC and ENCRYPTED_STREAM in head
    except Exception:
        return False


def _label(file):
    name = file if isinstance(file, str) else getattr(file, "name", None)
    if hasattr(file, "__fspath__"):
        name = file.__fspath__()
    return "'%s'" % str(name).rpartition("/")[2] if isinstance(name, str) else "the file"


def _set_message(error, text):
    if hasattr(error, "msg") and isinstance(error, ImportError):
        error.msg = text
    error.args = (text,)


# --- PDF ---


def pypdf_errors(module):
    _append_hint(module.FileNotDecryptedError)


def pdfminer(module):
    _append_hint(module.PDFPasswordIncorrect)


def _append_hint(kind):
    def text(error):
        said = Exception.__str__(error)
        return "%s: %s" % (said.rstrip("."), PDF_HINT) if said else PDF_HINT

    kind.__str__ = text


def pypdf_reader(module):
    """Remembers the file's name, which a reader forgets."""
    original = module.PdfReader.__init__

    @functools.wraps(original)
    def __init__(self, stream, *arguments, **options):
        self._source_label = _document_name(stream)
        original(self, stream, *arguments, **options)

    module.PdfReader.__init__ = __init__


def pypdf_page(module):
    original = module.PageObject.extract_text

    @functools.wraps(original)
    def extract_text(self, *arguments, **options):
        text = original(self, *arguments, **options)
        if not text.strip():
            _quietly(_warn_pypdf, self)
        return text

    module.PageObject.extract_text = extract_text


def pdfplumber(module):
    original = module.Page.extract_text

    @functools.wraps(original)
    def extract_text(self, *arguments, **options):
        text = original(self, *arguments, **options)
        if not (text or "").strip():
            _quietly(_warn_pdfplumber, self)
        return text

    module.Page.extract_text = extract_text


def _quietly(function, page):
    try:
        function(page)
    except Exception:
        pass


def _warn_pypdf(page):
    reader = page.indirect_reference.pdf
    if not hasattr(reader, "_warned_of_images"):
        reader._warned_of_images = True
        pages = [reader.pages[i] for i in range(min(len(reader.pages), PAGES_LOOKED_AT))]
        _warn_if_images(getattr(reader, "_source_label", None), [p.get("/Resources") for p in pages], _pypdf_object)


def _warn_pdfplumber(page):
    pdf = page.pdf
    if not hasattr(pdf, "_warned_of_images"):
        pdf._warned_of_images = True
        from pdfminer.pdftypes import resolve1

        resources = [p.page_obj.resources for p in pdf.pages[:PAGES_LOOKED_AT]]
        _warn_if_images(_document_name(getattr(pdf, "path", None) or pdf.stream), resources, resolve1)


def _pypdf_object(value):
    return value.get_object() if hasattr(value, "get_object") else value


def _warn_if_images(name, all_resources, resolve):
    """Warns when no page uses a font (then there can be no text) and some page has a picture."""
    fonts, images = [], []
    for resources in all_resources:
        _look(resources, resolve, fonts, images, 0)
    if images and not fonts:
        text = "%s: the pages hold only images; there is no text to extract (OCR is not included)"
        print(text % (name or "the PDF"), file=sys.stderr)


def _look(resources, resolve, fonts, images, depth):
    """Collects fonts and images of a page's resources, those of its embedded forms included."""
    resources = resolve(resources)
    if not isinstance(resources, dict) or depth > 5:
        return
    entries = {str(key).strip("/'"): resolve(value) for key, value in resources.items()}
    fonts.extend(entries.get("Font") or ())
    for item in (entries.get("XObject") or {}).values():
        item = resolve(item)
        attributes = getattr(item, "attrs", item)
        subtype = str(getattr(attributes.get("Subtype", attributes.get("/Subtype")), "name", "")) or str(
            attributes.get("/Subtype", "")
        )
        if subtype.strip("/") == "Image":
            images.append(item)
        else:
            _look(attributes.get("Resources", attributes.get("/Resources")), resolve, fonts, images, depth + 1)


def _document_name(source):
    name = source if isinstance(source, str) else getattr(source, "name", None)
    if hasattr(source, "__fspath__"):
        name = source.__fspath__()
    return name.rpartition("/")[2] if isinstance(name, str) else None
