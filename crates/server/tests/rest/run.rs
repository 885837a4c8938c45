//! One execution in a session of its own.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::scene::{Scene, scene};

fn until_no_session(scene: &Scene) {
    let patience = Instant::now() + Duration::from_secs(20);
    while scene.sessions() > 0 {
        assert!(Instant::now() < patience, "a session is left");
        std::thread::yield_now();
    }
}

#[test]
fn files_in_and_out_and_nothing_left() {
    let scene = scene();
    let body = json!({
        "code": "text = open('in/a.txt').read()\nopen('out.csv', 'w').write(text * inputs['n'])\nopen('big', 'wb').write(b'x' * 2_000_000)\nlen(text)",
        "files": [{"name": "in/a.txt", "contentBase64": "aGVsbG8="}],
        "inputs": {"n": 2},
        "timeoutSeconds": 60
    });
    let execution = scene.ask("POST", "/v1/run").json(&body).send().expect(200).json();
    assert_eq!((&execution["outcome"], &execution["result"]["json"]), (&json!("completed"), &json!(5)));
    let urls: Vec<_> = execution["artifacts"].as_array().unwrap().iter().map(|artifact| (artifact["path"].clone(), artifact["url"].clone())).collect();
    assert_eq!(urls, [(json!("big"), json!(null)), (json!("out.csv"), json!("data:text/csv;base64,aGVsbG9oZWxsbw=="))]);
    until_no_session(&scene);
    let failed = scene.ask("POST", "/v1/run").json(&json!({"code": "1 / 0"})).send().expect(200).json();
    assert_eq!(failed["outcome"], "raised");
    until_no_session(&scene);
    let shell = scene.ask("POST", "/v1/run").json(&json!({"code": "echo $((6 * 7))", "language": "shell"})).send().expect(200).json();
    assert_eq!(shell["stdout"], "42\n");
    // Too large for the workspace: an error, and still nothing left.
    let large = json!({"code": "1", "files": [{"name": "a", "contentBase64": "A".repeat(48 << 20)}]});
    scene.ask("POST", "/v1/run").json(&large).send().refused(413, "too_large");
    until_no_session(&scene);
}

#[test]
fn a_caller_that_leaves_takes_the_session_along() {
    let scene = scene();
    let stream = scene.ask("POST", "/v1/run").json(&json!({"code": "import time\ntime.sleep(600)"})).open();
    let patience = Instant::now() + Duration::from_secs(20);
    while scene.sessions() == 0 {
        assert!(Instant::now() < patience);
        std::thread::yield_now();
    }
    drop(stream);
    until_no_session(&scene);
}

#[test]
fn what_makes_no_sense_makes_no_session() {
    let scene = scene();
    let bodies = [
        json!({}),
        json!({"code": ""}),
        json!({"code": "1", "language": "cobol"}),
        json!({"code": "1", "timeoutSeconds": 901}),
        json!({"code": "1", "files": [{"name": "a", "contentBase64": "?"}]}),
        json!({"code": "1", "files": [{"name": "../a", "contentBase64": ""}]}),
        json!({"code": "1", "files": [{"name": "a", "contentBase64": ""}, {"name": "/mnt/data/a", "contentBase64": ""}]}),
        json!({"code": "1", "files": [["a", ""]]}),
        json!({"code": "1", "files": {}}),
    ];
    for body in bodies {
        scene.ask("POST", "/v1/run").json(&body).send().refused(400, "invalid_request");
    }
    scene.ask("POST", "/v1/run").json(&json!({"code": "1", "pool": "nowhere"})).send().refused(404, "not_found");
    assert_eq!(scene.sessions(), 0);
}
