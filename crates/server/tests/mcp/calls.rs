//! What tools take, refuse and give back.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as Json, json};

use crate::peer::{Peer, last, message, text, tool};
use crate::scene::{BOB, scene};

#[test]
fn what_a_tool_refuses_tells_the_model_what_to_do() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let long = "x".repeat(20_001);
    for (name, arguments, says) in [
        ("ExecutePythonCode", json!({}), "takes `pythonCode` (string, required)"),
        ("ExecutePythonCode", json!({"pythonCode": "1", "more": 1}), "unknown field `more`"),
        ("ExecutePythonCode", json!({"pythonCode": 1}), "`pythonCode`: invalid type"),
        ("ExecutePythonCode", json!({"pythonCode": ""}), "`pythonCode` is empty"),
        ("ExecutePythonCode", json!({"pythonCode": long}), "UploadFileToSession"),
        ("ExecutePythonCode", json!({"pythonCode": "1", "timeoutSeconds": 4}), "not within 5 to 900"),
        ("ExecutePythonCode", json!({"pythonCode": "1", "timeoutSeconds": 901}), "not within 5 to 900"),
        ("ExecutePythonCode", json!({"pythonCode": "1", "timeoutSeconds": "10"}), "`timeoutSeconds`"),
        ("ExecutePythonCode", json!({"pythonCode": "1", "sessionId": 5}), "`sessionId` is no text"),
        ("ExecutePythonCode", json!({"pythonCode": "1", "sessionId": "a b"}), "use 4 to 128 characters"),
        ("RunShellCommand", json!({"command": "ls", "timeoutSeconds": 241}), "not within 5 to 240"),
        ("RunShellCommand", json!({"command": "ls", "isBackground": true}), "leave `isBackground` out"),
        ("ReadSessionFile", json!({"filePath": "../etc/passwd"}), "relative to /mnt/data"),
        ("ReadSessionFile", json!({"filePath": "/etc/passwd"}), "relative to /mnt/data"),
        ("ReadSessionFile", json!({"filePath": "a.txt", "sessionId": "never-was"}), "run code or upload a file first"),
        ("GetSessionFile", json!({"filePath": "a\0b"}), "relative to /mnt/data"),
        ("UploadFileToSession", json!({"fileName": "a", "contentBase64": "%"}), "standard base64"),
        ("UploadFileToSession", json!({"fileName": "a", "contentBase64": "belljar://sessions/none/files/a"}), "there is no session `none`"),
        ("UploadFileToSession", json!({"fileName": "a", "contentBase64": "belljar://sessions/x/files/../y"}), "`.` or `..`"),
    ] {
        let result = peer.call(name, &arguments);
        assert_eq!(result["isError"], true, "{name} {arguments}");
        let told = text(&result);
        assert!(told.contains(says) && told.contains("what to do: "), "{name} {arguments}: {told}");
        assert!(result["_meta"]["belljar/error"]["code"].is_string() && result["structuredContent"].is_null(), "{result}");
    }
    assert_eq!(scene.sessions(), 0, "nothing was made for any of that");
    let unknown = last(&peer.post(&tool("NoSuchTool", &json!({}))).send().expect(200));
    assert!(unknown["error"]["code"] == -32602 && unknown["error"]["message"].as_str().unwrap().contains("ExecutePythonCode"), "{unknown}");
    let shapeless = last(&peer.post(&message(1, "tools/call", &json!({"name": "ExecutePythonCode", "arguments": [1]}))).send());
    assert!(!shapeless["error"].is_null(), "{shapeless}");
}

#[test]
fn code_that_fails_is_a_result() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let failed = peer.python("def f():\n    return 1/0\nf()");
    let told = text(&failed);
    assert_eq!(failed["isError"], true);
    assert!(told.contains("ZeroDivisionError: division by zero") && told.contains("return 1/0"), "{told}");
    let data = &failed["structuredContent"];
    assert_eq!((&data["outcome"], &data["error"]["name"]), (&json!("raised"), &json!("ZeroDivisionError")));
    let shell = peer.call("RunShellCommand", &json!({"command": "echo out; echo err >&2; exit 3"}));
    assert_eq!((&shell["isError"], &shell["structuredContent"]["exitCode"]), (&json!(true), &json!(3)));
    assert_eq!((&shell["structuredContent"]["stdout"], &shell["structuredContent"]["stderr"]), (&json!("out\n"), &json!("err\n")));
    let long = peer.python("print('é' * 5000)");
    let (told, data) = (text(&long), &long["structuredContent"]);
    assert!(told.contains("[stdout is cut: 4,000 of 5,001 characters shown") && told.contains("ReadSessionFile"), "{told}");
    assert_eq!((data["stdout"].as_str().unwrap().chars().count(), &data["stdoutTruncated"]), (4000, &json!(true)));
    let rest = format!("belljar://sessions/{}/executions/{}/stdout", data["sessionId"].as_str().unwrap(), data["id"].as_str().unwrap());
    let whole = last(&peer.post(&message(1, "resources/read", &json!({"uri": rest}))).send().expect(200));
    assert_eq!(whole["result"]["contents"][0]["text"].as_str().unwrap().chars().count(), 5001);
}

#[test]
fn pictures_are_shown_and_files_are_links_that_can_be_read() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let made = peer.python(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\nimport os\nos.makedirs('d')\n\
         open('d/ä b.bin', 'wb').write(bytes(range(256)))\nopen('t.csv', 'w').write('a,b\\n1,2\\n')",
    );
    let content = made["content"].as_array().unwrap();
    let picture = content.iter().find(|block| block["type"] == "image").unwrap();
    assert_eq!(picture["mimeType"], "image/png");
    assert!(BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap().starts_with(b"\x89PNG\r\n"));
    assert!(made["structuredContent"]["outputs"][0]["data"].is_null(), "its bytes come once");
    let links: Vec<&Json> = content.iter().filter(|block| block["type"] == "resource_link").collect();
    assert_eq!(links.iter().map(|link| link["name"].as_str().unwrap()).collect::<Vec<_>>(), ["ä b.bin", "t.csv"]);
    let read = |uri: &Json| last(&peer.post(&message(1, "resources/read", &json!({"uri": uri}))).send().expect(200))["result"]["contents"][0].clone();
    let (table, bytes) = (read(&links[1]["uri"]), read(&links[0]["uri"]));
    assert_eq!((&table["text"], &table["mimeType"]), (&json!("a,b\n1,2\n"), &json!("text/csv")));
    assert_eq!(BASE64_STANDARD.decode(bytes["blob"].as_str().unwrap()).unwrap(), (0..=255).collect::<Vec<u8>>());
    let listed = last(&peer.post(&message(1, "resources/list", &json!({}))).send().expect(200));
    let listed: Vec<_> = listed["result"]["resources"].as_array().unwrap().iter().map(|resource| resource["uri"].clone()).collect();
    assert!(links.iter().all(|link| listed.contains(&link["uri"])), "{listed:?}");
    let got = peer.call("GetSessionFile", &json!({"filePath": "t.csv"}));
    let embedded = got["content"].as_array().unwrap().iter().find(|block| block["type"] == "resource").unwrap();
    assert_eq!(embedded["resource"]["text"], "a,b\n1,2\n");
    // From one session into another.
    let copied = peer.call("UploadFileToSession", &json!({"fileName": "copy.bin", "contentBase64": links[0]["uri"], "sessionId": "another-one"}));
    assert_eq!(copied["structuredContent"]["files"][0]["sizeBytes"], 256, "{copied}");
    // And to nobody else.
    let bob = Peer::connect_as(&scene, BOB, "2025-11-25");
    let refused = last(&bob.post(&message(1, "resources/read", &json!({"uri": links[0]["uri"]}))).send().expect(200));
    assert!(refused["error"]["code"] == -32002 && refused["error"]["data"]["uri"] == links[0]["uri"], "{refused}");
    let refused = bob.call("UploadFileToSession", &json!({"fileName": "x", "contentBase64": links[0]["uri"]}));
    assert!(text(&refused).contains("there is no session"), "{refused}");
}

#[test]
fn what_is_large_stays_within_what_clients_take() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let code = "import os, base64\nfrom IPython.display import Image, display\n\
                for n in range(3):\n    display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(300_000), format='png'))\n'y' * 2_000_000";
    let answer = peer.post(&tool("ExecutePythonCode", &json!({"pythonCode": code}))).send().expect(200);
    assert!(answer.body.len() < 1024 * 1024, "{} bytes", answer.body.len());
    let result = last(&answer)["result"].clone();
    let content = result["content"].as_array().unwrap();
    assert_eq!(content.iter().filter(|block| block["type"] == "image").count(), 1, "{}", text(&result));
    let links: Vec<_> = content.iter().filter(|block| block["type"] == "resource_link").collect();
    assert_eq!(links.len(), 2);
    let read = last(&peer.post(&message(1, "resources/read", &json!({"uri": links[1]["uri"]}))).send().expect(200));
    let bytes = BASE64_STANDARD.decode(read["result"]["contents"][0]["blob"].as_str().unwrap()).unwrap();
    assert!(bytes.len() == 300_008 && bytes.starts_with(b"\x89PNG"));
    peer.python("with open('big', 'wb') as f: f.truncate(9 << 20)");
    let uri = format!("belljar://sessions/{}/files/big", result["structuredContent"]["sessionId"].as_str().unwrap());
    let refused = last(&peer.post(&message(1, "resources/read", &json!({"uri": uri}))).send().expect(200));
    assert!(refused["error"]["message"].as_str().unwrap().contains("ReadSessionFile"), "{refused}");
}

#[test]
fn no_address_leads_to_the_host() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let session =
        peer.python("import os\nos.symlink('/etc/passwd', 'link')\nos.symlink('/', 'root')\nopen('real', 'w').write('real')")["structuredContent"]["sessionId"]
            .as_str()
            .unwrap()
            .to_owned();
    let read = |uri: &str| last(&peer.post(&message(1, "resources/read", &json!({"uri": uri}))).send().expect(200));
    let control = read(&format!("belljar://sessions/{session}/files/real"));
    assert_eq!(control["result"]["contents"][0]["text"], "real");
    for uri in [
        "file:///etc/passwd".to_owned(),
        "/etc/passwd".to_owned(),
        format!("belljar://sessions/{session}/files/link"),
        format!("belljar://sessions/{session}/files/root/etc/passwd"),
        format!("belljar://sessions/{session}/files/../../etc/passwd"),
        format!("belljar://sessions/{session}/files/%2e%2e/%2e%2e/etc/passwd"),
        format!("belljar://sessions/{session}/files//etc/passwd"),
        format!("belljar://sessions/{session}/executions/exe_1/../../x"),
        format!("belljar://sessions/{session}/executions/%2e%2e/stdout"),
    ] {
        let answer = read(&uri);
        assert!(answer["error"]["code"].is_i64() && !answer.to_string().contains("root:"), "{uri}: {answer}");
    }
}
