//! Sessions and executions.

use std::thread;

use serde_json::json;

use crate::scene::{ALICE, BOB, WATCHER, scene};

#[test]
fn a_session_from_its_making_to_its_end() {
    let scene = scene();
    let limits = json!({"wallSeconds": 30, "memoryBytes": 268_435_456});
    let made = scene.ask("POST", "/v1/sessions").json(&json!({"id": "made@1", "limits": limits})).send().expect(201);
    assert_eq!(made.header("location"), Some("/v1/sessions/made%401"));
    let session = made.json();
    assert_eq!((&session["id"], &session["pool"], &session["environment"]), (&json!("made@1"), &json!("default"), &json!("core")));
    assert_eq!((&session["limits"]["wallSeconds"], &session["limits"]["processes"]), (&json!(30), &json!(128)));
    let ran = scene.python("made@1", "x = 20\nprint('é')\nx + 1").expect(200);
    assert!(ran.header("server-timing").is_some());
    let execution = ran.json();
    assert_eq!((&execution["outcome"], &execution["stdout"], &execution["sessionId"]), (&json!("completed"), &json!("é\n"), &json!("made@1")));
    assert_eq!(execution["result"], json!({"text": "21", "json": 21}));
    assert_eq!(scene.python("made@1", "x").expect(200).json()["result"]["json"], 20, "variables stay");
    let body = json!({"language": "shell", "code": "echo hi; exit 3"});
    let shell = scene.ask("POST", "/v1/sessions/made%401/executions").json(&body).send().expect(200).json();
    assert_eq!((&shell["outcome"], &shell["exitCode"], &shell["error"]["name"]), (&json!("raised"), &json!(3), &json!("ExitStatus")));
    let body = json!({"code": "inputs['a'] + timeout", "inputs": {"a": 2}, "timeoutSeconds": 5});
    assert_eq!(scene.ask("POST", "/v1/sessions/made@1/executions").json(&body).send().expect(200).json()["error"]["name"], "NameError");
    let list = scene.ask("GET", "/v1/sessions/made@1/executions").send().expect(200).json();
    let ids: Vec<&str> = list["executions"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), ids[0]), (4, execution["id"].as_str().unwrap()));
    let entry = scene.ask("GET", &format!("/v1/sessions/made@1/executions/{}", ids[0])).send().expect(200).json();
    assert_eq!((&entry["status"], &entry["execution"]), (&json!("finished"), &execution));
    let shown = scene.ask("GET", "/v1/sessions/made@1").send().expect(200).json();
    assert_eq!((&shown["executions"], &shown["busy"]), (&json!(4), &json!(false)));
    assert_eq!(scene.ask("GET", "/v1/sessions").send().expect(200).json()["sessions"][0]["id"], "made@1");
    scene.ask("DELETE", "/v1/sessions/made@1").send().expect(204);
    scene.ask("GET", "/v1/sessions/made@1").send().refused(404, "not_found");
    assert_eq!(scene.ask("GET", "/v1/sessions").send().json()["sessions"], json!([]));
}

#[test]
fn long_output_is_read_whole_and_in_parts() {
    let scene = scene();
    let execution = scene.python("long", "import sys\nprint('ä' * 1_500_000)\nsys.stderr.write('e')").expect(200).json();
    assert_eq!(execution["stdoutTruncated"], true);
    let path = format!("/v1/sessions/long/executions/{}", execution["id"].as_str().unwrap());
    let whole = scene.ask("GET", &format!("{path}/stdout")).send().expect(200);
    assert_eq!((whole.body.len(), whole.header("content-type"), whole.whole), (3_000_001, Some("text/plain; charset=utf-8"), true));
    let part = scene.ask("GET", &format!("{path}/stdout")).header("Range", "bytes=-3").send().expect(206);
    assert_eq!((part.text().as_str(), part.header("content-range")), ("ä\n", Some("bytes 2999998-3000000/3000001")));
    assert_eq!(scene.ask("GET", &format!("{path}/stderr")).send().expect(200).text(), "e");
    assert_eq!(scene.ask("HEAD", &format!("{path}/stdout")).send().expect(200).header("content-length"), Some("3000001"));
    scene.ask("GET", "/v1/sessions/long/executions/exe_0/stdout").send().refused(404, "not_found");
}

#[test]
fn what_runs_is_interrupted_and_the_state_stays() {
    let scene = scene();
    scene.python("stop", "kept = 7").expect(200);
    let running = thread::scope(|threads| {
        let running = threads.spawn(|| scene.python("stop", "import time\nopen('begun', 'w').close()\ntime.sleep(60)"));
        // Until it has begun.
        while scene.ask("HEAD", "/v1/sessions/stop/files/begun").send().status == 404 {
            thread::yield_now();
        }
        let list = scene.ask("GET", "/v1/sessions/stop/executions").send().expect(200).json();
        let entry = list["executions"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(entry["status"], "running");
        let path = format!("/v1/sessions/stop/executions/{}/interrupt", entry["id"].as_str().unwrap());
        scene.ask("POST", &path).send().expect(202);
        running.join().unwrap().expect(200).json()
    });
    assert_eq!((&running["outcome"], &running["stateLost"]), (&json!("interrupted"), &json!(false)));
    assert_eq!(scene.python("stop", "kept").expect(200).json()["result"]["json"], 7);
    let over = format!("/v1/sessions/stop/executions/{}/interrupt", running["id"].as_str().unwrap());
    assert_eq!(scene.ask("POST", &over).send().expect(202).json()["status"], "finished", "what is over stays as it is");
}

#[test]
fn pools_are_chosen_and_told() {
    let scene = scene();
    let pools = scene.ask("GET", "/v1/pools").send().expect(200).json();
    let names: Vec<&str> = pools["pools"].as_array().unwrap().iter().map(|pool| pool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "second"]);
    assert_eq!((&pools["pools"][0]["isDefault"], pools["pools"][0].get("now")), (&json!(true), None));
    let watched = scene.ask_as(WATCHER, "GET", "/v1/pools").send().expect(200).json();
    assert!(watched["pools"][0]["now"]["sessions"].is_u64());
    // The second pool makes nothing by itself, and has one place.
    scene.ask("POST", "/v1/sessions/only/executions?pool=second").json(&json!({"code": "1"})).send().refused(404, "not_found");
    let made = scene.ask("POST", "/v1/sessions").json(&json!({"id": "only", "pool": "second"})).send().expect(201);
    assert_eq!(made.header("location"), Some("/v1/sessions/only?pool=second"));
    let ran = scene.ask("POST", "/v1/sessions/only/executions").json(&json!({"code": "open('a b', 'w').close()", "pool": "second"})).send().expect(200).json();
    assert_eq!(ran["artifacts"][0]["url"], "/v1/sessions/only/files/a%20b?pool=second");
    scene.ask("GET", ran["artifacts"][0]["url"].as_str().unwrap()).send().expect(200);
    scene.ask("GET", "/v1/sessions/only").send().refused(404, "not_found");
    let full = scene.ask("POST", "/v1/sessions?pool=second").json(&json!({})).send();
    assert!(full.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
    full.refused(429, "limit");
    let body = json!({"code": "1", "pool": "second"});
    scene.ask("POST", "/v1/sessions/only/executions?pool=default").json(&body).send().refused(400, "invalid_request");
    // An environment chooses the pool.
    assert_eq!(scene.ask("POST", "/v1/sessions").json(&json!({"environment": "core"})).send().expect(201).json()["pool"], "default");
    scene.ask("POST", "/v1/sessions").json(&json!({"environment": "nowhere"})).send().refused(404, "not_found");
    scene.ask("POST", "/v1/sessions").json(&json!({"environment": "nowhere", "pool": "default"})).send().refused(400, "invalid_request");
    // Two callers may have sessions of one id, and see nothing of each other.
    scene.python("same", "a = 1").expect(200);
    let other = scene.ask_as(BOB, "POST", "/v1/sessions/same/executions").json(&json!({"code": "a"})).send().expect(200).json();
    assert_eq!(other["error"]["name"], "NameError");
    assert_eq!(scene.ask_as(ALICE, "GET", "/v1/sessions?pool=second").send().expect(200).json()["sessions"].as_array().unwrap().len(), 1);
}
