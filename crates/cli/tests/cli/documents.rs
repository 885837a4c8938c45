//! Documents that cannot be read say why.

use crate::support::Scene;

/// A run that must fail with this text in its error.
fn fails_with(scene: &Scene, file: &str, code: &str, texts: &[&str]) {
    let execution = scene.call(["run", "--json", "-", "--file", file], code).execution();
    assert_eq!(execution.outcome(), "raised", "{code}: {}", execution.0);
    let message = execution.0["error"]["message"].as_str().unwrap();
    for text in texts {
        assert!(message.contains(text), "`{text}` is said by {code}: {message}");
    }
}

#[test]
fn an_encrypted_pdf_says_so() {
    let scene = Scene::new();
    let make = "from pypdf import PdfWriter\nwriter = PdfWriter()\nwriter.add_blank_page(100, 100)\nwriter.encrypt('secret', algorithm='RC4-128')\nwriter.write('locked.pdf')\n";
    let made = scene.python(make);
    assert_eq!(made.code(), 0, "{}", made.stderr);
    assert!(scene.saved("locked.pdf").starts_with(b"%PDF-"));
    let file = "belljar-out/locked.pdf";
    fails_with(
        &scene,
        file,
        "from pypdf import PdfReader\nPdfReader('locked.pdf').pages[0].extract_text()",
        &["encrypted with a password", "remove the password"],
    );
    fails_with(&scene, file, "import pdfplumber\npdfplumber.open('locked.pdf').pages[0].extract_text()", &["encrypted with a password"]);
    let code = "from pypdf import PdfReader\nreader = PdfReader('locked.pdf', password='secret')\nlen(reader.pages)";
    scene.call(["run", "-", "--file", file], code).prints("1\n");
}

#[test]
fn an_encrypted_workbook_says_so() {
    let scene = Scene::new();
    // What tells an encrypted package: the magic of a compound file, and the name of the stream that holds the package.
    let mut content = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
    content.resize(4096, 0);
    content.extend("EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes));
    content.resize(8192, 0);
    for name in ["locked.xlsx", "locked.docx", "locked.pptx"] {
        scene.write(name, &content);
    }
    let says = |name: &'static str| [name, "encrypted with a password", "remove the password first"];
    fails_with(&scene, "locked.xlsx", "import openpyxl\nopenpyxl.load_workbook('locked.xlsx')", &says("'locked.xlsx'"));
    fails_with(&scene, "locked.xlsx", "import pandas as pd\npd.read_excel('locked.xlsx')", &says("'locked.xlsx'"));
    fails_with(&scene, "locked.docx", "import docx\ndocx.Document('locked.docx')", &says("'locked.docx'"));
    fails_with(&scene, "locked.pptx", "from pptx import Presentation\nPresentation('locked.pptx')", &says("'locked.pptx'"));
}

#[test]
fn a_scanned_pdf_says_that_it_has_no_text() {
    let scene = Scene::new();
    let make = "from PIL import Image, ImageDraw\npicture = Image.new('RGB', (400, 200), 'white')\nImageDraw.Draw(picture).text((20, 20), 'scanned', fill='black')\npicture.save('scan.pdf')\n";
    assert_eq!(scene.python(make).code(), 0);
    for read in [
        "from pypdf import PdfReader\nprint(repr(PdfReader('scan.pdf').pages[0].extract_text()))",
        "import pdfplumber\nprint(repr(pdfplumber.open('scan.pdf').pages[0].extract_text()))",
    ] {
        let ended = scene.call(["run", "-", "--file", "belljar-out/scan.pdf"], read);
        ended.prints("''\n");
        assert!(ended.stderr.contains("scan.pdf: the pages hold only images; there is no text to extract"), "{read}: {}", ended.stderr);
    }
}
