//! `belljar run` where a server of the same user runs: the same output, the same ends, and the run is the server's.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::serve::{Place, Server};
use crate::support::{Ended, Running, Scene};

struct House {
    scene: Scene,
    place: Place,
    _server: Server,
}

impl House {
    fn new() -> Self {
        let place = Place::with_environments();
        let config = place.config("[pools.default]\nready = 2\n");
        let server = place.start(&["--config", config.to_str().unwrap()], |_| {});
        Self { scene: Scene::new(), place, _server: server }
    }

    fn run(&self, arguments: &[&str], code: &str) -> Ended {
        self.scene.call([&["--data", self.place.data(), "run"], arguments].concat(), code)
    }

    fn start(&self, arguments: &[&str], code: &str) -> Running {
        self.scene.start([&["--data", self.place.data(), "run"], arguments].concat(), code)
    }

    /// Executions on record: what they came to, by their id.
    fn executions(&self) -> BTreeMap<String, String> {
        let ended = self.scene.call(["--data", self.place.data(), "audit", "query", "--json", "--kind", "execution_concluded"], "");
        let text = ended.text();
        let events = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        events.map(|event| (event["execution"].as_str().unwrap().to_owned(), event["detail"]["outcome"].as_str().unwrap().to_owned())).collect()
    }

    fn sessions(&self) -> Json {
        let stream = std::os::unix::net::UnixStream::connect(format!("{}/server.sock", self.place.data())).unwrap();
        let (status, text) = crate::serve::answer(stream, "GET /v1/sessions", "", "");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Json>(&text).unwrap()["sessions"].clone()
    }
}

/// What differs from run to run, taken out.
fn same(execution: &Json) -> Json {
    let mut execution = execution.clone();
    for name in ["id", "sessionId", "executionTimeMs", "startedAt"] {
        assert!(!execution[name].is_null(), "{name}");
        execution[name] = Json::Null;
    }
    execution
}

const EVERYTHING: &str = "import sys, os
os.makedirs('deep/er')
open('deep/er/a b.txt', 'w').write('artifact')
open('empty', 'w').close()
open(b'\\xff\\n.bin', 'wb').write(b'x')
print('out', open('data.csv').read(), inputs['n'], __file__)
print('err', file=sys.stderr)
from IPython.display import display, SVG
display('shown')
display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))
{'value': [1, 2.5, None]}
";

#[test]
fn a_run_is_the_same_with_a_server_and_without() {
    let house = House::new();
    house.scene.write("data.csv", "1,2");
    house.scene.write("code.py", EVERYTHING);
    let runs = [&["--json"][..], &["--json", "--standalone"]].map(|mode| {
        let out = format!("out{}", mode.len());
        let arguments = [&["code.py", "--file", "data.csv", "--input", "n=7", "--out", &out][..], mode].concat();
        let ended = house.run(&arguments, "");
        let execution = ended.execution().0;
        let text = execution.to_string().replace(&out, "OUT");
        let saved = ["deep/er/a b.txt", "empty"].map(|name| std::fs::read(house.scene.path(&format!("{out}/{name}"))).unwrap());
        (execution, serde_json::from_str::<Json>(&text).unwrap(), saved)
    });
    let [(served, first, files), (_, second, expected)] = runs;
    assert_eq!(same(&first), same(&second));
    assert_eq!((files, first["result"]["json"].clone()), (expected, json!({"value": [1, 2.5, null]})));
    let executions = house.executions();
    assert_eq!(executions.keys().collect::<Vec<_>>(), [served["id"].as_str().unwrap()], "the one of the server is on its record, the other is not");
    assert_eq!(house.sessions(), json!([]), "its session is gone");
}

#[test]
fn outputs_come_as_they_are_and_ends_are_told() {
    let house = House::new();
    let ended = house.run(&["-"], "import sys\nsys.stdout.buffer.write(b'a\\xff\\n\\xe2\\x82')\nsys.stdout.flush()\nsys.stderr.write('e')\n42");
    assert_eq!((ended.stdout.as_slice(), ended.stderr.as_str(), ended.code()), (&b"a\xff\n\xe2\x8242\n"[..], "e", 0));
    let ended = house.run(&["-"], "1/0");
    assert_eq!((ended.code(), ended.text().as_str()), (1, ""));
    assert!(ended.stderr.contains("ZeroDivisionError: division by zero\n") && ended.stderr.ends_with("belljar: raised\n"), "{}", ended.stderr);
    let ended = house.run(&["--language", "shell", "-"], "echo one; exit 3");
    assert_eq!((ended.code(), ended.text().as_str()), (1, "one\n"));
    let ended = house.run(&["--timeout", "1", "-"], "print('x', flush=True)\nwhile True: pass");
    assert!(ended.code() == 1 && ended.text() == "x\n" && ended.stderr.ends_with("belljar: timed out (wallSeconds)\n"), "{}", ended.stderr);
    let ended = house.run(&["--env", "nowhere", "-"], "1");
    assert!(ended.code() == 2 && ended.stderr.contains("`nowhere`") && ended.stderr.contains("`--standalone`"), "{}", ended.stderr);
    let ended = house.run(&["--language", "shell", "-"], "echo ok # \u{ff}");
    ended.prints("ok\n");
    let ended = house.scene.call([&["--data", house.place.data(), "run", "--language", "shell", "-"][..]].concat(), b"echo \xff".as_slice());
    assert!(ended.code() == 2 && ended.stderr.contains("`--standalone`"), "{}", ended.stderr);
    assert_eq!(house.sessions(), json!([]));
}

const LOOP: &str = "import time\ntry:\n    print('ready', flush=True)\n    while True: time.sleep(0.01)\nexcept KeyboardInterrupt:\n    print('caught', flush=True)\n    END\n";

#[test]
fn interrupts_reach_what_runs_on_the_server() {
    let house = House::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut running = house.start(&["-"], &LOOP.replace("END", "raise"));
        assert_eq!(running.line(), "ready\n");
        running.signal(signal);
        let ended = running.end();
        assert_eq!((ended.code(), ended.text().as_str()), (1, "ready\ncaught\n"), "{}", ended.stderr);
        assert!(ended.stderr.contains("KeyboardInterrupt\n") && ended.stderr.ends_with("belljar: interrupted\n"), "{}", ended.stderr);
    }
    let mut running = house.start(&["-"], &LOOP.replace("END", "while True: time.sleep(1)"));
    assert_eq!(running.line(), "ready\n");
    running.signal(Signal::INT);
    assert_eq!(running.line(), "caught\n");
    running.signal(Signal::INT);
    let ended = running.end();
    assert!(ended.code() == 1 && ended.stderr.contains("belljar: interrupted; its state is lost"), "{}", ended.stderr);
    assert_eq!(house.executions().values().map(String::as_str).collect::<Vec<_>>(), ["interrupted"; 3]);
    assert_eq!(house.sessions(), json!([]), "nothing is left");
}
