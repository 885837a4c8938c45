//! Ends that come from outside: signals, readers that go away, and what is left of a run.

use std::collections::BTreeSet;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Process, Running, Scene, binary, eventually, family, groups_of, living, marker, with_argument};

/// Everything below this run, which is a launcher and a sandbox at least.
fn family_of(running: &Running) -> Vec<Process> {
    let found = family(running.pid());
    assert!(found.len() >= 3, "launcher, init and code are found: {found:?}");
    found
}

fn assert_gone(family: &[Process]) {
    assert!(eventually(|| living(family).is_empty()), "left of it: {:?}", living(family));
}

const LOOP: &str = "import time\ntry:\n    print('ready', flush=True)\n    while True: time.sleep(0.01)\nexcept KeyboardInterrupt:\n    print('caught', flush=True)\n    END\n";

#[test]
fn an_interrupt_reaches_the_code() {
    for signal in [Signal::INT, Signal::TERM] {
        let scene = Scene::new();
        let mut running = scene.start(["run", "-"], &LOOP.replace("END", "raise"));
        assert_eq!(running.line(), "ready\n");
        let family = family_of(&running);
        running.signal(signal);
        let ended = running.end();
        assert_eq!((ended.code(), ended.text().as_str()), (1, "ready\ncaught\n"), "{}", ended.stderr);
        assert!(ended.stderr.contains("KeyboardInterrupt\n") && ended.stderr.ends_with("belljar: interrupted\n"), "{}", ended.stderr);
        assert_gone(&family);
        scene.assert_clean(&ended);
    }
}

#[test]
fn what_was_made_before_an_interrupt_is_kept() {
    let scene = Scene::new();
    let mut running = scene.start(["run", "-"], &LOOP.replace("END", "open('partial.txt', 'w').write('x')"));
    assert_eq!(running.line(), "ready\n");
    running.signal(Signal::INT);
    let ended = running.end();
    ended.prints("ready\ncaught\n");
    assert_eq!(scene.saved("partial.txt"), b"x");
}

#[test]
fn a_second_interrupt_kills_code_that_ignores_the_first() {
    let scene = Scene::new();
    let mut running = scene.start(["run", "-"], &LOOP.replace("END", "while True: time.sleep(1)"));
    assert_eq!(running.line(), "ready\n");
    let family = family_of(&running);
    running.signal(Signal::INT);
    assert_eq!(running.line(), "caught\n");
    assert!(running.is_running(), "it ignores the first");
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("belljar: interrupted; its state is lost\n"), "{}", ended.stderr);
    assert_gone(&family);
    scene.assert_clean(&ended);
}

#[test]
fn an_interrupt_reaches_a_command() {
    let scene = Scene::new();
    let marker = marker();
    let mut running = scene.start(["run", "--language", "shell", "-"], &format!("(setsid sleep {marker} &); echo ready; sleep {marker}"));
    assert_eq!(running.line(), "ready\n");
    let family = family_of(&running);
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.ends_with("belljar: interrupted\n"), "{}", ended.stderr);
    assert_gone(&family);
    assert_eq!(with_argument(&marker), Vec::<u32>::new(), "nothing with the marker is left");
}

#[test]
fn when_belljar_is_killed_everything_goes_with_it() {
    for (language, code) in [
        ("shell", "(setsid sh -c 'trap \"\" HUP TERM INT; sleep MARKER; sleep MARKER' &); sleep 0.2; echo ready; sleep MARKER"),
        ("python", "import signal, time\nfor number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\nprint('ready', flush=True)\nwhile True: pass"),
    ] {
        let scene = Scene::new();
        let marker = marker();
        let mut running = scene.start(["run", "--language", language, "-"], &code.replace("MARKER", &marker));
        assert_eq!(running.line(), "ready\n");
        let family = family_of(&running);
        running.signal(Signal::KILL);
        let ended = running.end();
        assert_eq!(ended.status.code(), None, "it was killed");
        assert_gone(&family);
        assert_eq!(with_argument(&marker), Vec::<u32>::new(), "nothing with the marker is left");
        assert!(eventually(|| groups_of(ended.pid).is_empty()), "left of it: {:?}", groups_of(ended.pid));
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let scene = Scene::new();
    let code =
        scene.write("loop.py", "number = 0\nwhile True:\n    try:\n        print(number)\n        number += 1\n    except KeyboardInterrupt:\n        pass\n");
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" run \"$1\" | head -n 1"]).arg(binary()).arg(&code);
    scene.dress(&mut command);
    let ended = Running::start(command, b"").end();
    assert_eq!((ended.code(), ended.text().as_str(), ended.stderr.as_str()), (0, "0\n", ""));
}

#[test]
fn runs_side_by_side_do_not_meet() {
    let code = |name: &str| {
        format!(
            "import os, time\nopen('{name}', 'w').write('{name}')\nprint('ready', flush=True)\nend = time.monotonic() + 1\nwhile time.monotonic() < end: time.sleep(0.01)\nprint(os.listdir('.'), [pid for pid in os.listdir('/proc') if pid.isdigit()].__len__() < 4)"
        )
    };
    let (one_scene, other_scene) = (Scene::new(), Scene::new());
    let mut one = one_scene.start(["run", "-"], &code("one"));
    let mut other = other_scene.start(["run", "-"], &code("other"));
    assert_eq!((one.line(), other.line()), ("ready\n".to_owned(), "ready\n".to_owned()), "both run at once");
    one.end().prints("ready\n['one'] True\n");
    other.end().prints("ready\n['other'] True\n");
    assert_eq!((one_scene.saved("one"), other_scene.saved("other")), (b"one".to_vec(), b"other".to_vec()));
}

#[test]
fn two_runs_into_one_folder_keep_both_files() {
    let scene = Scene::new();
    let one = scene.start(["run", "-"], "open('one.txt', 'w').write('1');");
    let other = scene.start(["run", "-"], "open('other.txt', 'w').write('2');");
    one.end().prints("");
    other.end().prints("");
    assert_eq!(scene.files(), ["belljar-out", "belljar-out/one.txt", "belljar-out/other.txt"]);
}

#[test]
fn many_runs_leave_nothing() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let scene = Scene::new();
    let marker = marker();
    let before = mounts();
    for number in 0..50 {
        let ended = scene.shell(&format!("setsid sleep {marker} & echo {number}"));
        ended.prints(&format!("{number}\n"));
    }
    assert_eq!(with_argument(&marker), Vec::<u32>::new(), "no process");
    let left: Vec<String> = mounts().difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new(), "no mount");
    assert_eq!(scene.files(), Vec::<String>::new(), "no file");
}
