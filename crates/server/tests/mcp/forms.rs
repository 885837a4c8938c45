//! Forms in which requests come and answers go, by revision.

use serde_json::{Value as Json, json};

use crate::peer::{BOTH, NEWEST, Peer, alone, hello, last, message, messages, tool};
use crate::scene::{WATCHER, scene};

#[test]
fn every_revision_is_settled_on_and_no_other() {
    let scene = scene();
    for (asked, settled) in [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
        // It has no hello: who says it all the same hears of the newest that has.
        (NEWEST, "2025-11-25"),
    ] {
        let answer = scene.ask("POST", "/mcp").header("Accept", BOTH).json(&hello(asked)).send().expect(200);
        assert_eq!(answer.json()["result"]["protocolVersion"], settled, "{asked}");
        let peer = Peer::connect_as(&scene, crate::scene::ALICE, asked);
        let tools = last(&peer.post(&message(2, "tools/list", &json!({}))).send().expect(200));
        assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 8, "{asked}");
        assert!(last(&peer.post(&message(3, "ping", &json!({}))).send().expect(200))["result"].is_object());
    }
    let discovered = last(&alone(&scene, "server/discover", &json!({})).send().expect(200));
    let versions = discovered["result"]["supportedVersions"].as_array().unwrap();
    assert_eq!(*versions, [json!("2025-03-26"), json!("2025-06-18"), json!("2025-11-25"), json!(NEWEST)]);
    for gone in ["ping", "logging/setLevel", "resources/subscribe"] {
        let params = json!({"level": "info", "uri": "belljar://sessions/x/files/y"});
        let answer = last(&alone(&scene, gone, &params).send().expect(404));
        assert_eq!(answer["error"]["code"], -32601, "{gone}: {answer}");
    }
}

#[test]
fn who_takes_no_stream_gets_plain_json() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    // So long that there is something to be told before the answer.
    let mut slow = tool("ExecutePythonCode", &json!({"pythonCode": "import time\nprint('begun', flush=True)\ntime.sleep(1.5)\n6*7"}));
    slow["params"]["_meta"] = json!({"progressToken": "t"});
    for accept in ["application/json", "*/*", "application/json;q=0.9, text/event-stream;q=0"] {
        let request = scene.ask("POST", "/mcp").header("Mcp-Session-Id", &peer.id).header("Accept", accept);
        let answer = request.json(&slow).send().expect(200);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{accept}");
        assert_eq!(answer.json()["result"]["structuredContent"]["result"]["json"], 42, "{accept}");
    }
    let streamed = peer.post(&slow).send().expect(200);
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"), "the control: who takes a stream gets one");
    assert!(messages(&streamed).len() > 1);
    // Nothing comes before this answer, so nothing is to be streamed.
    let quick = peer.post(&tool("ExecutePythonCode", &json!({"pythonCode": "1"}))).send().expect(200);
    assert_eq!(quick.header("content-type"), Some("application/json"));
    let only = scene.ask("POST", "/mcp").header("Mcp-Session-Id", &peer.id).header("Accept", "text/event-stream");
    let only = only.json(&message(3, "ping", &json!({}))).send().expect(200);
    assert_eq!((only.header("content-type"), last(&only)["result"].is_object()), (Some("text/event-stream"), true), "who takes nothing else");
    let told = peer.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().expect(202);
    assert!(told.body.is_empty());
}

#[test]
fn what_is_no_request_is_told_what_is_wrong_with_it() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    for (body, code) in [
        ("{", -32700),
        ("", -32700),
        (r#"{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}"#, -32700),
        ("1", -32600),
        (r#""x""#, -32600),
        (r#"{"id": 1, "method": "ping"}"#, -32600),
        ("[]", -32600),
        ("[1]", -32600),
    ] {
        let answer = peer.ask("POST").header("Content-Type", "application/json").body(body).send().expect(400);
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{body}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty() && !message.contains("untagged")), "{body}: {error}");
    }
    let deep = format!("{}{}", r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"#.repeat(200), "}".repeat(200));
    peer.ask("POST").header("Content-Type", "application/json").body(deep).send().expect(400);
    let post = |accept: &str, kind: &str| scene.ask("POST", "/mcp").header("Accept", accept).header("Content-Type", kind).body("{}").send();
    post("text/html", "application/json").expect(406);
    post(BOTH, "text/plain").expect(415);
    for (caller, status, code) in [(WATCHER, 403, "denied"), ("nobody", 401, "unauthenticated")] {
        let refused = scene.ask_as(caller, "POST", "/mcp").json(&hello("2025-11-25")).send().expect(status).json();
        assert!(refused["jsonrpc"] == "2.0" && refused["error"]["data"]["code"] == code, "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("what to do: "), "{refused}");
    }
    for (method, params) in [
        ("tools/call", json!({"name": "ExecutePythonCode", "arguments": [1]})),
        ("tools/call", json!({"arguments": {}})),
        ("resources/read", json!({})),
        ("resources/list", json!({"cursor": "zzz"})),
        ("logging/setLevel", json!({"level": "loud"})),
    ] {
        let answer = last(&peer.post(&message(4, method, &params)).send().expect(200));
        assert_eq!(answer["error"]["code"], -32602, "{method} {params}: {answer}");
    }
    assert_eq!(last(&peer.post(&message(4, "no/such", &json!({}))).send().expect(200))["error"]["code"], -32601);
    scene.ask("POST", "/mcp?pool=none").json(&hello("2025-11-25")).send().expect(200);
    let answer = scene.ask("POST", "/mcp?pool=none").json(&tool("ExecutePythonCode", &json!({"pythonCode": "1"}))).send().expect(200);
    assert_eq!(answer.json()["result"]["isError"], true, "{}", answer.text());
}

#[test]
fn methods_that_say_nothing_here_are_refused() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    for method in ["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"] {
        let answer = scene.ask(method, "/mcp").header("Accept", BOTH).send();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, GET, DELETE")), "{method}, without a connection");
    }
    let answer = scene.ask("GET", "/mcp").header("Mcp-Session-Id", &peer.id).header("Accept", "application/json").send();
    assert_eq!(answer.status, 405, "a client that takes no stream wants none");
    let mut stream = crate::peer::Stream::open(peer.ask("GET"));
    assert_eq!((stream.head.status, stream.head.header("content-type")), (200, Some("text/event-stream")));
    assert!(matches!(stream.next(), Some((Some(_), None))), "a number to come back with");
    peer.ask("DELETE").send().expect(204);
    assert!(stream.next().is_none(), "the stream ends with its connection");
    peer.ask("DELETE").send().expect(404);
}

#[test]
fn several_messages_at_once_are_of_the_oldest_revision() {
    let scene = scene();
    let oldest = Peer::connect_as(&scene, crate::scene::ALICE, "2025-03-26");
    let (first, second) = (json!({"pythonCode": "x = 1"}), json!({"pythonCode": "x + 1"}));
    let batch = json!([
        message(1, "ping", &json!({})),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        message(7, "tools/call", &json!({"name": "ExecutePythonCode", "arguments": first})),
        message(8, "tools/call", &json!({"name": "ExecutePythonCode", "arguments": second})),
        message(9, "no/such", &json!({})),
        {"id": 10, "method": "ping"}
    ]);
    let answers = oldest.post(&batch).send().expect(200).json();
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].as_i64()).collect();
    assert_eq!(ids, [Some(1), Some(7), Some(8), Some(9), Some(10)]);
    assert_eq!(answers[2]["result"]["structuredContent"]["result"]["json"], 2, "{answers}");
    assert_eq!((&answers[3]["error"]["code"], &answers[4]["error"]["code"]), (&json!(-32601), &json!(-32600)), "{answers}");
    oldest.post(&json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}])).send().expect(202);
    let too_many: Vec<Json> = (0..33).map(|id| message(id, "ping", &json!({}))).collect();
    for bad in [json!([]), json!(too_many), json!([hello("2025-03-26")]), json!([message(1, "resources/read", &json!({}))])] {
        assert_eq!(oldest.post(&bad).send().expect(400).json()["error"]["code"], -32600);
    }
    let newer = Peer::connect_as(&scene, crate::scene::ALICE, "2025-06-18");
    let refused = newer.post(&json!([message(1, "ping", &json!({}))])).send().expect(400);
    assert!(refused.text().contains("one by one"), "{}", refused.text());
}

#[test]
fn names_and_pages_that_are_not_ours_are_refused() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let from = |host: &str, origin: Option<&str>| {
        let mut head = format!("Host: {host}\r\nAccept: {BOTH}\r\nContent-Type: application/json\r\nMcp-Session-Id: {}\r\n", peer.id);
        if let Some(origin) = origin {
            head.push_str(&format!("Origin: {origin}\r\n"));
        }
        scene.raw("POST /mcp", &head, &message(1, "ping", &json!({})).to_string())
    };
    let own = scene.address.to_string();
    assert_eq!(from(&own, None), 200, "the control");
    assert_eq!(from(&own, Some(&format!("http://{own}"))), 200, "a page of ours");
    for host in ["evil.example", "localhost.evil.example", "user@localhost", "", "localhost:80@evil.example", "127.0.0.1.evil.example"] {
        assert!(matches!(from(host, None), 400 | 403 | 421), "{host}");
    }
    for origin in ["http://evil.example", "null", "https://localhost.evil.example", "file://"] {
        assert_eq!(from(&own, Some(origin)), 403, "{origin}");
    }
}
