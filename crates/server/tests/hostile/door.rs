//! What callers try on the routes themselves (T180–T203): another's things, bodies that are bombs, quotas that are raced.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::client::{Answer, Request};
use crate::scene::{ALICE, MALLORY, NARROW, PATIENCE, Scene, eventually, is_typed, resident, scene, scene_with, who_follows_links_is_lured};

/// What an answer says, without what names this one request; and with the names of things made alike.
fn alike(answer: &Answer, names: &[(&str, &str)]) -> (u16, BTreeMap<String, String>, String) {
    let replace = |text: &str| names.iter().fold(text.to_owned(), |text, (name, other)| text.replace(name, other));
    let passing = ["date", "x-request-id", "x-ms-request-id", "operation-location"];
    let headers = answer.headers.iter().filter(|(name, _)| !passing.contains(&name.as_str())).map(|(name, value)| (name.clone(), replace(value))).collect();
    let mut text = answer.text();
    if let Ok(mut body) = serde_json::from_str::<Json>(&text) {
        if let Some(error) = body["error"].as_object_mut() {
            error.remove("traceId");
        }
        text = body.to_string();
    }
    (answer.status, headers, replace(&text))
}

#[test]
fn t182_what_is_anothers_answers_like_what_is_not() {
    let scene = scene();
    // Ids of one length, so that even lengths are alike.
    let (session, nowhere) = ("alice-1", "nobody1");
    let body = json!({"code": "open('f', 'w').write('hers')\nprint('hers')\nx = 'hers'"});
    let hers = scene.ask_as(ALICE, "POST", &format!("/v1/sessions/{session}/executions")).json(&body).send().expect(200).json();
    let execution = hers["id"].as_str().unwrap().to_owned();
    let unknown = format!("exe_{}", "A".repeat(execution.len() - 4));
    let names = [(session, "ID"), (nowhere, "ID"), (execution.as_str(), "EXE"), (unknown.as_str(), "EXE")];
    // Each route in the router's own inventory that names a session, and so all that there are.
    let inventory = server::app::routes();
    let native = inventory.iter().filter(|(_, path)| path.starts_with("/v1/sessions/{id}")).map(|(method, path)| {
        let path = path.replace("{id}", "SESSION").replace("{exe}", "EXECUTION").replace("{*path}", "f").replace("{tool}", "ReadSessionFile");
        (method.clone(), path)
    });
    let shapes = [
        "/files?api-version=VERSION&identifier=SESSION",
        "/files/f?api-version=VERSION&identifier=SESSION",
        "/files/f/content?api-version=VERSION&identifier=SESSION",
        "/files/content/f?api-version=VERSION&identifier=SESSION",
        "/python/downloadFile?api-version=VERSION&identifier=SESSION&filename=f",
        "/session?api-version=VERSION&identifier=SESSION",
        "/executions/EXECUTION?api-version=VERSION&identifier=SESSION",
        "/.management/stopSession?api-version=VERSION&identifier=SESSION",
    ];
    let azure = shapes.iter().flat_map(|shape| {
        ["", "/pools/default", "/subscriptions/s/resourceGroups/g/sessionPools/default"]
            .into_iter()
            .flat_map(move |prefix| ["2024-02-02-preview", "2025-10-02-preview"].map(|version| format!("{prefix}{}", shape.replace("VERSION", version))))
    });
    let azure = azure.flat_map(|path| ["GET", "HEAD", "DELETE", "POST"].map(|method| (method.to_owned(), path.clone())));
    let all: Vec<(String, String)> = native.chain(azure).collect();
    assert!(all.len() > 60, "{}", all.len());
    for (method, shape) in &all {
        let ask = |session: &str, execution: &str| {
            let request = scene.ask(method, &shape.replace("SESSION", session).replace("EXECUTION", execution));
            let request = match method.as_str() {
                "PUT" => request.body("mine"),
                "POST" if shape.contains("/tools/") => request.json(&json!({"filePath": "f"})),
                "POST" => request.json(&json!({"code": "print(globals().get('x'))"})),
                _ => request,
            };
            request.send()
        };
        let (theirs, none) = (ask(session, &execution), ask(nowhere, &unknown));
        is_typed(&theirs, shape);
        assert_eq!(alike(&theirs, &names).0, alike(&none, &names).0, "{method} {shape}");
        // What makes a session of one's own answers with that; everything else with the same words.
        if theirs.status >= 400 {
            assert_eq!(alike(&theirs, &names), alike(&none, &names), "{method} {shape}");
        }
        assert!(!theirs.text().contains("hers"), "{method} {shape}: {}", theirs.text());
        // Those that were made by this are ended, so that the next route finds none.
        for id in [session, nowhere] {
            let _ = scene.ask("DELETE", &format!("/v1/sessions/{id}")).send();
        }
    }
    // A session of one's own does not open another's executions either.
    scene.python("mallory", "print(1)");
    for target in ["", "/stdout", "/stderr"] {
        scene.ask("GET", &format!("/v1/sessions/mallory/executions/{execution}{target}")).send().refused(404, "not_found");
    }
    scene.ask("POST", &format!("/v1/sessions/mallory/executions/{execution}/interrupt")).send().refused(404, "not_found");
    // The control: with her own key everything is still there, untouched.
    let there = scene.ask_as(ALICE, "GET", &format!("/v1/sessions/{session}/files/f")).send().expect(200);
    assert_eq!(there.text(), "hers");
    let own = scene.ask_as(ALICE, "GET", &format!("/v1/sessions/{session}/executions")).send().expect(200).json();
    assert_eq!(own["executions"].as_array().unwrap().len(), 1, "{own}");
    scene.others_go_on();
}

#[test]
fn t183_t201_refusals_tell_nothing_that_is_not_the_callers() {
    let scene = scene();
    let key = scene.key(MALLORY).to_owned();
    let long = "x".repeat(8000);
    let bad = [
        scene.ask_as("bj_wrong-key-that-was-sent", "GET", "/v1/sessions").send(),
        Request::new(scene.address, "GET", &format!("/v1/sessions?key={key}")).send(),
        scene.ask("GET", &format!("/v1/sessions?key={key}")).send(),
        scene.ask("GET", "/v1/sessions/none").send(),
        scene.ask("GET", "/v1/sessions/none/files/%2e%2e/etc/passwd").send(),
        scene.ask("GET", &format!("/v1/{long}")).send(),
        scene.ask("POST", "/v1/run").header("Content-Type", "application/json").body("{\"code\": ").send(),
        scene.ask("POST", "/v1/run").json(&json!({"code": 1, "key": key})).send(),
        scene.ask("POST", "/v1/run").json(&json!({"code": "1", "files": [{"name": "/etc/passwd", "contentBase64": ""}]})).send(),
        scene.ask("POST", "/v1/sessions/none/tools/NoTool").json(&json!({})).send(),
        scene.ask("PATCH", "/v1/sessions").send(),
        scene.ask("GET", "/v1/admin/keys").send(),
        scene.ask("GET", "/metrics").send(),
        scene.ask("POST", "/code/execute?api-version=2024-02-02-preview&identifier=none").body("x").send(),
        scene.ask("GET", "/executions/none?api-version=2025-10-02-preview&identifier=none").send(),
    ];
    let data = std::env::var("BELLJAR_TEST_DATA").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let never = [key.as_str(), "bj_wrong-key-that-was-sent", &data, "/root", "panicked", ".rs:", "src/", "os error", "backtrace", "hyper", "axum", "Rust"];
    let told = |answer: &Answer| {
        let all = format!("{:?} {}", answer.headers, answer.text());
        never.into_iter().filter(|never| all.contains(never)).map(str::to_owned).collect::<Vec<_>>()
    };
    // The control: in an answer that tells them, because its caller printed them, they are found.
    let print = json!({"code": format!("print({:?})", never.join(" "))});
    assert_eq!(told(&scene.ask("POST", "/v1/run").json(&print).send().expect(200)).len(), never.len(), "INVALID: what is told is not found");
    for answer in bad {
        assert!(answer.status >= 400, "{}", answer.text());
        is_typed(&answer, "a refusal");
        assert!(answer.body.len() < 4096, "not what was sent again: {} bytes", answer.body.len());
        assert_eq!(told(&answer), Vec::<String>::new(), "{:?} {}", answer.headers, answer.text());
        assert!(answer.header("server").is_none() && answer.header("x-powered-by").is_none(), "{:?}", answer.headers);
    }
    scene.others_go_on();
}

#[test]
fn t184_bodies_that_are_bombs() {
    let scene = scene();
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let keys: String = (0..1_000_000).map(|number| format!("\"k{number}\":0,")).collect();
    let bombs: Vec<(&str, Vec<u8>)> = vec![
        ("depth of lists", deep("[", "]").into()),
        ("depth of objects", deep("{\"a\":", "}").into()),
        ("depth behind a field", format!("{{\"code\":\"1\",\"pythonCode\":\"1\",\"inputs\":{}}}", deep("[", "]")).into()),
        ("a million keys", format!("{{{keys}\"code\":\"1\"}}").into()),
        ("the same key", b"{\"code\":\"1\",\"code\":\"2\",\"pythonCode\":\"1\",\"pythonCode\":\"2\"}".to_vec()),
        ("no number", b"{\"code\":NaN,\"pythonCode\":Infinity}".to_vec()),
        ("half a surrogate", b"{\"code\":\"\\ud800\",\"pythonCode\":\"\\udfff\"}".to_vec()),
        ("a mark of byte order", b"\xef\xbb\xbf{\"code\":\"1\",\"pythonCode\":\"1\"}".to_vec()),
        ("no UTF-8", b"{\"code\":\"\xff\",\"pythonCode\":\"\xff\"}".to_vec()),
        ("more behind it", b"{\"code\":\"1\",\"pythonCode\":\"1\"}{}".to_vec()),
        ("a list", b"[1]".to_vec()),
        ("a number", b"1".to_vec()),
        ("a huge number", format!("{{\"code\":\"1\",\"timeoutSeconds\":{}}}", "9".repeat(100_000)).into()),
        ("a huge exponent", b"{\"code\":\"1\",\"pythonCode\":\"1\",\"timeoutSeconds\":1e999999999}".to_vec()),
        ("spaces", vec![b' '; 1 << 20]),
        ("seven million values", format!("{{\"code\":\"1\",\"pythonCode\":\"1\",\"x\":[{}0]}}", "0,".repeat(7_000_000)).into()),
        ("a string of 15 MiB", format!("{{\"code\":\"{}\",\"pythonCode\":\"{0}\"}}", "#".repeat(7 << 20)).into()),
    ];
    let routes =
        ["/v1/sessions", "/v1/sessions/bomb/executions", "/v1/run", "/v1/sessions/bomb/tools/ExecutePythonCode", "/v1/sessions/bomb/tools/UploadFileToSession"];
    let azure = ["/code/execute?api-version=2024-02-02-preview&identifier=bomb", "/executions?api-version=2025-10-02-preview&identifier=bomb"];
    // The control: each of these routes takes a body that is none.
    let plain = [
        json!({}),
        json!({"code": "1"}),
        json!({"code": "1"}),
        json!({"pythonCode": "1"}),
        json!({"fileName": "f", "contentBase64": ""}),
        json!({"properties": {"codeInputType": "inline", "executionType": "synchronous", "code": "1"}}),
        json!({"codeInputType": "Inline", "executionType": "Synchronous", "code": "1"}),
    ];
    for (route, body) in routes.iter().chain(&azure).zip(&plain) {
        let answer = scene.ask("POST", route).json(body).send();
        assert!(matches!(answer.status, 200..=202), "INVALID: {route} takes nothing: {} {}", answer.status, answer.text());
    }
    let before = resident();
    for (name, bomb) in &bombs {
        for route in routes.iter().chain(&azure) {
            let begun = Instant::now();
            let answer = scene.ask("POST", route).header("Content-Type", "application/json").body(bomb.clone()).send();
            is_typed(&answer, &format!("{name} to {route}"));
            // Some clients of the service of containers begin with a mark of byte order.
            let taken = *name == "a mark of byte order" && azure.contains(route);
            assert!(taken || answer.status >= 400, "{name} to {route}: {}", answer.text());
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} to {route}");
        }
    }
    // A gigabyte is not waited for, announced or not.
    for route in routes.iter().chain(&azure) {
        let announced =
            scene.ask("POST", route).header("Content-Type", "application/json").header("Content-Length", "1073741824").header("Expect", "100-continue");
        let answer = Answer::read_head(&mut std::io::BufReader::new(announced.open()));
        assert_eq!(answer.status, 413, "{route}");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "memory grew by {grown} bytes");
    scene.others_go_on();
}

/// A body of parts.
fn parts(parts: &[(&str, &[u8])], end: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (disposition, content) in parts {
        body.extend(format!("--f00\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(end.bytes());
    body
}

#[test]
fn t185_bodies_of_parts() {
    let scene = scene();
    scene.python("parts", "1");
    let file = |name: &str| format!("name=\"file\"; filename=\"{name}\"");
    let many: Vec<_> = (0..100_000).map(|_| ("name=\"x\"", &b""[..])).collect();
    let (up, absolute, long, header) = (file("../../tmp/x"), file("/etc/x"), file(&"n".repeat(300)), file(&"n".repeat(100_000)));
    let (newline, nothing, link) = (file("a\nb"), file(""), file("link"));
    let bodies: Vec<(&str, Vec<u8>, bool)> = vec![
        ("100,000 parts", parts(&many, "--f00--\r\n"), false),
        ("no end", parts(&[(&file("noend"), b"x")], ""), false),
        ("an end that is none", parts(&[(&file("noend"), b"x")], "--f0"), false),
        ("no part", b"--f00--\r\n".to_vec(), false),
        ("nothing", Vec::new(), false),
        ("another boundary", b"--bar\r\n\r\nx\r\n--bar--\r\n".to_vec(), false),
        ("a name that leads up", parts(&[(&up, b"x")], "--f00--\r\n"), false),
        ("an absolute name", parts(&[(&absolute, b"x")], "--f00--\r\n"), false),
        ("a long name", parts(&[(&long, b"x")], "--f00--\r\n"), false),
        ("a huge header", parts(&[(&header, b"x")], "--f00--\r\n"), false),
        ("a line end in a name", parts(&[(&newline, b"x")], "--f00--\r\n"), false),
        ("no name", parts(&[(&nothing, b"x")], "--f00--\r\n"), false),
        ("a header without end", [b"--f00\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat(), false),
        ("headers without end", [b"--f00\r\n".to_vec(), b"X: y\r\n".repeat(10_000)].concat(), false),
        ("an empty file", parts(&[(&file("empty"), b"")], "--f00--\r\n"), true),
        ("a name through a link", parts(&[(&link, b"mine")], "--f00--\r\n"), true),
        ("the same name twice", parts(&[(&file("twice"), b"one"), (&file("twice"), b"two")], "--f00--\r\n"), false),
    ];
    scene.python("parts", &format!("import os\nos.symlink('{}', 'link')", scene.canary.file().display()));
    // The controls: a body as it should be is taken, and whoever writes through such a link has written outside.
    for (target, name) in
        [("/files/upload?api-version=2024-02-02-preview&identifier=parts", "one"), ("/files?api-version=2025-10-02-preview&identifier=parts", "two")]
    {
        let body = parts(&[(&file(name), b"as it should be")], "--f00--\r\n");
        let answer = scene.ask("POST", target).header("Content-Type", "multipart/form-data; boundary=f00").body(body).send();
        assert_eq!(answer.status, 200, "INVALID: {target}: {}", answer.text());
        assert_eq!(scene.file("GET", "parts", name).send().expect(200).text(), "as it should be");
    }
    who_follows_links_is_lured();
    let before = resident();
    for (name, body, taken) in &bodies {
        for target in ["/files/upload?api-version=2024-02-02-preview&identifier=parts", "/files?api-version=2025-10-02-preview&identifier=parts"] {
            let answer = scene.ask("POST", target).header("Content-Type", "multipart/form-data; boundary=f00").body(body.clone()).send();
            is_typed(&answer, name);
            if *taken {
                drop(answer.expect(200));
            }
            scene.canary.is_untouched();
        }
    }
    assert!(resident().saturating_sub(before) < 128 << 20);
    let list = scene.ask("GET", "/v1/sessions/parts/files?recursive=true").send().expect(200).json();
    let names: Vec<&str> = list["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| !name.starts_with(".upload") && !name.contains("noend")), "{names:?}");
    assert_eq!(scene.file("GET", "parts", "link").send().expect(200).text(), "mine");
    scene.others_go_on();
}

#[test]
fn t188_ranges() {
    let scene = scene();
    scene.python("range", "open('f', 'w').write('0123456789')");
    // The control: a range as it should be gives that part, on both.
    for target in ["/v1/sessions/range/files/f", "/files/content/f?api-version=2024-02-02-preview&identifier=range"] {
        let part = scene.ask("GET", target).header("Range", "bytes=2-4").send();
        assert_eq!((part.status, part.text().as_str()), (206, "234"), "INVALID: {target}");
    }
    let thousand = (0..1000).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",");
    for range in [
        format!("bytes={thousand}"),
        format!("bytes={}", "0-,".repeat(5000)),
        "bytes=-99999999999999999999999".to_owned(),
        "bytes=0-99999999999999999999999".to_owned(),
        "bytes=18446744073709551615-18446744073709551616".to_owned(),
        "bytes=9223372036854775807-".to_owned(),
        "bytes=5-2".to_owned(),
        "bytes=--1".to_owned(),
        "bytes=-".to_owned(),
        "bytes=0x1-2".to_owned(),
        "items=0-1".to_owned(),
        "bytes".to_owned(),
        "\u{e9}".to_owned(),
    ] {
        for target in ["/v1/sessions/range/files/f", "/files/content/f?api-version=2024-02-02-preview&identifier=range"] {
            let answer = scene.ask("GET", target).header("Range", &range).send();
            assert!(matches!(answer.status, 200 | 206 | 416), "{range}: {}", answer.status);
            assert!(answer.status == 416 || answer.body.len() <= 10 && answer.whole, "{range}: {}", answer.body.len());
        }
    }
    let two = scene.file("GET", "range", "f").header("Range", "bytes=0-0").header("Range", "bytes=1-1").send().expect(200);
    assert_eq!(two.body.len(), 10);
    let packed = scene.file("GET", "range", "f").header("Accept-Encoding", "gzip, br, zstd").send().expect(200);
    assert_eq!((packed.header("content-encoding"), packed.body.len()), (None, 10), "nothing is packed");
    scene.others_go_on();
}

#[test]
fn t194_t196_t199_pages_of_others() {
    let scene = scene();
    let body = json!({"code": "open('TAKEN', 'w').close()"});
    for origin in ["null", "http://evil.example", "https://localhost.evil.example", "http://evil.example:8720", "file://"] {
        for route in ["/v1/sessions/page/executions", "/v1/run", "/v1/sessions", "/code/execute?api-version=2024-02-02-preview&identifier=page"] {
            let answer = scene.ask("POST", route).header("Origin", origin).json(&body).send();
            assert_eq!(answer.status, 403, "{origin} {route}: {}", answer.text());
            assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{:?}", answer.headers);
        }
        let read = scene.ask("GET", "/v1/sessions").header("Origin", origin).send();
        assert!(read.headers.iter().all(|(name, _)| !name.starts_with("access-control-") && name != "set-cookie"), "{:?}", read.headers);
    }
    // There is no other protocol to change to, and so no control: nothing here could accept one.
    let upgrade = scene
        .ask("GET", "/v1/sessions")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13");
    assert_ne!(upgrade.send().status, 101);
    assert_ne!(scene.ask("GET", "/v1/sessions").header("Upgrade", "h2c").header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA").send().status, 101);
    // The control: without a page behind it, and for a page of our own, it is done.
    scene.ask("POST", "/v1/sessions/page/executions").json(&body).send().expect(200);
    let own = format!("http://{}", scene.address);
    for route in ["/v1/sessions/page/executions", "/v1/run"] {
        scene.ask("POST", route).header("Origin", &own).json(&body).send().expect(200);
    }
    scene.others_go_on();
}

#[test]
fn t198_parameters_of_tools() {
    let scene = scene();
    scene.python("tools", "open('f', 'w').write('x\\x1b[31mred')");
    let paths =
        ["../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "a/../../b", "", ".", "..", "//", "/proc/self/environ", "a\0b", "/mnt/data/../x", "~/x"];
    for path in paths {
        for (tool, params) in [
            ("ReadSessionFile", json!({"filePath": path})),
            ("GetSessionFile", json!({"filePath": path})),
            ("ListSessionFiles", json!({"path": path})),
            ("SearchSessionFiles", json!({"pattern": "root", "path": path})),
            ("UploadFileToSession", json!({"fileName": path, "contentBase64": "eA=="})),
        ] {
            let answer = scene.tool("tools", tool, &params);
            is_typed(&answer, tool);
            assert!(!answer.text().contains("root:x"), "{tool} {path}: {}", answer.text());
            // A list of everything is what `` and `.` ask for, and names are names.
            let plain = matches!(path, "" | ".") && matches!(tool, "ListSessionFiles" | "SearchSessionFiles");
            let name = matches!(path, "file:///etc/passwd" | "~/x");
            assert!(plain || name || answer.status == 400, "{tool} {path}: {} {}", answer.status, answer.text());
        }
    }
    let pdf = "from reportlab.pdfgen.canvas import Canvas\nc = Canvas('a.pdf')\nc.drawString(9, 9, 'x')\nc.save()";
    let good = json!({
        "ExecutePythonCode": {"pythonCode": "1"}, "RunShellCommand": {"command": "true"}, "ReadSessionFile": {"filePath": "f"}, "ListSessionFiles": {},
        "GeneratePdfReport": {"pythonCode": pdf, "expectedOutputFilename": "a.pdf", "saveAsFilename": "b.pdf"},
        "SearchSessionFiles": {"pattern": "x"}, "GetSessionFile": {"filePath": "f"}, "UploadFileToSession": {"fileName": "u", "contentBase64": ""},
    });
    for (tool, params) in good.as_object().unwrap() {
        // The control: with these it does what it is for.
        let answer = scene.tool("tools", tool, params);
        assert_eq!(answer.status, 200, "INVALID: {tool}: {}", answer.text());
        let with = |name: &str, value: Json| {
            let mut params = params.clone();
            params[name] = value;
            scene.tool("tools", tool, &params)
        };
        with("unknown", json!(1)).refused(400, "invalid_request");
        with("__proto__", json!({})).refused(400, "invalid_request");
        for (name, _) in params.as_object().unwrap() {
            for wrong in [json!(null), json!(1), json!([]), json!({"a": 1}), json!(true)] {
                with(name, wrong).refused(400, "invalid_request");
            }
            let huge = with(name, json!("x".repeat(2_000_000)));
            is_typed(&huge, tool);
        }
        if params.get("pythonCode").is_some() || params.get("command").is_some() {
            for wrong in [json!(0), json!(-1), json!(1e18), json!("5"), json!(5.5)] {
                with("timeoutSeconds", wrong).refused(400, "invalid_request");
            }
        }
    }
    for pattern in ["(a+)+$", "(x|x)*y", "a{1000}{1000}", "\\p{Any}{500}", "(?i)\u{130}*", "["] {
        is_typed(&scene.tool("tools", "SearchSessionFiles", &json!({"pattern": pattern})), pattern);
    }
    scene.goes_on("tools");
    scene.others_go_on();
}

/// A way to ask, for each of many who ask at once.
type Way<'a> = Box<dyn Fn(usize) -> Request + Sync + 'a>;

fn statuses(scene: &Scene, count: usize, ask: impl Fn(usize) -> Request + Sync) -> BTreeMap<u16, usize> {
    let mut seen = BTreeMap::new();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..count)
            .map(|number| {
                let ask = &ask;
                scope.spawn(move || ask(number).send())
            })
            .collect();
        for answer in asking {
            let answer = answer.join().unwrap();
            is_typed(&answer, "a race for a share");
            *seen.entry(answer.status).or_default() += 1;
        }
    });
    let _ = scene;
    seen
}

#[test]
fn t203_shares_are_counted_however_many_ask_at_once() {
    let scene = scene();
    let ask = |method: &str, target: &str| scene.ask_as(NARROW, method, target);
    let mine = || ask("GET", "/v1/sessions").send().expect(200).json()["sessions"].as_array().unwrap().clone();
    let end_all = || {
        for session in mine() {
            ask("DELETE", &format!("/v1/sessions/{}", session["id"].as_str().unwrap())).send().expect(204);
        }
    };
    // The control: who has no such share gets more than two of sixteen, and more than one execution at once.
    let free = statuses(&scene, 16, |number| scene.ask("POST", "/v1/sessions").json(&json!({"id": format!("free-{number}")})));
    assert!(free.get(&201).is_some_and(|made| *made > 2), "INVALID: {free:?}");
    let made = scene.ask("GET", "/v1/sessions").send().expect(200).json()["sessions"].as_array().unwrap().clone();
    let sessions: Vec<&str> = made.iter().map(|session| session["id"].as_str().unwrap()).collect();
    let two = [sessions[0], sessions[1]];
    let both = statuses(&scene, 4, |number| {
        scene.ask("POST", &format!("/v1/sessions/{}/executions", two[number % 2])).json(&json!({"code": "import time\ntime.sleep(0.5)"}))
    });
    assert_eq!(both.get(&200), Some(&4), "INVALID: {both:?}");
    for session in sessions {
        scene.ask("DELETE", &format!("/v1/sessions/{session}")).send().expect(204);
    }
    // In every way in which a session can be made, sixteen at once: two, and never three.
    let quick = json!({"code": "1"});
    let ways: [(&str, Way<'_>); 5] = [
        ("make", Box::new(|_| ask("POST", "/v1/sessions").json(&json!({})))),
        ("make with an id", Box::new(|number| ask("POST", "/v1/sessions").json(&json!({"id": format!("id-{number}")})))),
        ("execute", Box::new(|number| ask("POST", &format!("/v1/sessions/exec-{number}/executions")).json(&quick))),
        (
            "upload by a tool",
            Box::new(|number| {
                ask("POST", &format!("/v1/sessions/tool-{number}/tools/UploadFileToSession")).json(&json!({"fileName": "x", "contentBase64": ""}))
            }),
        ),
        ("list as the service of containers", Box::new(|number| ask("GET", &format!("/files?api-version=2024-02-02-preview&identifier=list-{number}")))),
    ];
    for (name, way) in &ways {
        let seen = statuses(&scene, 16, way);
        assert!(mine().len() <= 2, "{name}: {}", mine().len());
        // The service of containers has its own word for it.
        let refusal = if name.starts_with("list") { 404 } else { 429 };
        assert!(seen.get(&refusal).is_some_and(|refused| *refused >= 14), "{name}: {seen:?}");
        assert!(seen.keys().all(|status| matches!(status, 200 | 201) || *status == refusal), "{name}: {seen:?}");
        end_all();
    }
    // The same id many times is one session, or a conflict.
    let same = statuses(&scene, 16, |_| ask("POST", "/v1/sessions").json(&json!({"id": "same"})));
    assert_eq!(same.get(&201), Some(&1), "{same:?}");
    // Made and ended without pause by many: never more than the share, and nothing is lost of it.
    end_all();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let ask = &ask;
            scope.spawn(move || {
                for turn in 0..6 {
                    let id = format!("loop-{worker}-{turn}");
                    let made = ask("POST", "/v1/sessions").json(&json!({"id": id})).send();
                    is_typed(&made, "made and ended");
                    if made.status == 201 {
                        ask("DELETE", &format!("/v1/sessions/{id}")).send().expect(204);
                    }
                }
            });
        }
    });
    assert_eq!(mine().len(), 0);
    for id in ["last-1", "last-2"] {
        ask("POST", "/v1/sessions").json(&json!({"id": id})).send().expect(201);
    }
    ask("POST", "/v1/sessions").json(&json!({"id": "last-3"})).send().refused(429, "limit");
    ask("POST", "/v1/run").json(&quick).send().refused(429, "limit");
    // One execution at once, over all its sessions.
    let slow = json!({"code": "import time\ntime.sleep(2)"});
    let seen = statuses(&scene, 8, |number| ask("POST", &format!("/v1/sessions/last-{}/executions", number % 2 + 1)).json(&slow));
    assert!(seen.get(&200).is_some_and(|ran| *ran <= 2) && seen.get(&429).is_some_and(|refused| *refused >= 6), "{seen:?}");
    assert!(eventually(|| ask("POST", "/v1/sessions/last-1/executions").json(&quick).send().status == 200), "it is given back");
    // Others have their own.
    scene.others_go_on();
}

#[test]
fn t203_a_full_pool_answers_in_bounded_time() {
    let scene = scene_with(|pool| {
        pool.max_sessions = 3;
        pool.allocation_wait = Duration::from_millis(200);
    });
    scene.others_go_on();
    let begun = Instant::now();
    let seen = statuses(&scene, 24, |number| scene.ask("POST", "/v1/sessions").json(&json!({"id": format!("full-{number}")})));
    assert!(seen.get(&201) == Some(&2) && seen.get(&429) == Some(&22), "{seen:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let refused = scene.ask("POST", "/v1/run").json(&json!({"code": "1"})).send();
    assert!(refused.header("retry-after").is_some());
    refused.refused(429, "limit");
    scene.others_go_on();
    // The control: the same where there is room.
    let made = scene.ask("GET", "/v1/sessions").send().expect(200).json()["sessions"][0]["id"].as_str().unwrap().to_owned();
    scene.ask("DELETE", &format!("/v1/sessions/{made}")).send().expect(204);
    scene.ask("POST", "/v1/run").json(&json!({"code": "1"})).send().expect(200);
}

/// Guesses at the id of another tenant's execution and session, over connections that stay open: what comes of each is counted.
fn guess(scene: &Scene, seed: u64, count: usize) -> BTreeMap<u16, usize> {
    let head = format!("Host: {}\r\nAuthorization: Bearer {}\r\n\r\n", scene.address, scene.key(MALLORY));
    let mut reader = BufReader::new(TcpStream::connect(scene.address).unwrap());
    reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let mut came = BTreeMap::new();
    for number in 0..count {
        // Counted up, as times, as numbers of version 1, and at random: what a guesser tries.
        let mixed = (seed << 32 | number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let id = match number % 4 {
            0 => format!("{number}"),
            1 => format!("ses_{:026}", 1_795_000_000_000_u64 + number as u64),
            2 => format!("{mixed:08x}-9dad-11d1-80b4-00c04fd430c8"),
            _ => format!("ses_{mixed:016x}{:010x}", mixed.rotate_left(17) >> 24),
        };
        let target = if number % 2 == 0 { format!("/v1/sessions/{id}") } else { format!("/v1/sessions/other/executions/exe_{mixed:026}") };
        reader.get_mut().write_all(format!("GET {target} HTTP/1.1\r\n{head}").as_bytes()).unwrap();
        let answer = Answer::read_head(&mut reader);
        let length: u64 = answer.header("content-length").expect("a length").parse().unwrap();
        std::io::copy(&mut Read::take(&mut reader, length), &mut std::io::sink()).unwrap();
        *came.entry(answer.status).or_default() += 1;
    }
    came
}

#[test]
fn t181_guesses_find_nothing() {
    let full = std::env::var_os("BELLJAR_CONTAINMENT_FORM").is_some_and(|form| form == "full");
    let each = if full { 250_000 } else { 1000 };
    // What is guessed at has to be there until the end.
    let scene = &scene_with(|pool| pool.idle_timeout = Duration::from_secs(3600));
    let body = json!({"code": "print('found')"});
    let made = scene.ask_as(ALICE, "POST", "/v1/sessions/other/executions").json(&body).send().expect(200).json();
    let hers = scene.ask_as(ALICE, "POST", "/v1/sessions").json(&json!({})).send().expect(201).json();
    let before = resident();
    let came: Vec<BTreeMap<u16, usize>> = std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..4).map(|seed| scope.spawn(move || guess(scene, seed, each))).collect();
        guessers.into_iter().map(|guesser| guesser.join().unwrap()).collect()
    });
    for came in came {
        assert!(came.keys().all(|status| matches!(status, 404 | 429)), "a guess found something: {came:?}");
        assert!(came.contains_key(&404), "INVALID: nothing was looked up: {came:?}");
        assert_eq!(came.values().sum::<usize>(), each);
    }
    assert!(resident() < before + (64 << 20), "guesses cost memory");
    // The control: whose they are finds them.
    let id = hers["id"].as_str().unwrap();
    scene.ask_as(ALICE, "GET", &format!("/v1/sessions/{id}")).send().expect(200);
    scene.ask_as(ALICE, "GET", &format!("/v1/sessions/other/executions/{}", made["id"].as_str().unwrap())).send().expect(200);
    scene.others_go_on();
}
