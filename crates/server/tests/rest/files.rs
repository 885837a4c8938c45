//! Files: names of every kind, whole or in parts, replaced at once or not at all.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::scene::{Scene, scene};

fn encoded(name: &[u8]) -> String {
    name.iter().map(|byte| format!("%{byte:02X}")).collect()
}

fn listed(scene: &Scene, session: &str) -> Vec<String> {
    let list = scene.ask("GET", &format!("/v1/sessions/{session}/files?recursive=true")).send().expect(200).json();
    list["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn names_of_every_kind_come_back() {
    let scene = scene();
    scene.python("names", "1").expect(200);
    let names: [&[u8]; 24] = [
        b"line\nbreak",
        b"cr\rx",
        b"tab\tx",
        b"esc\x1b[31m",
        b"\"quoted\"",
        b"semi;colon",
        b"..x",
        b"...",
        b"-rf",
        b" lead",
        b".hidden",
        b"trail ",
        &[b'n'; 255],
        b"\xff\xfe\x80",
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        "\u{202e}gpj.exe".as_bytes(),
        "\u{200b}".as_bytes(),
        b"CON",
        b"%2e%2e",
        b"%252e",
        b"a%2Fb",
        "😀".as_bytes(),
        b"?#&=+\\",
    ];
    for name in names {
        let content = [b"content of ", name].concat();
        let target = format!("/v1/sessions/names/files/{}", encoded(name));
        let put = scene.ask("PUT", &target).body(content.clone()).send().expect(201);
        // What the list says leads to the same file.
        let url = put.json()["url"].as_str().unwrap().to_owned();
        assert_eq!(put.header("location"), Some(url.as_str()));
        let got = scene.ask("GET", &url).send().expect(200);
        assert_eq!(got.body, content);
        let disposition = got.header("content-disposition").unwrap();
        assert!(disposition.starts_with("attachment; filename=\"") && disposition.is_ascii(), "{disposition}");
        assert_eq!(got.header("set-cookie"), None);
        assert_eq!((got.header("x-content-type-options"), got.header("content-security-policy")), (Some("nosniff"), Some("sandbox; default-src 'none'")));
    }
    let list = scene.ask("GET", "/v1/sessions/names/files").send().expect(200).json();
    assert_eq!((list["files"].as_array().unwrap().len(), &list["incomplete"], &list["next"]), (names.len(), &json!(false), &json!(null)));
    for file in list["files"].as_array().unwrap() {
        scene.ask("HEAD", file["url"].as_str().unwrap()).send().expect(200);
    }
    // The code sees the very same bytes, and what it makes is linked so that it is found.
    let count = scene.python("names", "import os\nopen(b'made\\xff', 'w').write('m')\nprint(len(os.listdir('.')))").expect(200).json();
    assert_eq!(count["stdout"], format!("{}\n", names.len() + 1));
    assert_eq!(scene.ask("GET", count["artifacts"][0]["url"].as_str().unwrap()).send().expect(200).text(), "m");
    for name in names {
        scene.ask("DELETE", &format!("/v1/sessions/names/files/{}", encoded(name))).send().expect(204);
    }
    assert_eq!(listed(&scene, "names"), ["made\u{fffd}"]);
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let scene = scene();
    scene
        .python("paths", "open('a', 'w').write('a')\nimport os\nos.symlink('/etc/passwd', 'link')\nos.symlink('a', 'soft')\nos.mkfifo('pipe')\nos.mkdir('d')")
        .expect(200);
    let bad = [
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2fa",
        "d/../a",
        "%2e",
        "d/.",
        "/etc/passwd",
        "//etc/passwd",
        "d//a",
        "d/",
        "a%00b",
        "%00",
        &"n".repeat(256),
        "%2Fetc%2Fpasswd",
        "%2Fmnt%2Fdata",
        "d/%2e%2e/a",
        "%2fmnt%2fdata%2f..%2fa",
    ];
    for path in bad {
        for method in ["GET", "DELETE", "PUT"] {
            let mut request = scene.ask(method, &format!("/v1/sessions/paths/files/{path}"));
            if method == "PUT" {
                request = request.body("x");
            }
            request.send().refused(400, "invalid_request");
        }
        let list = scene.ask("GET", &format!("/v1/sessions/paths/files?path={}", path.replace('&', "%26"))).send();
        list.refused(400, "invalid_request");
    }
    // Decoded once: these are names, and there are none.
    for path in ["%252e%252e%252fa", "%c0%ae%c0%ae%c0%afa", "..%5ca"] {
        scene.ask("GET", &format!("/v1/sessions/paths/files/{path}")).send().refused(404, "not_found");
    }
    for path in ["link", "soft", "pipe", "d"] {
        scene.ask("GET", &format!("/v1/sessions/paths/files/{path}")).send().refused(409, "conflict");
    }
    scene.ask("GET", "/v1/sessions/paths/files/link/x").send().refused(409, "conflict");
    assert_eq!(scene.ask("GET", "/v1/sessions/paths/files/%2Fmnt%2Fdata%2Fa").send().expect(200).text(), "a");
    let kinds = scene.ask("GET", "/v1/sessions/paths/files").send().expect(200).json();
    let kinds: Vec<String> = kinds["files"].as_array().unwrap().iter().map(|file| format!("{} {}", file["path"], file["type"])).collect();
    assert_eq!(kinds, [r#""a" "file""#, r#""d" "folder""#, r#""link" "other""#, r#""pipe" "other""#, r#""soft" "other""#]);
    scene.ask("PUT", "/v1/sessions/paths/files/d").body("x").send().refused(409, "conflict");
    scene.ask("DELETE", "/v1/sessions/paths/files/none").send().refused(404, "not_found");
    scene.ask("GET", "/v1/sessions/paths/files?path=a").send().refused(404, "not_found");
    scene.ask("GET", "/v1/sessions/paths/files?path=none").send().refused(404, "not_found");
}

#[test]
fn uploads_replace_at_once_or_not_at_all() {
    let scene = scene();
    scene.python("puts", "1").expect(200);
    let target = "/v1/sessions/puts/files/folder/data.csv";
    assert_eq!(scene.ask("PUT", target).body("one").send().expect(201).json()["sizeBytes"], 3);
    let again = scene.ask("PUT", target).body("second").send().expect(200);
    assert_eq!((again.json()["mediaType"].as_str(), again.header("location")), (Some("text/csv"), None));
    let got = scene.ask("GET", target).send().expect(200);
    assert_eq!((got.text().as_str(), got.header("content-type")), ("second", Some("text/csv; charset=utf-8")));
    // In pieces, without a length.
    let mut stream = scene.ask("PUT", "/v1/sessions/puts/files/pieces").header("Transfer-Encoding", "chunked").open();
    stream.write_all(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap();
    assert_eq!(crate::client::Answer::read_head(&mut std::io::BufReader::new(stream)).status, 201);
    assert_eq!(scene.ask("GET", "/v1/sessions/puts/files/pieces").send().expect(200).text(), "abcde");
    scene.ask("PUT", "/v1/sessions/puts/files/empty").body("").send().expect(201);
    assert_eq!(scene.ask("GET", "/v1/sessions/puts/files/empty").send().expect(200).body, b"");
    // A body that breaks off leaves the old file, and nothing else.
    let mut stream = scene.ask("PUT", target).header("Content-Length", "1000000").open();
    stream.write_all(&[b'x'; 500_000]).unwrap();
    drop(stream);
    let patience = Instant::now() + Duration::from_secs(20);
    while listed(&scene, "puts") != ["empty", "folder", "folder/data.csv", "pieces"] {
        assert!(Instant::now() < patience, "{:?}", listed(&scene, "puts"));
        std::thread::yield_now();
    }
    assert_eq!(scene.ask("GET", target).send().expect(200).text(), "second");
    // Larger than the workspace: refused before a byte of it is taken.
    let large = scene.ask("PUT", target).header("Content-Length", "100000000").header("Expect", "100-continue").open();
    assert_eq!(crate::client::Answer::read_head(&mut std::io::BufReader::new(large)).status, 413);
    let huge = scene.ask("PUT", target).header("Content-Length", "99999999999").header("Expect", "100-continue").open();
    assert_eq!(crate::client::Answer::read_head(&mut std::io::BufReader::new(huge)).status, 413);
    scene.ask("PUT", target).header("Content-Encoding", "gzip").body("x").send().refused(400, "invalid_request");
    scene.ask("PUT", target).header("Content-Range", "bytes 0-0/2").body("x").send().refused(400, "invalid_request");
    assert_eq!(scene.ask("GET", target).send().expect(200).text(), "second");
    // More than an ordinary body may have.
    let long = vec![b'l'; 20 << 20];
    assert_eq!(scene.ask("PUT", "/v1/sessions/puts/files/long").body(long.clone()).send().expect(201).json()["sizeBytes"], long.len());
    assert!(scene.ask("GET", "/v1/sessions/puts/files/long").send().expect(200).body == long);
}

#[test]
fn parts_and_conditions() {
    let scene = scene();
    scene.python("part", "open('f', 'w').write('0123456789')").expect(200);
    let ask = |range: &str| scene.ask("GET", "/v1/sessions/part/files/f").header("Range", range);
    let part = ask("bytes=2-4").send().expect(206);
    assert_eq!((part.text().as_str(), part.header("content-range")), ("234", Some("bytes 2-4/10")));
    assert_eq!(ask("bytes=0-1,5-6").send().expect(200).body.len(), 10);
    let beyond = ask("bytes=10-").send();
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));
    beyond.refused(416, "invalid_request");
    let tag = part.header("etag").unwrap().to_owned();
    assert_eq!(ask("bytes=0-0").header("If-Range", &tag).send().expect(206).body.len(), 1);
    let same = scene.ask("GET", "/v1/sessions/part/files/f").header("If-None-Match", &tag).send().expect(304);
    assert!(same.whole && same.body.is_empty());
    let head = scene.ask("HEAD", "/v1/sessions/part/files/f").send().expect(200);
    assert_eq!((head.header("content-length"), head.header("accept-ranges"), head.whole), (Some("10"), Some("bytes"), true));
    scene.python("part", "open('f', 'a').write('x')").expect(200);
    assert_eq!(ask("bytes=0-0").header("If-Range", &tag).send().expect(200).body.len(), 11, "it has changed");
}

#[test]
fn lists_come_page_by_page() {
    let scene = scene();
    let code = "import os\nos.mkdir('many')\nfor n in range(25):\n    open(f'many/{n:02} é', 'w').close()\nos.makedirs('a/b')\nopen(b'a/b/\\xff', 'w').close()";
    scene.python("page", code).expect(200);
    let mut next = Some("/v1/sessions/page/files?path=many&limit=10".to_owned());
    let (mut seen, mut pages) = (Vec::new(), 0);
    while let Some(target) = next {
        let page = scene.ask("GET", &target).send().expect(200).json();
        seen.extend(page["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()));
        next = page["next"].as_str().map(str::to_owned);
        pages += 1;
    }
    assert_eq!((pages, seen.len()), (3, 25));
    assert!(seen.is_sorted() && seen[0] == "many/00 é");
    let deep = scene.ask("GET", "/v1/sessions/page/files?path=a&recursive=true").send().expect(200).json();
    assert_eq!(deep["files"][1]["url"], "/v1/sessions/page/files/a/b/%FF");
    assert_eq!(scene.ask("GET", "/v1/sessions/page/files?path=a%2Fb").send().expect(200).json()["files"].as_array().unwrap().len(), 1);
    for query in ["limit=0", "limit=10001", "limit=x", "recursive=maybe", "unknown=1", "path=a&path=b"] {
        scene.ask("GET", &format!("/v1/sessions/page/files?{query}")).send().refused(400, "invalid_request");
    }
}

#[test]
fn times_that_code_sets_break_no_answer() {
    let scene = scene();
    for (name, seconds) in [("before-1970", "-10**9"), ("after-9999", "10**12"), ("as-late-as-can-be", "2**62")] {
        scene.python("times", &format!("import os\nopen('{name}', 'w').write('x')\nos.utime('{name}', ({seconds}, {seconds}))")).expect(200);
        scene.ask("GET", &format!("/v1/sessions/times/files/{name}")).send().expect(200);
        let tool = scene.ask("POST", "/v1/sessions/times/tools/GetSessionFile").json(&json!({"filePath": name})).send().expect(200);
        let told = tool.json()["files"][0]["modifiedAt"].as_str().unwrap().to_owned();
        assert!(("1970".."2555").contains(&told.get(..4).unwrap()), "{told}");
        scene.ask("POST", "/v1/sessions/times/tools/ReadSessionFile").json(&json!({"filePath": name})).send().expect(200);
        for version in ["2024-02-02-preview", "2025-10-02-preview"] {
            let query = format!("api-version={version}&identifier=times");
            scene.ask("GET", &format!("/files/content/{name}?{query}")).send().expect(200);
            scene.ask("GET", &format!("/files/{name}/content?{query}")).send().expect(200);
            scene.ask("GET", &format!("/files/{name}?{query}")).send().expect(200);
        }
    }
    assert_eq!(listed(&scene, "times").len(), 3);
}
