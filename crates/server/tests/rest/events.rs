//! Executions as events.

use std::io::BufReader;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::client::{Answer, chunk};
use crate::scene::{Scene, scene};

fn ask(scene: &Scene, session: &str, code: &str) -> crate::client::Request {
    scene.ask("POST", &format!("/v1/sessions/{session}/executions")).header("Accept", "text/event-stream").json(&json!({"code": code}))
}

/// Name, number and data of each event.
fn events(text: &str) -> Vec<(String, u64, Json)> {
    let blocks = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    let event = |block: &str| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_else(|| panic!("no {name}: {block}"));
        (field("event").to_owned(), field("id").parse().unwrap(), serde_json::from_str(field("data")).unwrap())
    };
    blocks.map(event).collect()
}

#[test]
fn everything_comes_as_it_happens() {
    let scene = scene();
    let code = "import sys\nfrom IPython.display import display, HTML\nsys.stdout.write('a\\n\\nb')\nsys.stdout.flush()\nsys.stderr.write('e')\n\
                sys.stdout.buffer.write(b'\\xff')\ndisplay(HTML('<b>'))\nopen('f.txt', 'w').write('x')\n40 + 2";
    let answer = ask(&scene, "flow", code).send().expect(200);
    assert!(answer.whole);
    assert_eq!((answer.header("content-type"), answer.header("cache-control")), (Some("text/event-stream"), Some("no-store")));
    let events = events(&answer.text());
    let names: Vec<&str> = events.iter().map(|(name, _, _)| name.as_str()).collect();
    for name in ["started", "stdout", "stderr", "display", "result", "artifact", "done"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert_eq!((names[0], names[names.len() - 1]), ("started", "done"));
    assert_eq!(events.iter().map(|(_, number, _)| *number).collect::<Vec<_>>(), (1..=events.len() as u64).collect::<Vec<_>>());
    let stdout: String = events.iter().filter(|(name, _, _)| name == "stdout").map(|(_, _, data)| data["text"].as_str().unwrap()).collect();
    assert_eq!(stdout, "a\n\nb\u{fffd}");
    let done = &events[events.len() - 1].2;
    assert_eq!((&done["id"], &done["outcome"], &done["result"]["json"]), (&events[0].2["id"], &json!("completed"), &json!(42)));
    let artifact = &events.iter().find(|(name, _, _)| name == "artifact").unwrap().2;
    assert_eq!((&artifact["path"], &artifact["url"]), (&json!("f.txt"), &json!("/v1/sessions/flow/files/f.txt")));
    let failed = self::events(&ask(&scene, "flow", "1 / 0").send().expect(200).text());
    assert_eq!(failed.iter().find(|(name, _, _)| name == "error").unwrap().2["name"], "ZeroDivisionError");
}

#[test]
fn events_do_not_wait_for_the_end() {
    let scene = scene();
    let mut reader = BufReader::new(ask(&scene, "early", "import time\nprint('first', flush=True)\ntime.sleep(60)").open());
    assert_eq!(Answer::read_head(&mut reader).status, 200);
    let mut seen = String::new();
    while !seen.contains("first") {
        seen.push_str(&String::from_utf8(chunk(&mut reader).expect("an event")).unwrap());
    }
    let id = events(&seen)[0].2["id"].as_str().unwrap().to_owned();
    // The caller leaves; the execution goes on, and is interrupted by its id.
    drop(reader);
    let path = format!("/v1/sessions/early/executions/{id}");
    assert_eq!(scene.ask("GET", &path).send().expect(200).json()["status"], "running");
    scene.ask("POST", &format!("{path}/interrupt")).send().expect(202);
    let patience = Instant::now() + Duration::from_secs(30);
    while scene.ask("GET", &path).send().json()["status"] != "finished" {
        assert!(Instant::now() < patience);
        std::thread::yield_now();
    }
    assert_eq!(scene.ask("GET", &path).send().json()["outcome"], "interrupted");
}

#[test]
fn a_reader_that_takes_nothing_holds_up_nobody() {
    let scene = scene();
    // More than the sockets' buffers and the server's room take.
    let code = "for _ in range(14):\n    print('x' * 1_000_000)\nprint('end')";
    let mut reader = BufReader::new(ask(&scene, "slow", code).open());
    // Its session is there once the answer begins; from then on it takes nothing.
    assert_eq!(Answer::read_head(&mut reader).status, 200);
    let quick = Instant::now();
    assert_eq!(scene.python("other", "1").expect(200).json()["result"]["json"], 1);
    assert!(quick.elapsed() < Duration::from_secs(8), "another session does not wait");
    let patience = Instant::now() + Duration::from_secs(60);
    let entry = loop {
        let list = scene.ask("GET", "/v1/sessions/slow/executions").send().expect(200).json();
        if list["executions"][0]["status"] == "finished" {
            break list["executions"][0].clone();
        }
        assert!(Instant::now() < patience, "it goes on without its reader");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(entry["outcome"], "completed");
    let whole = scene.ask("GET", &format!("/v1/sessions/slow/executions/{}/stdout", entry["id"].as_str().unwrap())).send().expect(200);
    assert!(whole.text().ends_with("end\n"));
    // What the reader gets in the end is not whole, and does not look as if it were.
    let mut text = String::new();
    let ended = loop {
        match chunk(&mut reader) {
            Some(piece) if piece.is_empty() => break true,
            Some(piece) => text.push_str(&String::from_utf8(piece).unwrap()),
            None => break false,
        }
    };
    assert!(!ended && !text.contains("event: done"));
}
