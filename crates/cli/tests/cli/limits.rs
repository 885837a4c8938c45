//! Limits: what ends an execution, what it may survive, and what is said of it.

use crate::support::{Execution, Scene, eventually, has_groups, marker, with_argument};

fn limited(scene: &Scene, arguments: &[&str], code: &str) -> Execution {
    scene.call(["run", "--json", "-"].iter().chain(arguments), code).execution()
}

#[test]
fn a_time_out_interrupts_first_and_keeps_the_state() {
    let scene = Scene::new();
    let code = "import time\ntry:\n    while True: time.sleep(0.01)\nexcept KeyboardInterrupt:\n    print('caught')\nopen('partial.txt', 'w').write('x');";
    let execution = limited(&scene, &["--timeout", "1"], code);
    assert_eq!((execution.outcome(), execution.stdout(), execution.0["stateLost"].as_bool()), ("timed_out", "caught\n", Some(false)), "{}", execution.0);
    assert_eq!((execution.limits_hit(), execution.artifacts()), (vec!["wallSeconds"], vec!["partial.txt"]));
    let execution = limited(&scene, &["--timeout", "1"], "while True: pass");
    assert_eq!(
        (execution.outcome(), execution.error_name(), execution.0["stateLost"].as_bool()),
        ("timed_out", "KeyboardInterrupt", Some(false)),
        "{}",
        execution.0
    );
    let ended = scene.call(["run", "--timeout", "1", "-"], "while True: pass");
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.ends_with("belljar: timed out (wallSeconds)\n"), "{}", ended.stderr);
}

#[test]
fn a_time_out_kills_code_that_ignores_the_interrupt() {
    let scene = Scene::new();
    let code = "import time\nprint('started', flush=True)\nwhile True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        print('ignored', flush=True)";
    let execution = limited(&scene, &["--timeout", "1"], code);
    assert_eq!(
        (execution.outcome(), execution.stdout(), execution.0["stateLost"].as_bool()),
        ("timed_out", "started\nignored\n", Some(true)),
        "{}",
        execution.0
    );
    assert_eq!((execution.error_name(), execution.limits_hit()), ("TimeLimit", vec!["wallSeconds"]), "{}", execution.0);
    // Neither a signal handler nor C code that never returns helps.
    for code in ["import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')"] {
        let execution = limited(&scene, &["--timeout", "1"], code);
        assert_eq!(execution.outcome(), "timed_out", "{code}: {}", execution.0);
    }
}

#[test]
fn a_time_out_ends_commands_with_all_their_processes() {
    let scene = Scene::new();
    for command in ["sleep MARKER", "trap '' INT TERM; echo started; while true; do sleep MARKER; done", "setsid sleep MARKER & sleep MARKER | cat"] {
        let marker = marker();
        let execution = limited(&scene, &["--timeout", "1", "--language", "shell"], &command.replace("MARKER", &marker));
        assert_eq!((execution.outcome(), execution.limits_hit()), ("timed_out", vec!["wallSeconds"]), "{command}: {}", execution.0);
        assert!(execution.0["exitCode"].as_i64().is_some_and(|code| code > 128), "{command}: {}", execution.0);
        assert_eq!(with_argument(&marker), Vec::<u32>::new(), "{command}");
    }
    let marker = marker();
    let execution = limited(&scene, &["--timeout", "1"], &format!("!sleep {marker}"));
    assert_eq!(execution.outcome(), "timed_out", "from Python: {}", execution.0);
    assert_eq!(with_argument(&marker), Vec::<u32>::new());
}

#[test]
fn cpu_time_is_limited_apart_from_the_clock() {
    let scene = Scene::limited("cpu_seconds = 1\nwall_seconds = 60");
    for (language, code) in [("python", "while True: pass"), ("shell", "while :; do :; done"), ("shell", "while :; do :; done & while :; do :; done")] {
        let execution = limited(&scene, &["--language", language], code);
        assert_eq!((execution.outcome(), execution.limits_hit()), ("timed_out", vec!["cpuSeconds"]), "{code}: {}", execution.0);
    }
    let execution = limited(&scene, &[], "import time\ntime.sleep(1.5)\nprint('slept')");
    execution.prints("slept\n");
    // The limit on the clock that a caller gives raises the one on CPU time with it.
    let execution =
        limited(&scene, &["--timeout", "30"], "import time\nend = time.process_time() + 1.5\nwhile time.process_time() < end: pass\nprint('worked')");
    execution.prints("worked\n");
}

#[test]
fn memory_is_limited() {
    let scene = Scene::limited("memory_bytes = 201326592");
    let hog = "kept = []\nwhile True: kept.append(bytearray(b'x') * 4_000_000)";
    let execution = limited(&scene, &[], hog);
    assert_eq!((execution.outcome(), execution.limits_hit()), ("memory_limit", vec!["memoryBytes"]), "{}", execution.0);
    assert!(matches!(execution.error_name(), "MemoryLimit" | "MemoryError"), "{}", execution.0);
    if has_groups() {
        assert_eq!((execution.error_name(), execution.0["stateLost"].as_bool()), ("MemoryLimit", Some(true)), "the kernel kills: {}", execution.0);
    }
    let execution = limited(&scene, &["--language", "shell"], "x=xxxxxxxx; while :; do x=$x$x; done");
    if has_groups() {
        assert_eq!((execution.outcome(), execution.limits_hit()), ("memory_limit", vec!["memoryBytes"]), "{}", execution.0);
    } else {
        // Without them bash is refused memory, and says so itself.
        assert!(matches!(execution.outcome(), "memory_limit" | "raised"), "{}", execution.0);
    }
    // One request that cannot be met is an error that code may catch.
    let execution = limited(&scene, &[], "try:\n    bytearray(1 << 46)\nexcept MemoryError:\n    print('caught')");
    execution.prints("caught\n");
    // The control stays below.
    limited(&scene, &[], "len(bytearray(b'x') * 50_000_000);\nprint('fits')").prints("fits\n");
}

#[test]
fn files_count_apart_from_memory() {
    let scene = Scene::limited("memory_bytes = 134217728\nworkspace_bytes = 134217728");
    let execution = limited(
        &scene,
        &["--out", "saved"],
        "import os\nwith open('large.bin', 'wb') as file:\n    for _ in range(120): file.write(bytes(1 << 20))\nprint(os.path.getsize('large.bin') >> 20)\nos.remove('large.bin')",
    );
    execution.prints("120\n");
}

#[test]
fn threads_and_processes_are_limited() {
    let scene = Scene::limited("processes = 40");
    let code = "import threading, time\nfor number in range(200):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()";
    let execution = limited(&scene, &["--timeout", "60"], code);
    assert_eq!(execution.error_name(), "RuntimeError", "{}", execution.0);
    if has_groups() {
        assert_eq!((execution.outcome(), execution.limits_hit()), ("process_limit", vec!["processes"]), "{}", execution.0);
    } else {
        assert!(matches!(execution.outcome(), "process_limit" | "raised"), "{}", execution.0);
    }
    let caught = format!("try:\n    {}\nexcept RuntimeError:\n    print('caught')", code.replace('\n', "\n    "));
    let execution = limited(&scene, &["--timeout", "60"], &caught);
    execution.prints("caught\n");
    if has_groups() {
        assert_eq!(execution.limits_hit(), ["processes"], "it is named all the same: {}", execution.0);
    }
}

#[test]
fn a_fork_bomb_is_bounded_and_gone() {
    let scene = Scene::limited("processes = 40");
    let marker = marker();
    // Bash tries again for a while; the limit on time is there for that.
    let bomb = format!("for number in $(seq 100); do sleep {marker} & done 2>/dev/null; wait");
    let mut running = scene.start(["run", "--json", "--language", "shell", "--timeout", "8", "-"], &bomb);
    assert!(eventually(|| with_argument(&marker).len() > 20), "the control: it spreads");
    let mut most = 0;
    let ended = eventually(|| {
        most = most.max(with_argument(&marker).len());
        !running.is_running()
    });
    assert!(ended, "its time is limited");
    let execution = running.end().execution();
    assert!(most <= 45, "never more than the limit and what starts one: {most}");
    assert!(matches!(execution.outcome(), "process_limit" | "raised" | "timed_out"), "{}", execution.0);
    if has_groups() {
        assert!(execution.limits_hit().contains(&"processes"), "{}", execution.0);
    }
    assert_eq!(with_argument(&marker), Vec::<u32>::new(), "nothing is left");
    let execution = limited(&scene, &["--language", "shell", "--timeout", "8"], "bomb() { bomb | bomb & }; bomb; echo started");
    assert_eq!(execution.stdout(), "started\n", "{}", execution.0);
}

#[test]
fn a_full_workspace_is_told() {
    let scene = Scene::limited("workspace_bytes = 1048576");
    let write = "open('large.bin', 'wb').write(bytes(2_000_000))";
    let execution = limited(&scene, &[], write);
    assert_eq!((execution.outcome(), execution.error_name(), execution.limits_hit()), ("disk_limit", "OSError", vec!["workspaceBytes"]), "{}", execution.0);
    let execution = limited(&scene, &[], &format!("try:\n    {write}\nexcept OSError as error:\n    print(error.errno)"));
    execution.prints("28\n");
    assert_eq!(execution.limits_hit(), ["workspaceBytes"], "it is named all the same");
    let execution = limited(&scene, &["--language", "shell"], "head -c 2000000 /dev/zero > large.bin");
    assert_eq!((execution.outcome(), execution.limits_hit()), ("disk_limit", vec!["workspaceBytes"]), "{}", execution.0);
    assert!(execution.text("stderr").contains("No space left on device"), "{}", execution.0);
    let execution = limited(&scene, &["--language", "shell"], "head -c 2000000 /dev/zero > large.bin 2>/dev/null; rm large.bin; echo removed");
    execution.prints("removed\n");
}

#[test]
fn too_many_files_are_told() {
    let scene = Scene::limited("workspace_inodes = 50");
    let execution = limited(&scene, &[], "for number in range(100): open(f'file-{number}', 'w').close()");
    assert_eq!((execution.outcome(), execution.error_name()), ("disk_limit", "OSError"), "{}", execution.0);
    assert!((30..=50).contains(&execution.artifacts().len()), "what was made is saved: {}", execution.artifacts().len());
}

#[test]
fn a_flood_of_output_is_ended_and_keeps_its_ends() {
    let scene = Scene::new();
    let flood = |arguments: &[&str], code: &str| {
        let ended = scene.call(["run", "--json", "-"].iter().chain(arguments), code);
        // Displays may come to 64 MiB, and are kept once.
        assert!(ended.peak_bytes < 160 << 20, "belljar's own memory is bounded: {} bytes", ended.peak_bytes);
        ended.execution()
    };
    let execution = flood(&["--language", "shell"], "echo the head; yes");
    assert_eq!((execution.outcome(), execution.limits_hit()), ("output_limit", vec!["outputBytes"]), "{}", execution.error_name());
    for (code, tail) in
        [("print('the head')\nwhile True: print('x' * 1000)", "xxx"), ("import sys\nprint('the head')\nwhile True: sys.stderr.write('y' * 100_000)", "")]
    {
        let execution = flood(&[], code);
        assert_eq!((execution.outcome(), execution.limits_hit(), execution.error_name()), ("output_limit", vec!["outputBytes"], "OutputLimit"));
        assert!(execution.stdout().starts_with("the head\n") && execution.stdout().trim_end().ends_with(tail), "head and tail are kept");
        let long = if tail.is_empty() { "stderr" } else { "stdout" };
        assert_eq!(execution.0[format!("{long}Truncated")], true);
        let kept = execution.text(long).len();
        assert!((1 << 19..(1 << 20) + 200).contains(&kept), "about a mebibyte is kept: {kept}");
        assert!(execution.text(long).contains(" bytes left out …]"), "it says how much is gone");
    }
    let execution = flood(&[], "while True: display('x' * 1_000_000)");
    assert_eq!((execution.outcome(), execution.limits_hit()), ("output_limit", vec!["outputBytes"]), "displays count, too");
}

#[test]
fn output_up_to_the_limit_is_passed_whole() {
    let scene = Scene::new();
    let ended = scene.python("print('x' * 2_000_000)");
    assert_eq!((ended.code(), ended.stdout.len()), (0, 2_000_001), "{}", ended.stderr);
    let execution = scene.python_json("print('a' + 'x' * 2_000_000 + 'z')");
    assert_eq!((execution.outcome(), execution.0["stdoutTruncated"].as_bool()), ("completed", Some(true)));
    assert!(execution.stdout().starts_with("axx") && execution.stdout().ends_with("xxz\n"), "head and tail are kept");
    let execution = scene.python_json("print('ü' * 700_000)");
    assert!(execution.0["stdoutTruncated"] == true && !execution.stdout().contains('\u{fffd}'), "no character is cut");
}

#[test]
fn bytes_that_are_no_text_are_shown_as_such() {
    let scene = Scene::new();
    let execution = scene.python_json("import sys\nsys.stdout.buffer.write(b'a\\xff\\xfe\\x00b\\xe2\\x82');");
    assert_eq!((execution.outcome(), execution.stdout()), ("completed", "a\u{fffd}\u{fffd}\0b\u{fffd}"));
    let execution = scene.shell_json("printf 'a\\377\\000b'");
    assert_eq!((execution.outcome(), execution.stdout()), ("completed", "a\u{fffd}\0b"));
    let execution = scene.python_json("print('\\ud800')\n'\\udcff'");
    assert_eq!(execution.outcome(), "completed", "a lone surrogate is no error of ours: {}", execution.0);
}

#[test]
fn an_interpreter_that_dies_is_told() {
    let scene = Scene::new();
    for (code, message) in [
        ("import os\nprint('before', flush=True)\nos._exit(3)", "the interpreter ended with exit code 3"),
        ("import os\nprint('before', flush=True)\nos._exit(0)", "the interpreter ended with exit code 0"),
        ("import os\nprint('before', flush=True)\nos.abort()", "the interpreter was ended by signal 6"),
        ("import ctypes\nprint('before', flush=True)\nctypes.string_at(0)", "the interpreter was ended by signal 11"),
        ("import os\nprint('before', flush=True)\nos.closerange(3, 1000)", ""),
    ] {
        let execution = scene.python_json(code);
        assert_eq!(
            (execution.outcome(), execution.stdout(), execution.0["stateLost"].as_bool()),
            ("killed", "before\n", Some(true)),
            "{code}: {}",
            execution.0
        );
        assert_eq!(execution.error_name(), "InterpreterExited", "{code}: {}", execution.0);
        assert!(execution.0["error"]["message"].as_str().unwrap().contains(message), "{code}: {}", execution.0);
    }
    let ended = scene.python("import os; os.abort()");
    assert_eq!((ended.code(), ended.stderr.as_str()), (1, "InterpreterExited: the interpreter was ended by signal 6\nbelljar: killed; its state is lost\n"));
}

#[test]
fn endless_recursion_hurts_nobody_else() {
    let scene = Scene::new();
    let execution = scene.python_json("def down(n): return down(n + 1)\ndown(0)");
    assert_eq!((execution.outcome(), execution.error_name()), ("raised", "RecursionError"), "{}", execution.0);
    let execution = scene.python_json("import sys\nsys.setrecursionlimit(10**6)\ndef down(n): return down(n + 1)\ndown(0)");
    assert!(matches!(execution.outcome(), "raised" | "killed" | "memory_limit"), "{}", execution.0);
    let execution = scene.python_json("import sys\nsys.setrecursionlimit(10**9)\nclass Deep:\n    def __repr__(self): return repr(self)\nrepr(Deep())");
    assert!(matches!(execution.outcome(), "raised" | "killed" | "memory_limit"), "{}", execution.0);
}
