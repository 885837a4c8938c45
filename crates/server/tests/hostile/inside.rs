//! What code does to its worker, its agent and its session (T056, T057, T150–T163): only its own session suffers, and that goes on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::scene::{ALICE, MALLORY, Scene, eventually, is_typed, scene};

/// What an execution that was broken by its own code may come to.
#[track_caller]
fn is_an_outcome(execution: &Json, what: &str) {
    let known = ["completed", "raised", "timed_out", "memory_limit", "process_limit", "disk_limit", "output_limit", "interrupted", "killed"];
    assert!(known.contains(&execution["outcome"].as_str().unwrap()), "{what}: {execution}");
    assert!(execution["id"].as_str().unwrap().starts_with("exe_") && execution["sessionId"] == "forge", "{what}: the ids are ours: {execution}");
}

/// Sends frames over the worker's own channel, as the driver does.
const FORGE: &str = "import os, struct, socket\ndef frame(kind, payload=b''): return struct.pack('<IB', len(payload), kind) + payload\n\
                     def send(data):\n    s = socket.socket(fileno=os.dup(3))\n    s.settimeout(10)\n    s.sendall(data)\n";

#[test]
fn t057_t158_t159_forged_frames_end_in_an_outcome_and_the_session_goes_on() {
    let scene = scene();
    let raw = [
        ("garbage", "send(os.urandom(100000))"),
        ("a length of 4 GiB", "send(struct.pack('<IB', 2**32 - 1, 18))"),
        ("a length of 32 MiB and nothing", "send(struct.pack('<IB', 32 << 20, 18))"),
        ("32 MiB", "send(frame(18, b'x' * (32 << 20)))"),
        ("half a frame", "send(frame(18, b'{\"text\":\"x\"}')[:7])"),
        ("no payload", "send(frame(18) + frame(19) + frame(17))"),
        ("unknown kinds", "for kind in (0, 1, 2, 3, 4, 5, 22, 255): send(frame(kind, b'{}'))"),
        ("ready again", "send(frame(16, b'{\"runtime\":\"python\",\"version\":\"9\"}'))"),
        ("done, then more", "send(frame(20, b'{}') + frame(18, b'{\"text\":\"forged\",\"json\":1,\"hasJson\":true}'))"),
        ("done a thousand times", "send(frame(20, b'{}') * 1000)"),
        ("a result that is no JSON", "send(frame(18, b'\\xff\\xfe{'))"),
        ("a result of another form", "send(frame(18, b'[]')); send(frame(18, b'null')); send(frame(19, b'{\"name\":1}'))"),
        ("a deep result", "send(frame(18, b'{\"text\":\"x\",\"hasJson\":true,\"json\":' + b'[' * 100000 + b']' * 100000 + b'}'))"),
        ("a deep picture", "send(frame(17, b'{\"data\":{\"application/json\":' + b'[' * 100000 + b']' * 100000 + b'},\"metadata\":{}}'))"),
        ("results without end", "for _ in range(20000): send(frame(18, b'{\"text\":\"x\",\"json\":null,\"hasJson\":false}'))"),
        ("pictures without end", "for _ in range(100000): send(frame(17, b'{\"data\":{\"text/plain\":\"x\"},\"metadata\":{}}'))"),
        (
            "another execution",
            "send(frame(18, b'{\"text\":\"x\",\"execution\":1,\"id\":\"exe_1\",\"sessionId\":\"ses_1\",\"outcome\":\"completed\"}') + frame(20, b'{\"execution\":99,\"outcome\":\"denied\"}'))",
        ),
        ("commands without end", "send(frame(21, b'\\x01true') * 1000)"),
        ("a command that kills", "send(frame(21, b'\\x00kill -9 -1; kill -9 1'))"),
        ("a command of garbage", "send(frame(21, b'') + frame(21, b'\\xff'))"),
        ("every descriptor", "for n in range(3, 1024):\n    try: os.write(n, frame(20, b'{}') + b'exit 0\\n')\n    except OSError: pass"),
        ("a shut channel", "socket.socket(fileno=os.dup(3)).shutdown(2)"),
        ("a closed channel", "os.close(3)"),
        ("closed streams", "os.close(1); os.close(2); os.write(3, b'x')"),
        ("no answer", "import time\ntime.sleep(0.1); os.kill(os.getpid(), 19)"),
    ];
    // The control: what has the form of a frame is passed on as the code's own word.
    let control = format!("{FORGE}send(frame(18, b'{{\"text\":\"its own\",\"json\":1,\"hasJson\":true,\"data\":{{}}}}'))");
    assert_eq!(scene.python("forge", &control)["result"]["text"], "its own", "INVALID: the channel is not reached");
    for (name, code) in raw {
        let begun = Instant::now();
        let seconds = if name == "no answer" { 2 } else { 8 };
        let body = json!({"code": format!("{FORGE}{code}"), "timeoutSeconds": seconds});
        let answer = scene.ask("POST", "/v1/sessions/forge/executions").json(&body).send().expect(200);
        is_an_outcome(&answer.json(), name);
        assert!(answer.json()["limits"]["wallSeconds"] == seconds, "{name}: the limits are ours");
        // Whoever changes the interpreter has changed it for its own executions, until that ends, which another execution can have it do. Nothing that
        // was forged is in any of them.
        let recovered = (0..6).any(|turn| {
            let next = scene.run("forge", "python", "print('mine')\n7");
            is_an_outcome(&next, name);
            assert!(!next.to_string().contains("forged"), "{name}: {next}");
            if turn == 2 {
                is_an_outcome(&scene.run("forge", "python", "import os\nos._exit(0)"), name);
            }
            next["stdout"] == "mine\n" && next["result"]["text"] == "7" && next["outputs"] == json!([])
        });
        assert!(recovered, "{name}");
        assert!(begun.elapsed() < Duration::from_secs(40), "{name}: {:?}", begun.elapsed());
    }
    // The same in a process of a command, where the channel is not open; the control is the worker, which has it.
    let links = "import os\nprint(sum(os.readlink(f'/proc/self/fd/{n}').startswith('socket:') for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')))";
    assert_ne!(scene.python("forge", links)["stdout"], "0\n", "INVALID: a socket is not recognized");
    let shell = scene.run("forge", "shell", "for n in $(seq 3 255); do eval \"printf 'x' >&$n\" 2>/dev/null; done; ls -l /proc/self/fd | grep -c socket");
    assert_eq!((&shell["stdout"], &shell["outcome"]), (&json!("0\n"), &json!("raised")), "{shell}");
    scene.goes_on("forge");
    scene.others_go_on();
}

#[test]
fn t056_what_is_written_late_belongs_to_nobody() {
    let scene = scene();
    // A thread keeps the streams of its execution, and prints when it is over.
    let code = "import os, sys, threading, time\nkept = [os.dup(1), os.dup(2)]\ngo = threading.Event()\ndef late():\n    go.wait(20)\n    for _ in range(200):\n        for fd in kept:\n            \
                try: os.write(fd, b'LATE')\n            except OSError: pass\n        time.sleep(0.002)\nthreading.Thread(target=late, daemon=True).start()\nprint('first')";
    // The control: the same thread within its own execution is heard.
    let control = scene.python("early", &format!("{code}\ngo.set()\ntime.sleep(0.3)"));
    assert!(control["stdout"].as_str().unwrap().contains("LATE") && control["stderr"].as_str().unwrap().contains("LATE"), "INVALID: {control}");
    assert_eq!(scene.python("late", code)["stdout"], "first\n");
    for code in ["go.set()\ntime.sleep(0.3)\nprint('second')", "print('third')"] {
        let next = scene.python("late", code);
        assert!(!next.to_string().contains("LATE"), "{next}");
    }
    // A thread that prints between two executions prints into nothing.
    scene.python("late", "def between():\n    time.sleep(0.2)\n    print('LATE', flush=True)\nthreading.Thread(target=between).start()");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(scene.python("late", "print('fourth')")["stdout"], "fourth\n");
    // Processes of a command do not outlive it, whatever they close or leave.
    let shell = scene.shell("late", "(setsid sh -c 'sleep 0.3; echo LATE' & ) ; echo fifth");
    assert_eq!(shell["stdout"], "fifth\n");
    std::thread::sleep(Duration::from_millis(500));
    let next = scene.shell("late", "echo sixth; ls /proc | grep -c '^[0-9]'");
    assert!(next["stdout"].as_str().unwrap().starts_with("sixth\n") && !next.to_string().contains("LATE"), "{next}");
    scene.others_go_on();
}

#[test]
fn t150_t155_t157_planted_programs_and_settings_are_used_by_nobody() {
    let scene = scene();
    let mark = "touch /mnt/data/TAKEN /tmp/TAKEN";
    let code = format!(
        "import os\nbody = '#!/bin/sh\\n{mark}\\n'\nfor folder in ('/mnt/data', '/tmp', os.path.expanduser('~'), os.path.expanduser('~/.local/bin'), os.path.expanduser('~/bin'), '/mnt/data/bin'):\n    \
         os.makedirs(folder, exist_ok=True)\n    for name in ('pgrep', 'sh', 'bash', 'python', 'python3', 'ls', 'env', 'cat', 'kill', 'mount', 'belljar'):\n        \
         open(f'{{folder}}/{{name}}', 'w').write(body); os.chmod(f'{{folder}}/{{name}}', 0o755)\n    \
         for name in ('.bashrc', '.profile', '.bash_profile', '.bash_login', '.env', '.netrc', '.inputrc'): open(f'{{folder}}/{{name}}', 'w').write('{mark}\\n')\n    \
         for name in ('sitecustomize.py', 'usercustomize.py', 'json.py', 'os.py', 'driver.py', 'values.py', 'errors.py', 'hooks.py', 'traceback.py', '_sandbox_values.py'):\n        \
         open(f'{{folder}}/{{name}}', 'w').write('import posix\\nposix.open(\"/mnt/data/TAKEN\", 0o101)\\n')\n    \
         for name in ('belljar.toml', 'policy.toml', '.pip.conf', 'pip.conf', 'pyproject.toml', 'limits.json'): open(f'{{folder}}/{{name}}', 'w').write('[pools.default.limits]\\nwall_seconds = 9000\\n')\n\
         os.makedirs('.git/hooks', exist_ok=True); os.makedirs('.codex', exist_ok=True)\n\
         os.environ['PATH'] = '/mnt/data:/tmp'; os.environ['BASH_ENV'] = '/mnt/data/.bashrc'; os.environ['ENV'] = '/mnt/data/.bashrc'; os.environ['PYTHONPATH'] = '/mnt/data'; os.environ['LD_PRELOAD'] = '/mnt/data/x.so'"
    );
    scene.python("plant", &code);
    let limits = scene.ask("GET", "/v1/sessions/plant").send().expect(200).json()["limits"].clone();
    scene.shell("plant", "alias ls='touch /mnt/data/TAKEN'; cd() { touch /mnt/data/TAKEN; }; export PATH=/mnt/data; export BASH_ENV=/mnt/data/.bashrc; true");
    // Whatever the service does for the session uses none of it: commands, tools, uploads, lists, pictures, tracebacks, a worker that starts anew.
    let command = scene.shell("plant", "ls > /dev/null; env > /dev/null; echo \"$PATH $LD_PRELOAD $BASH_ENV\"");
    assert!(!command["stdout"].as_str().unwrap().contains("/mnt/data"), "{}", command["stdout"]);
    scene.run("plant", "python", "1 / 0");
    scene.python("plant", "import sys\n{'a': [1, 2]}");
    scene.tool("plant", "RunShellCommand", &json!({"command": "ls -la /; id"})).expect(200);
    scene.tool("plant", "SearchSessionFiles", &json!({"pattern": "x"})).expect(200);
    scene.file("PUT", "plant", "upload").body("x").send().expect(201);
    assert_eq!(scene.run("plant", "python", "import os\nos._exit(3)")["stateLost"], true);
    let anew = scene.python("plant", "import os, sys\nprint(os.path.exists('/mnt/data/TAKEN') or os.path.exists('/tmp/TAKEN'), os.environ['PATH'].startswith('/mnt'), 'PYTHONPATH' in os.environ, 'LD_PRELOAD' in os.environ)");
    assert_eq!(anew["stdout"], "False False False False\n");
    assert_eq!(scene.ask("GET", "/v1/sessions/plant").send().expect(200).json()["limits"], limits);
    assert_eq!((&anew["limits"]["memoryBytes"], &anew["limits"]["wallSeconds"]), (&limits["memoryBytes"], &json!(50)));
    // The control: who asks for what was planted gets it.
    scene.shell("plant", "/mnt/data/pgrep; test -e /mnt/data/TAKEN");
    scene.others_go_on();
}

#[test]
fn t151_t152_t153_nothing_with_other_rights_is_there() {
    let scene = scene();
    let code = "import json, os, socket\nfacts = {'users': set(), 'capabilities': set(), 'ports': []}\nfor name in os.listdir('/proc'):\n    if not name.isdigit(): continue\n    \
                try: status = dict(line.split(':\\t', 1) for line in open(f'/proc/{name}/status').read().splitlines() if ':\\t' in line)\n    except OSError: continue\n    \
                facts['users'] |= set(status['Uid'].split() + status['Gid'].split())\n    facts['capabilities'] |= {status[key] for key in ('CapPrm', 'CapEff', 'CapBnd', 'CapAmb')}\n\
                for port in (22, 80, 443, 2375, 5555, 5432, 6379, 8080, 8720, 8888, 49999):\n    for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'), (socket.AF_INET, '169.254.169.254')):\n        \
                try:\n            with socket.socket(family) as s:\n                s.settimeout(0.2)\n                s.connect((host, port))\n                facts['ports'].append(port)\n        except OSError: pass\n\
                facts['tmp'] = [name for name in os.listdir('/tmp') + os.listdir('/dev/shm') if not name.startswith('matplotlib')]\n\
                facts['unix'] = [line for line in (open('/proc/net/unix').read() if os.path.exists('/proc/net/unix') else '').splitlines() if '/' in line or '@' in line]\n\
                print(json.dumps({key: sorted(value) for key, value in facts.items()}))";
    // The control: the same look at this machine finds users and rights.
    let status = std::fs::read_to_string("/proc/1/status").unwrap();
    assert!(status.contains("\nCapBnd:\t") && !status.contains("\nCapBnd:\t0000000000000000"), "INVALID: {status}");
    // …and a port that answers, which is one of those tried inside.
    std::net::TcpStream::connect(scene.address).expect("INVALID: nothing answers out here either");
    let code = &code.replace("22, 80,", &format!("{}, 22, 80,", scene.address.port()));
    assert!(code.contains(&scene.address.port().to_string()), "INVALID: not tried");
    for session in ["ours", "used"] {
        if session == "used" {
            scene.shell(session, "true");
        }
        let facts: Json = serde_json::from_str(scene.python(session, code)["stdout"].as_str().unwrap()).unwrap();
        assert_eq!(facts["users"].as_array().unwrap().len(), 1, "one user, whoever it is: {facts}");
        assert_ne!(facts["users"][0], "0", "{facts}");
        assert_eq!(facts["capabilities"], json!(["0000000000000000"]), "{facts}");
        assert_eq!((&facts["ports"], &facts["tmp"], &facts["unix"]), (&json!([]), &json!([]), &json!([])), "{facts}");
    }
    scene.others_go_on();
}

#[test]
fn t156_callers_only_narrow_what_is_allowed() {
    let scene = scene();
    let more = [
        json!({"code": "1", "cwd": "/"}),
        json!({"code": "1", "env": {"LD_PRELOAD": "/x", "PATH": "/mnt/data"}}),
        json!({"code": "1", "mounts": ["/:/host"]}),
        json!({"code": "1", "user": "root"}),
        json!({"code": "1", "timeoutSeconds": 901}),
        json!({"code": "1", "timeoutSeconds": 1e9}),
        json!({"code": "1", "limits": {"memoryBytes": 1}}),
        json!({"code": "1", "network": "allow"}),
        json!({"code": "1", "pool": "../default"}),
        json!({"code": "1", "language": "../../bin/sh"}),
    ];
    for body in more {
        for target in ["/v1/sessions/narrow/executions", "/v1/run"] {
            let answer = scene.ask("POST", target).json(&body).send();
            assert!(matches!(answer.status, 400 | 404), "{body}: {} {}", answer.status, answer.text());
            is_typed(&answer, "a wish");
        }
    }
    for (name, value) in [
        ("memoryBytes", json!(1_u64 << 40)),
        ("wallSeconds", json!(100_000)),
        ("cpus", json!(1000)),
        ("processes", json!(1_000_000)),
        ("workspaceBytes", json!(1_u64 << 40)),
    ] {
        scene.ask("POST", "/v1/sessions").json(&json!({"limits": {name: value}})).send().refused(400, "invalid_request");
    }
    for limits in
        [json!({"cpus": -1}), json!({"cpus": 0}), json!({"memoryBytes": 0}), json!({"memoryBytes": -1}), json!({"cpus": "NaN"}), json!({"openFiles": 0})]
    {
        scene.ask("POST", "/v1/sessions").json(&json!({"limits": limits})).send().refused(400, "invalid_request");
    }
    // The control: less is possible.
    scene.ask("POST", "/v1/sessions").json(&json!({"id": "less", "limits": {"wallSeconds": 5}})).send().expect(201);
    scene.others_go_on();
}

#[test]
fn t160_code_is_data_on_its_whole_way() {
    let scene = scene();
    let long = "x".repeat(900_000);
    let texts = [
        "'''\"\"\"'\"\\",
        "\u{feff}bom",
        "a\r\nb\rc\u{2028}d\u{85}e",
        "__END__\nEOF\n<<<",
        "$(touch /mnt/data/TAKEN) `id` ${IFS} %s %n {0} {{x}}",
        "\u{1b}]0;x\u{7}\u{0}",
        "\u{202e}\u{200b}😀\u{10ffff}",
        "</script>--><!--]]>",
        &long,
    ];
    for text in texts {
        let inputs = json!({"code": "print(len(inputs['x']), hash(inputs['x']) == hash(y)) if (y := inputs['y']) else 0", "inputs": {"x": text, "y": text}});
        let execution = scene.ask("POST", "/v1/sessions/data/executions").json(&inputs).send().expect(200).json();
        assert_eq!(execution["stdout"], format!("{} True\n", text.chars().count()), "{}", &text[..text.len().min(40)]);
        if text.contains('\0') {
            continue;
        }
        // In a comment and in a string of the code itself, and in a here document.
        let literal: String = text.chars().map(|one| format!("\\U{:08x}", u32::from(one))).collect();
        if text.len() < 1000 {
            let execution = scene.run("data", "python", &format!("print('{literal}')"));
            assert_eq!(execution["stdout"].as_str().unwrap(), format!("{text}\n"));
            let execution = scene.run("data", "shell", &format!("cat <<'belljar-end'\n{text}\nbelljar-end"));
            assert_eq!(execution["stdout"].as_str().unwrap(), format!("{text}\n"), "{execution}");
        }
    }
    let code = format!("x = '{long}'\nlen(x)");
    assert_eq!(scene.python("data", &code)["result"]["json"], 900_000);
    for code in ["print('a')\0print('b')", "x = 'a\0b'"] {
        scene.ask("POST", "/v1/sessions/data/executions").json(&json!({"code": code})).send().refused(400, "invalid_request");
    }
    let raw = b"{\"code\":\"print('\xff\xfe')\"}";
    scene.ask("POST", "/v1/sessions/data/executions").header("Content-Type", "application/json").body(&raw[..]).send().refused(400, "invalid_request");
    let files = scene.python("data", "import os\nprint(os.listdir())");
    assert_eq!(files["stdout"], "[]\n", "nothing was run that was not code");
    // The control: as code it runs, and leaves what would have been seen.
    scene.shell("data", "echo $(touch /mnt/data/TAKEN)");
    assert_eq!(scene.python("data", "import os\nprint(os.listdir())")["stdout"], "['TAKEN']\n", "INVALID");
    scene.others_go_on();
}

#[test]
fn t161_tricks_on_the_interpreter_hurt_their_own_session_only() {
    let scene = scene();
    let tricks = [
        "import sys\nsys.stdout = sys.stderr = sys.stdin = None",
        "import builtins\nbuiltins.print = builtins.len = builtins.open = builtins.__import__ = None",
        "import builtins\nfor name in list(vars(builtins)):\n    if name not in ('setattr',): delattr(builtins, name)",
        "import sys\nsys.excepthook = sys.displayhook = sys.settrace = sys.exit = lambda *a: None\nsys.setrecursionlimit(50)",
        "import sys\nsys.settrace(lambda *a: 1 / 0)",
        "import sys\nsys.meta_path.clear(); sys.path.clear(); sys.modules.clear()",
        "import atexit, os\natexit.register(os._exit, 99)",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict): o.clear()",
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass",
        "import ctypes\nctypes.string_at(0)",
        "import os\nfor n in range(1024):\n    try: os.close(n)\n    except OSError: pass",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); resource.setrlimit(resource.RLIMIT_DATA, (1 << 20, 1 << 20))",
        "import threading\ndef forever():\n    while True: pass\nfor _ in range(4): threading.Thread(target=forever, daemon=True).start()",
        "class X:\n    def __repr__(self): import os; os._exit(5)\nX()",
        "class X:\n    def __repr__(self): raise SystemExit\nX()",
        "class E(BaseException):\n    def __str__(self): 1 / 0\nraise E",
        "import sys\ndef f(): f()\nsys.setrecursionlimit(10**9)\nf()",
        "raise SystemExit('bye')",
        "import os\nos.kill(os.getpid(), 11)",
    ];
    // The control: their own session they do hurt.
    scene.run("hurt", "python", tricks[1]);
    assert_eq!(scene.run("hurt", "python", "print(1)")["outcome"], "raised", "INVALID: it hurts nobody");
    assert_eq!(scene.run("ended", "python", tricks[18])["stateLost"], true, "INVALID: it ends nothing");
    for session in ["hurt", "ended"] {
        scene.ask("DELETE", &format!("/v1/sessions/{session}")).send().expect(204);
    }
    for (number, trick) in tricks.iter().enumerate() {
        let session = format!("trick-{number}");
        let execution = scene.run(&session, "python", trick);
        assert!(execution["outcome"].is_string(), "{trick}: {execution}");
        // Interrupted where it must be, the session still answers, and another one never noticed.
        let next = scene.ask("POST", &format!("/v1/sessions/{session}/executions")).json(&json!({"code": "1 + 1", "timeoutSeconds": 5})).send();
        is_typed(&next, trick);
        // Ended, and made anew under the same id: nothing of it is left.
        scene.ask("DELETE", &format!("/v1/sessions/{session}")).send().expect(204);
        if number % 4 == 0 {
            scene.goes_on(&session);
            scene.ask("DELETE", &format!("/v1/sessions/{session}")).send().expect(204);
            scene.others_go_on();
        }
    }
    scene.others_go_on();
}

#[test]
fn t039_t162_nothing_of_the_host_is_in_the_process() {
    let scene = scene();
    let data = std::env::var("BELLJAR_TEST_DATA").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    // Everything that can be reached from an object, and all memory of the process; what is looked for is put together inside, so that it is not found in the code.
    let search = |needle: &str| {
        let (one, other) = needle.split_at(needle.len() / 2);
        format!(
            "import gc, os, sys\ngc.unfreeze()\nneedle = ''.join(['{one}', '{other}'])\nfound = []\n\
             for o in gc.get_objects():\n    try:\n        if isinstance(o, dict) and any(needle in str(v) for v in list(o.values()) if isinstance(v, (str, bytes)) and v is not needle): found.append('object')\n    except Exception: pass\n\
             frame = sys._getframe()\nwhile frame:\n    if needle in str(frame.f_code.co_filename): found.append('frame')\n    frame = frame.f_back\n\
             found += ['environ'] * any(needle in v for v in os.environ.values()) + ['argv'] * (needle in str(sys.argv) + open('/proc/self/cmdline').read())\nprint(found, len(gc.get_objects()) > 1000)"
        )
    };
    for session in ["fresh", "used"] {
        if session == "used" {
            scene.shell(session, "true");
        }
        for needle in [scene.key(MALLORY), scene.key(ALICE), &scene.canary.folder().display().to_string(), &data, &scene.address.to_string()] {
            assert_eq!(scene.python(session, &search(needle))["stdout"], "[] True\n", "{session}");
        }
        // The control: what is there is found.
        let found = scene.python(session, &format!("planted = {{'x': 'needle-in-the-hay'}}\n{}", search("needle-in-the-hay")));
        assert!(found["stdout"].as_str().unwrap().starts_with("['object'"), "INVALID: {}", found["stdout"]);
        let environment = scene.shell(session, "env")["stdout"].as_str().unwrap().to_owned();
        for word in ["BELLJAR", "KEY", "TOKEN"] {
            assert!(!environment.contains(word), "{environment}");
        }
    }
    let raised = scene.run("fresh", "python", "1 / 0");
    let text = raised.to_string();
    assert!(!text.contains(&data) && !text.contains("/root") && !text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
    scene.others_go_on();
}

#[test]
fn t163_a_session_finds_nothing_of_the_one_before() {
    let scene = scene();
    let leave = "import os, builtins, sys, random\nfor folder in ('/mnt/data', '/tmp', os.path.expanduser('~'), '/dev/shm'):\n    open(folder + '/LEFT', 'w').write('LEFT')\n\
                 os.environ['LEFT'] = 'LEFT'; builtins.LEFT = 'LEFT'; sys.modules['LEFT'] = sys; random.seed(1); os.umask(0); os.chdir('/tmp')";
    let look = "import os, sys, builtins, uuid, random, json\nleft = [f for folder in ('/mnt/data', '/tmp', os.path.expanduser('~'), '/dev/shm') for f in os.listdir(folder) if 'LEFT' in f]\n\
                print(json.dumps({'left': left + [n for n in os.environ if 'LEFT' in n] + [n for n in list(sys.modules) + dir(builtins) + list(globals()) if 'LEFT' in n], 'cwd': os.getcwd(), \
                'numbers': [os.urandom(8).hex(), str(uuid.uuid4()), random.random(), str(uuid.uuid1())]}))";
    let mut seen = HashSet::new();
    // The control is the first session itself: it finds what it left.
    for turn in 0..6 {
        let session = if turn % 2 == 0 { "again".to_owned() } else { format!("turn-{turn}") };
        let found: Json = serde_json::from_str(scene.python(&session, look)["stdout"].as_str().unwrap()).unwrap();
        assert_eq!((&found["left"], &found["cwd"]), (&json!([]), &json!("/mnt/data")), "turn {turn}");
        for number in found["numbers"].as_array().unwrap() {
            assert!(seen.insert(number.to_string()), "turn {turn}: {number} was there before");
        }
        assert!(!scene.shell(&session, "env; ls -A ~ /tmp /mnt/data /dev/shm; history")["stdout"].as_str().unwrap().contains("LEFT"), "turn {turn}");
        scene.python(&session, leave);
        scene.shell(&session, "echo LEFT >> ~/.bash_history; echo LEFT > /tmp/LEFT-2");
        let own: Json = serde_json::from_str(scene.python(&session, look)["stdout"].as_str().unwrap()).unwrap();
        assert!(own["left"].as_array().unwrap().len() > 4, "INVALID: {own}");
        let list = scene.ask("GET", &format!("/v1/sessions/{session}/executions")).send().expect(200).json();
        assert_eq!(list["executions"].as_array().unwrap().len(), 5, "turn {turn}: only its own");
        scene.ask("DELETE", &format!("/v1/sessions/{session}")).send().expect(204);
    }
    scene.others_go_on();
}

#[test]
fn t050_t066_kills_and_interrupts_end_in_outcomes() {
    let scene = &scene();
    // The controls: a process of one's own is killed, and what nobody interrupts comes to its end.
    assert_eq!(scene.shell("killed", "sleep 100 & kill -9 $!; wait $!; echo $?")["stdout"], "137\n", "INVALID: nothing can be killed");
    scene.python("killed", "import time\ntime.sleep(0.1)");
    for (language, code) in [
        ("python", "import os\nos.kill(-1, 9)"),
        ("python", "import os\nos.kill(1, 9); os.kill(0, 9)"),
        ("shell", "kill -9 -1"),
        ("shell", "kill -9 1; kill -STOP 1; kill -9 $PPID"),
        ("python", "import os\nos._exit(0)"),
        ("shell", "kill -STOP $$"),
    ] {
        let body = json!({"code": code, "language": language, "timeoutSeconds": 2});
        let execution = scene.ask("POST", "/v1/sessions/killed/executions").json(&body).send().expect(200).json();
        assert!(execution["outcome"].is_string(), "{code}: {execution}");
        scene.goes_on("killed");
    }
    // Many interrupts at once, twice, and of what is over.
    let begun = Instant::now();
    let mut target = String::new();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| scene.run("killed", "python", "import time\ntime.sleep(40)"));
        let id = wait_for_running(scene, "killed");
        target = format!("/v1/sessions/killed/executions/{id}/interrupt");
        let target = &target;
        let interrupts: Vec<_> = (0..16).map(|_| scope.spawn(move || scene.ask("POST", target).send())).collect();
        for interrupt in interrupts {
            is_typed(&interrupt.join().unwrap(), "an interrupt");
        }
        let execution = running.join().unwrap();
        assert!(matches!(execution["outcome"].as_str(), Some("interrupted" | "killed")), "{execution}");
        is_typed(&scene.ask("POST", target).send(), "an interrupt of what is over");
    });
    assert!(begun.elapsed() < Duration::from_secs(35), "it did not sleep to its end");
    scene.goes_on("killed");
    scene.others_go_on();
}

fn wait_for_running(scene: &Scene, session: &str) -> String {
    let mut id = String::new();
    assert!(eventually(|| {
        let list = scene.ask("GET", &format!("/v1/sessions/{session}/executions")).send().expect(200).json();
        let running = list["executions"].as_array().unwrap().iter().find(|entry| entry["status"] == "running").cloned();
        id = running.map(|entry| entry["id"].as_str().unwrap().to_owned()).unwrap_or_default();
        !id.is_empty()
    }));
    id
}
