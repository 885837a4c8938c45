//! Connections: whose they are, what they keep, how they end, and how their streams are taken up again.

use serde_json::json;

use crate::peer::{Peer, Stream, alone, last, message, messages, text, tool};
use crate::scene::{ALICE, BOB, scene};

#[test]
fn a_connection_keeps_its_state_and_shares_it_by_name_alone() {
    let scene = scene();
    let (one, other) = (Peer::connect(&scene), Peer::connect(&scene));
    let first = one.python("x = 'kept'");
    let session = first["structuredContent"]["sessionId"].as_str().unwrap().to_owned();
    assert!(session.starts_with("ses_"), "{session}");
    assert_eq!(one.python("x")["structuredContent"]["result"]["text"], "'kept'");
    let unknown = other.python("x");
    assert!(unknown["isError"] == true && text(&unknown).contains("NameError"), "{unknown}");
    let shared = other.call("ExecutePythonCode", &json!({"pythonCode": "x", "sessionId": session}));
    assert_eq!(shared["structuredContent"]["result"]["text"], "'kept'");
    // The end of the connection is not that of its session.
    one.ask("DELETE").send().expect(204);
    let after = other.call("ExecutePythonCode", &json!({"pythonCode": "x", "sessionId": session}));
    assert_eq!(after["structuredContent"]["result"]["text"], "'kept'");
    let bob = Peer::connect_as(&scene, BOB, "2025-11-25");
    let foreign = bob.call("ExecutePythonCode", &json!({"pythonCode": "x", "sessionId": session}));
    assert!(text(&foreign).contains("NameError"), "a session of that name, and not that session: {foreign}");
}

#[test]
fn without_connections_the_session_is_named() {
    let scene = scene();
    let call = |arguments: serde_json::Value| {
        let answer = last(&alone(&scene, "tools/call", &json!({"name": "ExecutePythonCode", "arguments": arguments})).send().expect(200));
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    };
    let first = call(json!({"pythonCode": "x = 5"}));
    let session = first["structuredContent"]["sessionId"].as_str().unwrap().to_owned();
    assert!(text(&first).contains(&format!("session: {session} (pass it as `sessionId`")), "{first}");
    assert_eq!(first["resultType"], "complete");
    let again = call(json!({"pythonCode": "x", "sessionId": session}));
    assert_eq!(again["structuredContent"]["result"]["json"], 5);
    assert!(!text(&again).contains("session:"), "who named it knows it: {again}");
    assert!(text(&call(json!({"pythonCode": "x"}))).contains("NameError"), "without a name it is another one");
    let listed = last(&alone(&scene, "tools/call", &json!({"name": "ListSessionFiles", "arguments": {}})).send().expect(200));
    assert!(text(&listed["result"]).contains("pass the `sessionId` of an earlier result"), "{listed}");
    // Older clients that keep no connection either.
    let single = scene.ask("POST", "/mcp").json(&tool("ExecutePythonCode", &json!({"pythonCode": "x", "sessionId": session}))).send().expect(200);
    assert_eq!(single.json()["result"]["structuredContent"]["result"]["json"], 5);
}

#[test]
fn a_connection_belongs_to_who_began_it() {
    let scene = scene();
    let alice = Peer::connect(&scene);
    alice.python("1");
    let stolen = Peer { scene: &scene, caller: BOB, id: alice.id.clone(), revision: alice.revision.clone() };
    let ping = message(1, "ping", &json!({}));
    let refused = stolen.post(&ping).send().expect(404);
    let unknown = Peer { scene: &scene, caller: BOB, id: "mcp_00000000000000000000000000000000".to_owned(), revision: alice.revision.clone() };
    assert_eq!(refused.body, unknown.post(&ping).send().expect(404).body, "as if it were not there");
    assert!(refused.text().contains("initialize"), "{}", refused.text());
    stolen.ask("GET").send().expect(404);
    stolen.ask("GET").header("Last-Event-ID", "1/1").send().expect(404);
    stolen.ask("DELETE").send().expect(404);
    for odd in ["", "x", "mcp_", "../x", "%00"] {
        let peer = Peer { scene: &scene, caller: ALICE, id: odd.to_owned(), revision: alice.revision.clone() };
        peer.post(&ping).send().expect(404);
    }
    alice.post(&ping).send().expect(200);
    // Of another pool than it was begun for it is not there either.
    scene.ask("POST", "/mcp?pool=second").header("Mcp-Session-Id", &alice.id).json(&ping).send().expect(404);
}

#[test]
fn a_key_that_is_revoked_in_between_ends_what_it_began() {
    let scene = scene();
    let (alice, bob) = (Peer::connect(&scene), Peer::connect_as(&scene, BOB, "2025-11-25"));
    bob.python("1");
    scene.revoke(BOB);
    let error = bob.post(&tool("ExecutePythonCode", &json!({"pythonCode": "1"}))).send().expect(401).json()["error"].clone();
    assert!(error["message"].as_str().is_some_and(|message| message.contains("send `Authorization: Bearer <key>`")), "{error}");
    bob.ask("GET").send().expect(401);
    alice.python("1");
}

#[test]
fn a_stream_that_broke_off_is_taken_up_where_it_was() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let mut slow = tool("ExecutePythonCode", &json!({"pythonCode": "import time\ntime.sleep(4)\n'late'"}));
    slow["params"]["_meta"] = json!({"progressToken": 1});
    let mut stream = Stream::open(peer.post(&slow));
    let (id, first) = stream.next().unwrap();
    assert_eq!(first.unwrap()["method"], "notifications/progress");
    drop(stream);
    let mut again = Stream::open(peer.ask("GET").header("Last-Event-ID", &id.unwrap()));
    let mut seen = Vec::new();
    while let Some((_, message)) = again.next() {
        seen.extend(message);
    }
    let answer = seen.pop().unwrap();
    assert_eq!(answer["result"]["structuredContent"]["result"]["text"], "'late'", "{answer}");
    assert!(seen.iter().all(|message| message["method"] == "notifications/progress"), "{seen:?}");
    for unknown in ["9/9", "x", "1", "-1/1", "99999999999999999999/1"] {
        let mut nothing = Stream::open(peer.ask("GET").header("Last-Event-ID", unknown));
        assert!(nothing.head.status == 200 && nothing.next().is_none(), "{unknown}");
    }
}

#[test]
fn what_is_cancelled_is_interrupted_and_the_state_stays() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    peer.python("x = 1");
    let mut long = tool("ExecutePythonCode", &json!({"pythonCode": "import time\nx = 2\ntime.sleep(100)\nx = 3"}));
    long["params"]["_meta"] = json!({"progressToken": 1});
    let mut stream = Stream::open(peer.post(&long));
    // It runs.
    stream.next().unwrap();
    peer.post(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": long["id"]}})).send().expect(202);
    assert!(std::iter::from_fn(|| stream.next()).all(|(_, message)| message.is_none_or(|message| message["id"].is_null())), "it gets no answer");
    assert_eq!(peer.python("x")["structuredContent"]["result"]["json"], 2, "interrupted where it was, its state kept");
}

#[test]
fn who_leaves_without_a_connection_has_stopped_what_it_asked_for() {
    let scene = scene();
    let code = json!({"pythonCode": "import time\nx = 2\ntime.sleep(100)", "sessionId": "left-alone"});
    let mut stream = Stream::open(alone(&scene, "tools/call", &json!({"name": "ExecutePythonCode", "arguments": code, "_meta": {"progressToken": 1}})));
    stream.next().unwrap();
    drop(stream);
    let after = json!({"pythonCode": "x", "sessionId": "left-alone"});
    let answer = last(&alone(&scene, "tools/call", &json!({"name": "ExecutePythonCode", "arguments": after})).send().expect(200));
    assert_eq!(answer["result"]["structuredContent"]["result"]["json"], 2, "{answer}");
    let ran = scene.ask("GET", "/v1/sessions/left-alone/executions").send().expect(200).json();
    assert_eq!(ran["executions"][0]["outcome"], "interrupted", "{ran}");
}

#[test]
fn who_asks_for_it_hears_what_code_writes() {
    let scene = scene();
    let peer = Peer::connect(&scene);
    let code = tool("ExecutePythonCode", &json!({"pythonCode": "import sys\nprint('to out', flush=True)\nprint('to err', file=sys.stderr, flush=True)"}));
    let heard = |answer: &crate::client::Answer| {
        let all = messages(answer);
        let of = |logger: &str| {
            let told = all.iter().filter(|message| message["method"] == "notifications/message" && message["params"]["logger"] == logger);
            told.map(|message| message["params"]["data"].as_str().unwrap().to_owned()).collect::<String>()
        };
        (of("stdout"), of("stderr"))
    };
    assert_eq!(heard(&peer.post(&code).send().expect(200)), (String::new(), String::new()), "nobody asked");
    let level = |level: &str| peer.post(&message(2, "logging/setLevel", &json!({"level": level}))).send();
    level("info").expect(200);
    assert_eq!(heard(&peer.post(&code).send().expect(200)), ("to out\n".to_owned(), "to err\n".to_owned()));
    level("warning").expect(200);
    assert_eq!(heard(&peer.post(&code).send().expect(200)), (String::new(), "to err\n".to_owned()));
    assert!(!last(&level("loud"))["error"].is_null());
    let params = json!({"name": "ExecutePythonCode", "arguments": {"pythonCode": "print('once')"}, "_meta": {"io.modelcontextprotocol/logLevel": "info"}});
    assert_eq!(heard(&alone(&scene, "tools/call", &params).send().expect(200)).0, "once\n");
    assert_eq!(heard(&peer.post(&code).send().expect(200)).0, "", "and nobody else");
}

#[test]
fn calls_without_a_connection_do_not_use_up_the_pool() {
    let scene = scene();
    let call = |arguments: serde_json::Value| {
        last(&alone(&scene, "tools/call", &json!({"name": "ExecutePythonCode", "arguments": arguments})).send().expect(200))["result"].clone()
    };
    let kept = call(json!({"pythonCode": "x = 'kept'", "sessionId": "kept-by-name"}));
    assert_eq!(kept["isError"], false, "{kept}");
    // More than the pool has places for.
    for number in 0..8 {
        let result = call(json!({"pythonCode": number.to_string()}));
        assert_eq!(result["structuredContent"]["result"]["json"], number, "{result}");
    }
    assert_eq!(call(json!({"pythonCode": "x", "sessionId": "kept-by-name"}))["structuredContent"]["result"]["text"], "'kept'", "what was named stays");
    // Others' sessions do not go for it.
    let bob = Peer::connect_as(&scene, BOB, "2025-11-25");
    let full = bob.python("1");
    assert!(text(&full).contains("are taken"), "{full}");
}
