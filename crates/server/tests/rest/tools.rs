//! The eight tools over HTTP.

use base64::Engine;
use serde_json::{Value as Json, json};

use crate::client::Answer;
use crate::scene::{Scene, scene};

fn call(scene: &Scene, tool: &str, params: &Json) -> Answer {
    scene.ask("POST", &format!("/v1/sessions/model-1/tools/{tool}")).json(params).send()
}

fn text(answer: &Json) -> &str {
    answer["text"].as_str().unwrap()
}

#[test]
fn code_commands_and_what_they_print() {
    let scene = scene();
    let ran = call(&scene, "ExecutePythonCode", &json!({"pythonCode": "open('a.csv', 'w').write('x')\nprint('hi')\n6 * 7"})).expect(200).json();
    assert_eq!((&ran["tool"], &ran["sessionId"], &ran["failed"]), (&json!("ExecutePythonCode"), &json!("model-1"), &json!(false)));
    assert!(text(&ran).contains("stdout:\nhi") && text(&ran).contains("result:\n42") && text(&ran).contains("a.csv  1 bytes  text/csv"), "{}", text(&ran));
    assert_eq!((&ran["execution"]["stdout"], &ran["files"][0]["url"]), (&json!("hi\n"), &json!("/v1/sessions/model-1/files/a.csv")));
    let failed = call(&scene, "ExecutePythonCode", &json!({"pythonCode": "1 / 0", "timeoutSeconds": 5.0})).expect(200).json();
    assert!(failed["failed"] == true && text(&failed).contains("error: ZeroDivisionError: division by zero"));
    let shell = call(&scene, "RunShellCommand", &json!({"command": "pwd; ls; exit 4", "explanation": "look", "isBackground": false})).expect(200).json();
    assert!(text(&shell).contains("exit status 4") && text(&shell).contains("/mnt/data\na.csv"), "{}", text(&shell));
    // Long output is cut, and can be read on.
    let long = call(&scene, "ExecutePythonCode", &json!({"pythonCode": "import sys\nfor n in range(3000): print(n)\nsys.stderr.write('é' * 2500)"}))
        .expect(200)
        .json();
    let id = long["execution"]["id"].as_str().unwrap();
    assert_eq!(long["execution"]["stdout"].as_str().unwrap().chars().count(), 4000);
    assert_eq!(long["execution"]["stderr"].as_str().unwrap(), "é".repeat(2000));
    assert_eq!((&long["execution"]["stdoutTruncated"], &long["execution"]["stderrTruncated"]), (&json!(true), &json!(true)));
    assert!(text(&long).contains(&format!("filePath outputs/{id}/stdout.txt")));
    let rest = call(&scene, "ReadSessionFile", &json!({"filePath": format!("outputs/{id}/stdout.txt"), "startLine": 2999})).expect(200).json();
    assert_eq!(
        rest["lines"],
        json!({"path": format!("outputs/{id}/stdout.txt"), "startLine": 2999, "endLine": 3000, "totalLines": 3000, "text": "2998\n2999\n", "linesCut": false})
    );
    let got = call(&scene, "GetSessionFile", &json!({"filePath": format!("/mnt/data/outputs/{id}/stderr.txt")})).expect(200).json();
    assert_eq!(scene.ask("GET", got["files"][0]["url"].as_str().unwrap()).send().expect(200).text(), "é".repeat(2500));
}

#[test]
fn files_are_listed_read_searched_and_handed_over() {
    let scene = scene();
    let content = base64::engine::general_purpose::STANDARD.encode("one\ntwo\nthree\n");
    let put = call(&scene, "UploadFileToSession", &json!({"fileName": "in/data.txt", "contentBase64": content})).expect(200).json();
    assert_eq!((text(&put), &put["files"][0]["sizeBytes"]), ("wrote /mnt/data/in/data.txt (14 bytes)\n", &json!(14)));
    let png = "import struct, zlib\ndef chunk(kind, data):\n    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n\
               png = b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(b'\\0\\0')) + chunk(b'IEND', b'')\n\
               open('dot.png', 'wb').write(png)\nopen('bin', 'wb').write(b'two\\0two')\nopen('s.py', 'w').write('two = 2\\n')";
    call(&scene, "ExecutePythonCode", &json!({"pythonCode": png})).expect(200);
    let list = call(&scene, "ListSessionFiles", &json!({"recursive": true})).expect(200).json();
    assert_eq!(
        list["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect::<Vec<_>>(),
        ["bin", "dot.png", "in", "in/data.txt", "s.py"]
    );
    assert_eq!(call(&scene, "ListSessionFiles", &json!({"path": "/mnt/data/in"})).expect(200).json()["files"].as_array().unwrap().len(), 1);
    let read = call(&scene, "ReadSessionFile", &json!({"filePath": "/mnt/data/in/data.txt", "startLine": 2, "endLine": 2})).expect(200).json();
    assert_eq!((text(&read), &read["lines"]["totalLines"]), ("in/data.txt: lines 2 to 2 of 3\ntwo\n", &json!(3)));
    let found = call(&scene, "SearchSessionFiles", &json!({"pattern": "^two"})).expect(200).json();
    assert_eq!(found["matches"], json!([{"file": "in/data.txt", "line": 2, "text": "two"}, {"file": "s.py", "line": 1, "text": "two = 2"}]));
    let found = call(&scene, "SearchSessionFiles", &json!({"pattern": "two", "include": "*.py"})).expect(200).json();
    assert_eq!(found["matches"].as_array().unwrap().len(), 1);
    let found = call(&scene, "SearchSessionFiles", &json!({"pattern": "t", "path": "in", "maxResults": 1})).expect(200).json();
    assert_eq!((found["matches"].as_array().unwrap().len(), &found["incomplete"]), (1, &json!(true)));
    assert!(text(&call(&scene, "SearchSessionFiles", &json!({"pattern": "t", "path": "s.py"})).expect(200).json()).starts_with("1 match in 1 files"));
    let got = call(&scene, "GetSessionFile", &json!({"filePath": "dot.png"})).expect(200).json();
    assert_eq!(got["picture"]["type"], "image/png");
    let bytes = scene.ask("GET", got["files"][0]["url"].as_str().unwrap()).send().expect(200).body;
    assert_eq!(got["picture"]["data"], base64::engine::general_purpose::STANDARD.encode(bytes));
    assert_eq!(call(&scene, "GetSessionFile", &json!({"filePath": "s.py"})).expect(200).json().get("picture"), None);
}

#[test]
fn only_a_real_pdf_is_offered() {
    let scene = scene();
    let params = |code: &str, expected: &str, wanted: &str| json!({"pythonCode": code, "expectedOutputFilename": expected, "saveAsFilename": wanted});
    let pdf = "open('out.pdf', 'wb').write(b'%PDF-1.4\\n' + b'x' * 600_000 + b'\\n%%EOF\\n')";
    let made = call(&scene, "GeneratePdfReport", &params(pdf, "out.pdf", "re ports/May 'é'.pdf")).expect(200).json();
    assert!(made["failed"] == false && text(&made).contains("report: re ports/May 'é'.pdf (600,016 bytes, a PDF)"), "{}", text(&made));
    assert_eq!(scene.ask("GET", made["files"][0]["url"].as_str().unwrap()).send().expect(200).body.len(), 600_016);
    let same = call(&scene, "GeneratePdfReport", &params(pdf, "out.pdf", "out.pdf")).expect(200).json();
    assert_eq!((&same["failed"], same["files"].as_array().unwrap().len()), (&json!(false), 1));
    let refusals = [
        ("1", "none.pdf", "was not written"),
        ("1", "out.pdf", "is still the file of before"),
        ("open('text.pdf', 'w').write('hello')", "text.pdf", "is not a PDF"),
        ("import os\nos.mkdir('dir.pdf')", "dir.pdf", "was not written"),
        ("1 / 0", "out.pdf", "ZeroDivisionError"),
    ];
    for (code, expected, reason) in refusals {
        let answer = call(&scene, "GeneratePdfReport", &params(code, expected, "report.pdf")).expect(200).json();
        assert!(answer["failed"] == true && text(&answer).contains(reason) && text(&answer).contains("No report is offered"), "{}", text(&answer));
    }
    scene.ask("GET", "/v1/sessions/model-1/files/report.pdf").send().refused(404, "not_found");
    call(&scene, "GeneratePdfReport", &params("1", "out.pdf", "report.txt")).refused(400, "invalid_request");
}

#[test]
fn refusals_tell_a_model_what_to_do() {
    let scene = scene();
    let hint = |tool: &str, params: Json, status: u16| {
        let code = if status == 404 { "not_found" } else { "invalid_request" };
        let error = call(&scene, tool, &params).refused(status, code);
        error["hint"].as_str().unwrap_or_else(|| panic!("no hint: {error}")).to_owned()
    };
    assert!(hint("ExecuteCobol", json!({}), 404).contains("ExecutePythonCode, RunShellCommand"));
    for tool in ["ReadSessionFile", "GetSessionFile"] {
        assert!(hint(tool, json!({"filePath": "a"}), 404).contains("that makes the session"));
    }
    assert!(hint("ExecutePythonCode", json!({"code": "1"}), 400).contains("`pythonCode` (string, required)"));
    assert!(hint("ExecutePythonCode", json!({"pythonCode": "x".repeat(20_001)}), 400).contains("split it"));
    assert!(hint("ExecutePythonCode", json!({"pythonCode": "1", "timeoutSeconds": 4}), 400).contains("120 seconds"));
    assert!(hint("RunShellCommand", json!({"command": "ls", "timeoutSeconds": 241}), 400).contains("120 seconds"));
    assert!(hint("RunShellCommand", json!({"command": "ls", "isBackground": true}), 400).contains("timeoutSeconds"));
    assert!(hint("UploadFileToSession", json!({"fileName": "../a", "contentBase64": ""}), 400).contains("relative to /mnt/data"));
    assert!(hint("UploadFileToSession", json!({"fileName": "a", "contentBase64": "?"}), 400).contains("base64"));
    assert_eq!(scene.sessions(), 0, "nothing was made for a request that is refused");
    call(&scene, "ExecutePythonCode", &json!({"pythonCode": "open('b', 'wb').write(b'\\0')"})).expect(200);
    assert!(hint("ReadSessionFile", json!({"filePath": "/etc/passwd"}), 400).contains("relative to /mnt/data"));
    assert!(hint("ReadSessionFile", json!({"filePath": "none"}), 404).contains("ListSessionFiles"));
    assert!(hint("ReadSessionFile", json!({"filePath": "outputs/exe_0/stdout.txt"}), 404).contains("ListSessionFiles"));
    assert!(hint("ReadSessionFile", json!({"filePath": "b"}), 400).contains("GetSessionFile"));
    assert!(hint("ReadSessionFile", json!({"filePath": "b", "startLine": 0}), 400).contains("from 1"));
    assert!(hint("ReadSessionFile", json!({"filePath": "b", "startLine": 3, "endLine": 2}), 400).contains("from 1"));
    assert!(hint("SearchSessionFiles", json!({"pattern": "("}), 400).contains("regex"));
    assert!(hint("SearchSessionFiles", json!({"pattern": "a", "include": "["}), 400).contains("glob"));
    assert!(hint("SearchSessionFiles", json!({"pattern": "a", "maxResults": 501}), 400).contains("100"));
    assert!(hint("ListSessionFiles", json!({"path": ".."}), 400).contains("relative to /mnt/data"));
}
