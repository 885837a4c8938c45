//! The server of a pool, as Azure Container Apps has it.

use serde_json::{Value as Json, json};

use crate::scene::{ALICE, BOB, Scene, scene};

/// The ways to name a pool.
const PATHS: [&str; 3] = ["/pools/default/mcp", "/Pools/default/MCP/", "/subscriptions/s/resourceGroups/g/sessionPools/default/mcp"];

fn ask(scene: &Scene, caller: &str, message: &Json) -> Json {
    scene.keyed(caller, "POST", PATHS[0]).json(message).send().expect(200).json()
}

fn call(scene: &Scene, caller: &str, name: &str, arguments: &Json) -> Json {
    ask(scene, caller, &json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {"name": name, "arguments": arguments}}))
}

fn launch(scene: &Scene, caller: &str) -> String {
    let launched = call(scene, caller, "launchShell", &json!({}));
    launched["result"]["structuredContent"]["environmentId"].as_str().unwrap_or_else(|| panic!("{launched}")).to_owned()
}

#[test]
fn a_hello_without_parameters_is_answered_as_json() {
    let scene = scene();
    for path in PATHS {
        let answer = scene.keyed(ALICE, "POST", path).json(&json!({"jsonrpc": "2.0", "id": "1", "method": "initialize"})).send().expect(200);
        assert_eq!((answer.header("content-type"), answer.header("mcp-session-id")), (Some("application/json"), None), "{path}");
        let hello = answer.json();
        assert_eq!((&hello["id"], &hello["result"]["protocolVersion"]), (&json!("1"), &json!("2025-03-26")));
        assert_eq!(hello["result"]["serverInfo"]["name"], "Microsoft Container Apps MCP Server");
        assert_eq!(hello["result"]["capabilities"]["tools"], json!({"call": true, "list": true}));
    }
    let path = PATHS[0];
    scene.keyed(ALICE, "POST", path).json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().expect(202);
    for method in ["GET", "DELETE"] {
        assert_eq!(scene.keyed(ALICE, method, path).send().header("allow"), Some("POST"), "{method}");
    }
    let unknown = ask(&scene, ALICE, &json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": {}}}));
    assert_eq!(unknown["error"]["code"], -32601, "newer clients fall back on that: {unknown}");
    let tools = ask(&scene, ALICE, &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    let names: Vec<_> = tools["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["launchShell", "runPythonCodeInRemoteEnvironment", "runShellCommandInRemoteEnvironment"]);
    for (body, status) in
        [("{", 400), ("[]", 400), ("1", 400), (r#"{"jsonrpc": "2.0", "id": null, "method": "ping"}"#, 400), (r#"{"id": 1, "method": "ping"}"#, 400)]
    {
        let answer = scene.keyed(ALICE, "POST", path).header("Content-Type", "application/json").body(body).send().expect(status);
        assert!(answer.json()["error"]["code"].as_i64().is_some_and(|code| code < -32000), "{body}");
    }
    let stranger = scene.ask_as("nobody", "POST", path).json(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).send().expect(401);
    assert!(stranger.header("www-authenticate").is_some());
}

#[test]
fn code_runs_in_an_environment_that_keeps_its_state() {
    let scene = scene();
    let id = launch(&scene, ALICE);
    assert_eq!(scene.sessions(), 0, "a session is made when something runs");
    let python = |code: &str| call(&scene, ALICE, "runPythonCodeInRemoteEnvironment", &json!({"environmentId": id, "pythonCode": code}))["result"].clone();
    let first = python("x = 20\nprint('hello')\nx + 1");
    assert_eq!(first["structuredContent"], json!({"stdout": "hello\n", "stderr": "", "result": 21}), "{first}");
    assert_eq!((&first["isError"], first["content"][0]["type"].as_str()), (&json!(false), Some("text")));
    assert_eq!(python("x")["structuredContent"]["result"], 20);
    let failed = python("1/0");
    assert!(failed["isError"] == true && failed["structuredContent"]["stderr"].as_str().unwrap().contains("ZeroDivisionError"), "{failed}");
    let shell = |arguments: Json| {
        let mut arguments = arguments;
        arguments["environmentId"] = json!(id);
        call(&scene, ALICE, "runShellCommandInRemoteEnvironment", &arguments)
    };
    assert_eq!(shell(json!({"shellCommand": "pwd; exit 4"}))["result"]["structuredContent"], json!({"stdout": "/mnt/data\n", "stderr": "", "exitCode": 4}));
    let words = shell(json!({"execCommandAndArgs": ["echo", "$HOME", "a b"]}));
    assert_eq!(words["result"]["structuredContent"]["stdout"], "$HOME a b\n");
    for bad in [json!({}), json!({"shellCommand": "ls", "execCommandAndArgs": ["ls"]}), json!({"shellCommand": 1}), json!({"execCommandAndArgs": []})] {
        assert_eq!(shell(bad.clone())["error"]["code"], -32602, "{bad}");
    }
    assert_eq!(call(&scene, ALICE, "noSuchTool", &json!({}))["error"]["code"], -32602);
}

#[test]
fn an_environment_is_its_callers_and_does_not_come_back() {
    let scene = scene();
    let id = launch(&scene, ALICE);
    let run = |caller: &str, id: &str| call(&scene, caller, "runPythonCodeInRemoteEnvironment", &json!({"environmentId": id, "pythonCode": "1"}));
    for (caller, id) in [(BOB, id.as_str()), (ALICE, "env-never-launched"), (ALICE, "")] {
        let error = run(caller, id)["error"].clone();
        assert!(error["code"] == -32000 && error["message"].as_str().unwrap().starts_with("Environment not found: "), "{error}");
    }
    assert_eq!(run(ALICE, &id)["result"]["structuredContent"]["result"], 1);
    scene.ask("DELETE", &format!("/v1/sessions/{id}")).send().expect(204);
    assert_eq!(run(ALICE, &id)["error"]["code"], -32000, "its state is gone, and that is told");
}
