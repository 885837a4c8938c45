//! Requests that are refused: each in the native form, whatever is wrong with them.

use serde_json::json;

use crate::client::Request;
use crate::scene::{BOB, NARROW, WATCHER, scene};

#[test]
fn bodies_that_are_wrong() {
    let scene = scene();
    let target = "/v1/sessions/body/executions";
    let depth = format!(r#"{{"code":"1","inputs":{{"a":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        r#"["1"]"#,
        r#"{"code":"1"} x"#,
        r#"{"code":"1","code":"2"}"#,
        r#"{"code":1}"#,
        r#"{"code":"1","unknown":1}"#,
        r#"{"code":NaN}"#,
        r#"{"code":"\ud800"}"#,
        "\u{feff}{\"code\":\"1\"}",
        r#"{"code":"1","timeoutSeconds":0}"#,
        r#"{"code":"1","timeoutSeconds":-1}"#,
        r#"{"code":"1","timeoutSeconds":901}"#,
        r#"{"code":"1","timeoutSeconds":1.5}"#,
        r#"{"code":"1","timeoutSeconds":"5"}"#,
        r#"{"code":"1","inputs":[]}"#,
        r#"{"code":"1","language":"Python"}"#,
        r#"{"code":""}"#,
        r#"{"code":"1","inputs":{"a":1e999}}"#,
        r#"{"code":"1","inputs":{"a":{"b":1,"b":2}}}"#,
        &depth,
    ];
    for body in bodies {
        let error = scene.ask("POST", target).header("Content-Type", "application/json").body(body).send().refused(400, "invalid_request");
        assert!(error["message"].as_str().unwrap().len() < 1000);
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let error = scene.ask("POST", target).header("Content-Type", kind).body(r#"{"code":"1"}"#).send().refused(400, "invalid_request");
        assert!(error["hint"].as_str().unwrap().contains("Content-Type"));
    }
    scene.ask("POST", target).header("Content-Encoding", "gzip").json(&json!({"code": "1"})).send().refused(400, "invalid_request");
    scene.ask("POST", target).json(&json!({"code": "#".repeat((1 << 20) + 1)})).send().refused(413, "too_large");
    scene.ask("POST", target).json(&json!({"code": "1", "inputs": {"a": "x".repeat(9 << 20)}})).send().refused(413, "too_large");
    let wide = format!(r#"{{"code":"1","inputs":{{"a":[{}0]}}}}"#, "0,".repeat(300_000));
    scene.ask("POST", target).header("Content-Type", "application/json").body(wide).send().refused(413, "too_large");
    assert_eq!(scene.sessions(), 0, "nothing was made for a request that is refused");
    for id in ["abc", "a%20bcd", &"x".repeat(129), "abc%2Fd", "%C3%A9%C3%A9%C3%A9%C3%A9"] {
        scene.ask("POST", &format!("/v1/sessions/{id}/executions")).json(&json!({"code": "1"})).send().refused(400, "invalid_request");
    }
    scene.ask("POST", "/v1/sessions/%FF%FF%FF%FF/executions").json(&json!({"code": "1"})).send().refused(400, "invalid_request");
    scene.ask("POST", "/v1/sessions").json(&json!({"id": "a b"})).send().refused(400, "invalid_request");
    scene.ask("POST", "/v1/sessions").json(&json!({"limits": {"memoryBytes": 1_u64 << 50}})).send().refused(400, "invalid_request");
    scene.ask("POST", "/v1/sessions").json(&json!({"limits": {"memory": 1}})).send().refused(400, "invalid_request");
    scene.ask("POST", "/v1/sessions").json(&json!({"limits": [1]})).send().refused(400, "invalid_request");
    scene.ask("POST", "/v1/sessions").json(&json!({"id": "twice"})).send().expect(201);
    scene.ask("POST", "/v1/sessions").json(&json!({"id": "twice"})).send().refused(409, "conflict");
    scene.ask("GET", "/v1/sessions?x=1").send().refused(400, "invalid_request");
}

#[test]
fn callers_that_may_not() {
    let scene = scene();
    scene.python("mine", "open('f', 'w').write('x')").expect(200);
    let id = scene.ask("GET", "/v1/sessions/mine/executions").send().json()["executions"][0]["id"].as_str().unwrap().to_owned();
    let routes = [
        ("GET", "/v1/sessions/mine".to_owned()),
        ("GET", "/v1/sessions/mine/executions".to_owned()),
        ("GET", format!("/v1/sessions/mine/executions/{id}")),
        ("GET", format!("/v1/sessions/mine/executions/{id}/stdout")),
        ("GET", format!("/v1/sessions/mine/executions/{id}/stderr")),
        ("POST", format!("/v1/sessions/mine/executions/{id}/interrupt")),
        ("GET", "/v1/sessions/mine/files".to_owned()),
        ("GET", "/v1/sessions/mine/files/f".to_owned()),
        ("PUT", "/v1/sessions/mine/files/f".to_owned()),
        ("DELETE", "/v1/sessions/mine/files/f".to_owned()),
        ("DELETE", "/v1/sessions/mine".to_owned()),
    ];
    for (method, target) in &routes {
        let ask = |key: &str, target: &str| {
            let request = scene.ask_as(key, method, target);
            if *method == "PUT" { request.body("x") } else { request }
        };
        // What is another's answers like what is not there.
        let theirs = ask(BOB, target).send().refused(404, "not_found");
        let nowhere = ask(BOB, &target.replace("mine", "none")).send().refused(404, "not_found");
        assert_eq!(theirs.to_string().replace("mine", "none"), nowhere.to_string(), "{method} {target}");
        ask(WATCHER, target).send().refused(403, "denied");
        ask(NARROW, target).send().refused(404, "not_found");
        ask("bj_unknown", target).send().refused(401, "unauthenticated");
        Request::new(scene.address, method, target).send().refused(401, "unauthenticated");
    }
    for target in ["/v1/sessions", "/v1/pools", "/openapi.json", "/openapi-2.json", "/docs", "/v1/nothing"] {
        Request::new(scene.address, "GET", target).send().refused(401, "unauthenticated");
    }
    for target in ["/v1/run", "/v1/sessions", "/v1/sessions/mine/executions", "/v1/sessions/mine/tools/ExecutePythonCode"] {
        Request::new(scene.address, "POST", target).json(&json!({"code": "1"})).send().refused(401, "unauthenticated");
    }
    scene.ask_as(WATCHER, "POST", "/v1/run").json(&json!({"code": "1"})).send().refused(403, "denied");
    scene.ask_as(WATCHER, "GET", "/v1/sessions").send().refused(403, "denied");
    scene.ask_as(NARROW, "POST", "/v1/sessions").json(&json!({})).send().refused(404, "not_found");
    assert_eq!(scene.ask_as(NARROW, "GET", "/v1/pools").send().expect(200).json()["pools"].as_array().unwrap().len(), 1);
    assert_eq!(scene.ask_as(NARROW, "GET", "/v1/sessions").send().expect(200).json()["sessions"], json!([]));
    scene.ask("GET", "/v1/sessions/mine?pool=nowhere").send().refused(404, "not_found");
    scene.ask("GET", "/v1/sessions/mine").send().expect(200);
}

#[test]
fn routes_that_are_not_there() {
    let scene = scene();
    for target in ["/", "/v1", "/v1/nothing", "/v1/sessions/", "/v1/sessions/mine/files/", "/v2/sessions"] {
        scene.ask("GET", target).send().refused(404, "not_found");
    }
    for (method, target, allowed) in [
        ("PUT", "/v1/sessions", "GET,HEAD,POST"),
        ("PATCH", "/v1/sessions/mine", "DELETE,GET,HEAD"),
        ("GET", "/v1/run", "POST"),
        ("GET", "/v1/sessions/mine/tools/ExecutePythonCode", "POST"),
        ("POST", "/v1/sessions/mine/files/f", "DELETE,GET,HEAD,PUT"),
        ("POST", "/docs", "GET,HEAD"),
    ] {
        let answer = scene.ask(method, target).send();
        let mut methods: Vec<&str> = answer.header("allow").expect("methods").split(',').collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{method} {target}");
        answer.refused(405, "invalid_request");
    }
}

#[test]
fn descriptions_and_their_page() {
    let scene = scene();
    let newest = scene.ask("GET", "/openapi.json").send().expect(200);
    assert_eq!((newest.json()["openapi"].as_str(), newest.header("content-type")), (Some("3.1.0"), Some("application/json")));
    let older = scene.ask("GET", "/openapi-2.json").send().expect(200).json();
    assert_eq!((older["swagger"].as_str(), older["host"].as_str()), (Some("2.0"), Some(scene.address.to_string().as_str())));
    let page = scene.ask("GET", "/docs").send().expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(page.text().contains("<h1>Belljar"));
}
