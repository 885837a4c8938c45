//! What Python code prints, evaluates to and raises, as text.

use crate::support::Scene;

#[test]
fn output_comes_while_the_code_still_runs() {
    let scene = Scene::new();
    let mut running = scene.start(["run", "-"], "import time\nprint('first')\ntime.sleep(1.5)\nprint('second')\n");
    assert_eq!(running.line(), "first\n");
    assert!(running.is_running(), "the first line arrives before the end");
    let ended = running.end();
    ended.prints("first\nsecond\n");
    let mut running = scene.start(["run", "--language", "shell", "-"], "echo first; sleep 1.5; echo second");
    assert_eq!(running.line(), "first\n");
    assert!(running.is_running(), "the first line arrives before the end");
    running.end().prints("first\nsecond\n");
}

#[test]
fn stdout_and_stderr_stay_apart_and_values_are_printed() {
    let scene = Scene::new();
    let ended = scene.python("import sys\nprint('out')\nprint('err', file=sys.stderr)\n'a' + 'b'");
    ended.prints("out\n'ab'\n");
    assert_eq!(ended.stderr, "err\n");
    scene.python("2 + 2").prints("4\n");
    scene.python("2 + 2;").prints("");
    scene.python("x = 2 + 2").prints("");
    scene.python("None").prints("");
    scene.python("for i in range(3):\n    print(i)\n").prints("0\n1\n2\n");
    scene.python("print('ü€😀', end='')").prints("ü€😀");
    scene.python("import os; os.getcwd(), os.listdir('.')").prints("('/mnt/data', [])\n");
}

#[test]
fn no_code_from_an_earlier_run_is_there() {
    let scene = Scene::new();
    scene.python("open('kept.txt', 'w').write('x')\nsecret = 1\nopen('/tmp/kept', 'w').write('x');").prints("");
    scene.python("import os; (os.listdir('.'), os.path.exists('/tmp/kept'), 'secret' in globals())").prints("([], False, False)\n");
}

#[test]
fn an_error_shows_the_users_own_line_and_file() {
    let scene = Scene::new();
    scene.write("sub/divide.py", "import os\n\ndef ratio(a, b):\n    return a / b\n\nprint('before')\nratio(1, 0)\n");
    let ended = scene.call(["run", "sub/divide.py"], "");
    assert_eq!((ended.code(), ended.text().as_str()), (1, "before\n"));
    let expected = "Traceback (most recent call last):\n  File \"divide.py\", line 7, in <module>\n    ratio(1, 0)\n  File \"divide.py\", line 4, in ratio\n    return a / b\n           ~~^~~\nZeroDivisionError: division by zero\nbelljar: raised\n";
    // Python 3.13 marks the call, too.
    let without_marks = |text: &str| text.lines().filter(|line| !line.trim().trim_matches(['~', '^']).is_empty()).collect::<Vec<_>>().join("\n");
    assert_eq!(without_marks(&ended.stderr), without_marks(expected));
    assert!(!ended.stderr.contains('\x1b'), "no colours: {:?}", ended.stderr);
    let execution = scene.python_json("1/0");
    assert_eq!(
        (execution.outcome(), execution.error_name(), execution.0["error"]["message"].as_str()),
        ("raised", "ZeroDivisionError", Some("division by zero"))
    );
    assert!(execution.0["error"]["traceback"].as_str().unwrap().contains("line 1"), "{}", execution.0);
    assert!(!execution.0.to_string().contains("\\u001b"), "no colours: {}", execution.0);
}

#[test]
fn a_syntax_error_shows_its_place() {
    let scene = Scene::new();
    scene.write("broken.py", "print('never')\nif True\n    pass\n");
    let ended = scene.call(["run", "broken.py"], "");
    assert_eq!((ended.code(), ended.text().as_str()), (1, ""), "nothing of it ran");
    assert!(ended.stderr.contains("File \"broken.py\", line 2\n    if True\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("SyntaxError: expected ':'") && !ended.stderr.contains('\x1b'), "{}", ended.stderr);
    assert_eq!(scene.python_json("return 5").error_name(), "SyntaxError");
}

#[test]
fn leaving_with_zero_completes_and_with_more_fails() {
    let scene = Scene::new();
    scene.python("import sys\nprint('left')\nsys.exit(0)\nprint('never')").prints("left\n");
    scene.python("raise SystemExit").prints("");
    let ended = scene.python("import sys\nsys.exit(3)");
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("SystemExit: 3"), "{}", ended.stderr);
    assert_eq!(scene.python_json("exit('no data')").error_name(), "SystemExit");
}

#[test]
fn inputs_are_json_values_in_a_variable() {
    let scene = Scene::new();
    let arguments = [
        "run",
        "-",
        "--input",
        "n=3",
        "--input",
        "f=1.5",
        "--input",
        "s=\"a=b ü\"",
        "--input",
        "l=[1,null,true]",
        "--input",
        "o={\"k\":{}}",
        "--input",
        "z=null",
    ];
    let ended = scene.call(arguments, "print(inputs)\nprint([type(value).__name__ for value in inputs.values()])");
    ended.prints("{'n': 3, 'f': 1.5, 's': 'a=b ü', 'l': [1, None, True], 'o': {'k': {}}, 'z': None}\n['int', 'float', 'str', 'list', 'dict', 'NoneType']\n");
    scene.python("inputs").prints("{}\n");
    scene.call(["run", "-", "--input", "big=123456789012345678"], "inputs['big'] + 1").prints("123456789012345679\n");
}

#[test]
fn code_comes_from_a_file_or_standard_input() {
    let scene = Scene::new();
    scene.write("script.py", "print('from a file')\n__file__\n");
    scene.call(["run", "script.py"], "print('not this')").prints("from a file\n'script.py'\n");
    scene.call(["run", "-"], "print('from standard input')").prints("from standard input\n");
    scene.call(["run"], "print('from standard input')").prints("from standard input\n");
    scene.write("crlf.py", "\u{feff}if True:\r\n    print('from Windows')\r\n");
    scene.call(["run", "crlf.py"], "").prints("from Windows\n");
}

#[test]
fn nothing_can_be_read_from_standard_input() {
    let scene = Scene::new();
    let ended = scene.python("import sys\nprint(repr(sys.stdin.read()))\ninput('name? ')");
    assert_eq!((ended.code(), ended.text().as_str()), (1, "''\nname? "));
    assert!(ended.stderr.contains("EOFError"), "{}", ended.stderr);
}

#[test]
fn await_stands_at_top_level() {
    let scene = Scene::new();
    scene.python("import asyncio\nasync def twice(x):\n    await asyncio.sleep(0)\n    return 2 * x\nprint(await twice(4))\nawait asyncio.gather(twice(1), twice(2))").prints("8\n[2, 4]\n");
    scene.python("import asyncio\nasync def main():\n    return 5\nasyncio.run(main())").prints("5\n");
}

#[test]
fn magics_work() {
    let scene = Scene::new();
    let timed = scene.python("%timeit -n 1 -r 1 sum(range(10))");
    assert!(timed.code() == 0 && timed.text().contains("per loop"), "{} {}", timed.text(), timed.stderr);
    let timed = scene.python("%%time\nprint('inside')\n1 + 1");
    assert!(
        timed.code() == 0 && timed.text().starts_with("inside\n") && timed.text().contains("Wall time") && timed.text().ends_with("2\n"),
        "{}",
        timed.text()
    );
    scene.python("%pwd").prints("'/mnt/data'\n");
}

#[test]
fn commands_run_from_python() {
    let scene = Scene::new();
    scene.python("!echo from a command\nprint('after')").prints("from a command\nafter\n");
    scene.python("lines = !printf 'a\\nb\\n'\nprint(list(lines))").prints("['a', 'b']\n");
    scene.python("word = 'brace'\n!echo {word} $word").prints("brace brace\n");
    scene.python("%%bash\necho one\necho two | tr o 0").prints("one\ntw0\n");
    scene.python("!exit 3\nprint(_exit_code)").prints("3\n");
    let ended = scene.python("!echo wrong >&2; echo made > made.txt\nprint(open('made.txt').read())");
    ended.prints("made\n\n");
    assert_eq!(ended.stderr.lines().next(), Some("wrong"));
    assert_eq!(scene.saved("made.txt"), b"made\n");
}

#[test]
fn installing_says_how_packages_are_added() {
    let scene = Scene::new();
    for code in ["!pip install leftpad", "%pip install leftpad", "!python -m pip install leftpad", "pip install leftpad"] {
        let ended = scene.python(code);
        let told = format!("{}{}", ended.text(), ended.stderr);
        assert!(told.contains("belljar env build") && told.trim_end().lines().count() == 1, "{code}: {told}");
    }
}

#[test]
fn python_starts_no_process_unless_configured() {
    let code = "import subprocess\nprint(subprocess.run(['echo', 'started'], capture_output=True, text=True).stdout, end='')";
    let scene = Scene::new();
    let execution = scene.python_json(code);
    assert_eq!((execution.outcome(), execution.error_name()), ("raised", "PermissionError"), "{}", execution.0);
    Scene::configured("process_spawning = \"allow\"\n").python(code).prints("started\n");
}

#[test]
fn what_a_thread_prints_late_is_dropped_and_waited_for_by_nobody() {
    let scene = Scene::new();
    let code = "import threading, time\ndef talk():\n    while True:\n        print('late', flush=True)\n        time.sleep(0.01)\nthreading.Thread(target=talk, daemon=DAEMON).start()\nprint('done')";
    for daemon in ["True", "False"] {
        let ended = scene.python(&code.replace("DAEMON", daemon));
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(ended.text().contains("done\n") && ended.text().replace("late\n", "").trim() == "done", "{}", ended.text());
    }
}
