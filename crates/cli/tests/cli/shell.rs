//! Shell commands: which code is one, exit codes, and what is left of their processes.

use crate::support::{Scene, eventually, marker, with_argument};

#[test]
fn the_language_is_told_by_a_flag_or_the_files_name() {
    let scene = Scene::new();
    scene.write("script.sh", "echo \"$BASH_VERSION\" | grep -o '^[0-9]'; pwd\n");
    scene.write("script.txt", "echo txt\n");
    scene.write("python.sh", "print('python')\n");
    let ended = scene.call(["run", "script.sh"], "");
    assert_eq!((ended.code(), ended.text().ends_with("/mnt/data\n")), (0, true), "{} {}", ended.text(), ended.stderr);
    scene.call(["run", "--language", "shell", "script.txt"], "").prints("txt\n");
    scene.call(["run", "--language", "python", "python.sh"], "").prints("python\n");
    scene.call(["run", "--language", "shell", "-"], "echo in").prints("in\n");
    let ended = scene.shell("echo out; echo err >&2");
    ended.prints("out\n");
    assert_eq!(ended.stderr, "err\n");
}

#[test]
fn exit_codes_and_signals_are_told() {
    let scene = Scene::new();
    let cases = [
        ("true", "completed", 0, None),
        ("echo said; exit 3", "raised", 3, Some("the command ended with exit code 3")),
        ("kill -TERM $$", "raised", 128 + 15, Some("the command was ended by signal 15")),
        ("kill -KILL $$", "raised", 128 + 9, Some("the command was ended by signal 9")),
        ("kill -SEGV $$", "raised", 128 + 11, Some("the command was ended by signal 11")),
        ("nosuchcommand 2>/dev/null", "raised", 127, Some("the command ended with exit code 127")),
        ("if", "raised", 2, Some("the command ended with exit code 2")),
    ];
    for (code, outcome, exit_code, message) in cases {
        let execution = scene.shell_json(code);
        assert_eq!((execution.outcome(), execution.0["exitCode"].as_i64()), (outcome, Some(exit_code)), "{code}: {}", execution.0);
        assert_eq!(execution.0["error"]["message"].as_str(), message, "{code}: {}", execution.0);
        assert_eq!(execution.0["error"]["name"].as_str(), message.map(|_| "ExitStatus"), "{code}: {}", execution.0);
        assert_eq!(execution.0["stateLost"], false, "{code}: {}", execution.0);
    }
    let ended = scene.shell("echo said; exit 3");
    assert_eq!((ended.code(), ended.text().as_str()), (1, "said\n"));
    assert_eq!(ended.stderr, "ExitStatus: the command ended with exit code 3\nbelljar: raised\n");
    assert!(scene.python_json("1").0["exitCode"].is_null(), "Python code has none");
}

#[test]
fn usual_tools_work_on_files() {
    let scene = Scene::new();
    scene.write("words.txt", "pear\napple\npear\n");
    let ended = scene.call(
        ["run", "--language", "shell", "-", "--file", "words.txt"],
        "sort words.txt | uniq -c | awk '{print $2, $1}' > counts.txt; cat counts.txt | sed s/apple/APPLE/",
    );
    ended.prints("APPLE 1\npear 2\n");
    assert_eq!(scene.saved("counts.txt"), b"apple 1\npear 2\n");
}

#[test]
fn nothing_that_a_command_left_in_the_background_survives_it() {
    let scene = Scene::new();
    let marker = marker();
    let mut running = scene.start(
        ["run", "--language", "shell", "-"],
        &format!("(sleep {marker} &); setsid sleep {marker} & disown; (setsid sh -c 'trap \"\" TERM HUP INT; sleep {marker}; sleep {marker}' &) ; nohup sleep {marker} > /dev/null 2>&1 & sleep 0.3; echo done"),
    );
    assert_eq!(running.line(), "done\n");
    running.end().prints("done\n");
    assert_eq!(with_argument(&marker), Vec::<u32>::new(), "nothing is left once belljar has ended");
}

#[test]
fn processes_of_a_command_can_be_seen_from_outside() {
    // The control of every test here that finds no process.
    let scene = Scene::new();
    let marker = marker();
    let mut running = scene.start(["run", "--language", "shell", "-"], &format!("sleep {marker} & echo up; wait"));
    assert_eq!(running.line(), "up\n");
    assert!(eventually(|| with_argument(&marker).len() == 1), "the process is found by its argument");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.end().code(), 1);
    assert_eq!(with_argument(&marker), Vec::<u32>::new(), "nothing is left once belljar has ended");
}
