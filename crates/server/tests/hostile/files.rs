//! Host handling of guest files (T120–T138): what code prepares in its workspace, and what the service then does there.

use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use serde_json::{Value as Json, json};

use crate::client::Answer;
use crate::scene::{ALICE, SECRET, Scene, descriptors, encoded, eventually, is_typed, resident, scene, scene_with, who_follows_links_is_lured};

/// How long the races go on here; the soak has longer ones.
const RACE: Duration = Duration::from_secs(4);

/// Every way to look at, read or search a path.
fn readings(scene: &Scene, session: &str, path: &str) -> Vec<Answer> {
    let content = format!("/files/content/{path}?api-version=2024-02-02-preview&identifier={session}");
    vec![
        scene.file("GET", session, path).send(),
        scene.file("GET", session, path).header("Range", "bytes=0-99").send(),
        scene.file("HEAD", session, path).send(),
        scene.ask("GET", &format!("/v1/sessions/{session}/files?path={path}&recursive=true")).send(),
        scene.ask("GET", &content).send(),
        scene.tool(session, "ReadSessionFile", &json!({"filePath": path})),
        scene.tool(session, "GetSessionFile", &json!({"filePath": path})),
        scene.tool(session, "ListSessionFiles", &json!({"path": path, "recursive": true})),
        scene.tool(session, "SearchSessionFiles", &json!({"pattern": "canary|root:", "path": path})),
    ]
}

#[track_caller]
fn is_silent(answer: &Answer, what: &str) {
    is_typed(answer, what);
    let text = answer.text();
    assert!(!text.contains(SECRET) && !text.contains("root:x:"), "{what}: {text}");
}

fn listing(scene: &Scene, session: &str, query: &str) -> Json {
    scene.ask("GET", &format!("/v1/sessions/{session}/files?{query}")).send().expect(200).json()
}

#[test]
fn t120_t123_t124_links_lead_nowhere() {
    let scene = scene();
    let canary = scene.canary.folder().display().to_string();
    // In a fresh session from Python, and in one that has been used from bash.
    let python = format!(
        "import os\nos.symlink('{canary}/f', 'file')\nos.symlink('{canary}', 'folder')\nos.symlink('/etc/passwd', 'passwd')\nos.symlink('/proc/self/root', 'root')\n\
         os.symlink('/proc/1/root', 'init')\nos.symlink('/proc/self/cwd', 'cwd')\nos.symlink('/dev/fd/0', 'fd')\nos.symlink('/proc/self/fd/3', 'channel')\n\
         os.symlink('../../../../../../..{canary}/f', 'up')\nos.symlink('loop', 'loop')\nos.mkdir('tree')\nos.symlink('{canary}', 'tree/folder')\nos.symlink('{canary}/f', 'tree/file')\n\
         os.mkdir('mine')\nopen('mine/f', 'w').write('inside')"
    );
    scene.python("fresh", &python);
    scene.python("used", "print(1)");
    let bash = format!(
        "ln -s {canary}/f file; ln -s {canary} folder; ln -s /etc/passwd passwd; ln -s /proc/self/root root; ln -s /proc/1/root init; ln -s /proc/self/cwd cwd; \
         ln -s /dev/fd/0 fd; ln -s /proc/self/fd/3 channel; ln -s ../../../../../../..{canary}/f up; ln -s loop loop; mkdir tree mine; ln -s {canary} tree/folder; \
         ln -s {canary}/f tree/file; echo -n inside > mine/f"
    );
    scene.shell("used", &bash);
    // The control: whoever follows such a link from outside has read the canary.
    let place = tempfile::tempdir().unwrap();
    symlink(scene.canary.folder(), place.path().join("folder")).unwrap();
    assert_eq!(fs::read_to_string(place.path().join("folder/f")).unwrap(), SECRET);
    let links = ["file", "folder", "passwd", "root", "init", "cwd", "fd", "channel", "up", "loop", "tree/file", "tree/folder"];
    let through = ["folder/f", "root/etc/passwd", "init/etc/passwd", "cwd/mine/f", "tree/folder/f", "folder/new", "loop/x"];
    let before = descriptors();
    for session in ["fresh", "used"] {
        assert_eq!(scene.file("GET", session, "mine/f").send().expect(200).text(), "inside");
        for path in links.iter().chain(&through) {
            for answer in readings(&scene, session, path) {
                is_silent(&answer, path);
            }
            let read = scene.file("GET", session, path).send();
            assert!(matches!(read.status, 404 | 409), "{path}: {} {}", read.status, read.text());
        }
        for path in through {
            let upload = json!({"fileName": path, "contentBase64": "eA=="});
            for answer in [
                scene.file("PUT", session, path).body("written").send(),
                scene.file("DELETE", session, path).send(),
                scene.tool(session, "UploadFileToSession", &upload),
            ] {
                // A link in the way, or no folder: either is true.
                assert!(matches!(answer.status, 404 | 409), "{path}: {} {}", answer.status, answer.text());
            }
        }
        // A link itself is replaced by what is written in its place, and removed as what it is; so is a folder with links in it.
        for path in ["file", "folder", "fd"] {
            scene.file("PUT", session, path).body("mine now").send().expect(200);
            assert_eq!(scene.file("GET", session, path).send().expect(200).text(), "mine now");
        }
        for path in links.iter().filter(|path| !path.starts_with("tree/")).chain(&["tree"]) {
            scene.file("DELETE", session, path).send().expect(204);
        }
        let left = listing(&scene, session, "recursive=true");
        assert_eq!(left["files"].as_array().unwrap().len(), 2, "{left}");
        scene.goes_on(session);
    }
    assert!(eventually(|| descriptors() <= before + 4), "descriptors: {before}, now {}", descriptors());
    scene.others_go_on();
}

/// Swaps two names as fast as the kernel does it.
fn exchange(one: &Path, other: &Path) {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// A folder and a link, a file and a link, a file and a pipe that change places without end. From Python only: bash has no command for it.
fn swapping(canary: &Path) -> String {
    format!(
        "import ctypes, os, threading, time\nlibc = ctypes.CDLL(None)\n\
         os.makedirs('d'); os.makedirs('e'); os.symlink('{canary}', 'l'); os.symlink('{canary}/f', 'e/g'); os.mkfifo('e/p'); open('e/q', 'w').write('inside')\n\
         for name in ('d/f', 'e/f'): open(name, 'w').write('inside')\n\
         pairs = [(b'd', b'l'), (b'e/f', b'e/g'), (b'e/p', b'e/q')]\n\
         def swap():\n    until = time.monotonic() + 30\n    while time.monotonic() < until and not os.path.exists('/tmp/stop'):\n        for _ in range(200):\n            for one, other in pairs: libc.renameat2(-100, one, -100, other, 2)\n\
         assert libc.renameat2(-100, b'd', -100, b'l', 2) == 0\nthreading.Thread(target=swap, daemon=True).start()",
        canary = canary.display()
    )
}

#[test]
fn t121_t125_what_changes_places_is_never_followed() {
    // The control: a host that reads by path is lured outside in no time.
    let scene = scene();
    let place = tempfile::tempdir().unwrap();
    let (folder, link) = (place.path().join("d"), place.path().join("l"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("f"), "inside").unwrap();
    symlink(scene.canary.folder(), &link).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                exchange(&folder, &link);
            }
        });
        let escaped = eventually(|| fs::read_to_string(folder.join("f")).is_ok_and(|text| text == SECRET));
        stop.store(true, Ordering::Relaxed);
        assert!(escaped, "INVALID: the race does not work here");
    });

    scene.python("race", &swapping(scene.canary.folder()));
    let (mut inside, mut refused, mut rounds) = (0, 0, 0);
    let until = Instant::now() + RACE;
    let before = descriptors();
    while Instant::now() < until {
        rounds += 1;
        let mut answers = Vec::new();
        for path in ["d/f", "e/f", "e/q"] {
            answers.push(scene.file("GET", "race", path).send());
            answers.push(scene.file("PUT", "race", path).body("inside").send());
        }
        answers.push(scene.file("PUT", "race", &format!("d/new{rounds}")).body("inside").send());
        answers.push(scene.file("DELETE", "race", &format!("d/new{rounds}")).send());
        answers.push(scene.ask("GET", "/v1/sessions/race/files?path=d&recursive=true").send());
        answers.push(scene.ask("GET", "/v1/sessions/race/files?recursive=true").send());
        answers.push(scene.tool("race", "ReadSessionFile", &json!({"filePath": "d/f"})));
        answers.push(scene.tool("race", "SearchSessionFiles", &json!({"pattern": "canary"})));
        for answer in &answers {
            is_typed(answer, "a race");
            assert!(!answer.text().contains(SECRET), "escaped: {}", answer.text());
            inside += usize::from(answer.status == 200);
            refused += usize::from(answer.status >= 400);
        }
    }
    scene.canary.is_untouched();
    assert!(inside > 20 && refused > 20, "both sides were met: {inside} {refused}");
    assert!(eventually(|| descriptors() <= before + 4), "descriptors: {before}, now {}", descriptors());
    scene.python("race", "open('/tmp/stop', 'w').close()");
    scene.goes_on("race");
    scene.others_go_on();
}

#[test]
fn t123_t138_folders_that_are_filled_while_they_are_removed() {
    let scene = scene();
    let canary = scene.canary.folder().display().to_string();
    let code = format!(
        "import os, threading, time\n\
         def fill():\n    until = time.monotonic() + 40\n    n = 0\n    while time.monotonic() < until and not os.path.exists('/tmp/stop'):\n        n += 1\n        try:\n            \
         os.makedirs(f'tree/{{n % 50}}/a/b/c', exist_ok=True)\n            os.symlink('{canary}', f'tree/{{n % 50}}/a/l{{n}}')\n            open(f'tree/{{n % 50}}/a/b/c/{{n}}', 'w').close()\n        except OSError: pass\n\
         threading.Thread(target=fill, daemon=True).start()"
    );
    // The controls: whoever removes by path follows such links, and a folder that nobody fills is removed.
    who_follows_links_is_lured();
    scene.shell("filled", &format!("mkdir -p still/a/b; ln -s {canary} still/a/l; touch still/a/b/f"));
    scene.file("DELETE", "filled", "still").send().expect(204);
    scene.python("filled", &code);
    assert!(eventually(|| listing(&scene, "filled", "")["files"] != json!([])), "INVALID: it is not filled");
    let mut seen = 0;
    for _ in 0..20 {
        let removed = scene.file("DELETE", "filled", "tree").send();
        is_typed(&removed, "a folder that is filled");
        seen += usize::from(removed.status == 204 || removed.status == 409);
    }
    assert!(seen > 0);
    scene.canary.is_untouched();
    // The session itself ends although code goes on building.
    scene.ask("DELETE", "/v1/sessions/filled").send().expect(204);
    scene.ask("GET", "/v1/sessions/filled").send().refused(404, "not_found");
    scene.others_go_on();
}

#[test]
fn t122_t181_ids_cannot_be_guessed_and_planted_names_change_nothing() {
    let scene = scene();
    scene.python("ids-", "import os\nfor name in ('exe_1', 'outputs', 'outputs/exe_1', 'ses_1', '.belljar'): os.makedirs(name, exist_ok=True)\nopen('outputs/stdout.txt', 'w').write('forged')");
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..20 {
        ids.push(scene.python("ids-", "print('mine')")["id"].as_str().unwrap().to_owned());
    }
    // The control of the guesses below: who knows an id finds what it names, and not what was planted.
    let written = scene.ask("GET", &format!("/v1/sessions/ids-/executions/{}/stdout", ids[0])).send().expect(200);
    assert_eq!(written.text(), "mine\n");
    for _ in 0..3 {
        let made = scene.ask("POST", "/v1/sessions").json(&json!({})).send().expect(201).json();
        ids.push(made["id"].as_str().unwrap().to_owned());
        scene.ask("DELETE", &format!("/v1/sessions/{}", made["id"].as_str().unwrap())).send().expect(204);
    }
    let tails: Vec<&str> = ids.iter().map(|id| id.split_once('_').unwrap().1).collect();
    for (number, tail) in tails.iter().enumerate() {
        // 128 bits take 22 characters of base 64, more of any smaller one.
        assert!(tail.len() >= 22, "{tail}");
        let alike = |other: &&str| tail.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
        assert!(tails.iter().skip(number + 1).all(|other| alike(other) < 8), "nothing of one tells of another: {tails:?}");
    }
    for guess in ["exe_1", "exe_00000000000000000000000000", "1", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"] {
        scene.ask("GET", &format!("/v1/sessions/ids-/executions/{guess}")).send().refused(404, "not_found");
    }
}

#[test]
fn t125_pipes_sockets_and_devices_are_listed_and_never_waited_for() {
    let scene = scene();
    let python = "import os, socket\nos.mkfifo('pipe')\ntry: socket.socket(socket.AF_UNIX).bind('socket')\nexcept OSError: pass\n\
                  for name, kind in (('char', 0o020000), ('block', 0o060000)):\n    try: os.mknod(name, kind | 0o666, os.makedev(1, 3))\n    except OSError: pass";
    scene.python("fresh", python);
    scene.python("used", "print(1)");
    scene.shell("used", "mkfifo pipe; mknod char c 1 3; mknod block b 1 3; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"; true");
    // The control: whoever opens a pipe as a file waits for its other end.
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let (sender, opened) = mpsc::channel();
    let waiting = pipe.clone();
    let waiter = thread::spawn(move || sender.send(fs::File::open(waiting).is_ok()));
    assert!(opened.recv_timeout(Duration::from_millis(300)).is_err(), "INVALID: it did not wait");
    drop(fs::OpenOptions::new().write(true).open(&pipe).unwrap());
    waiter.join().unwrap().unwrap();
    for session in ["fresh", "used"] {
        let list = listing(&scene, session, "");
        let files = list["files"].as_array().unwrap();
        assert!(files.iter().all(|file| file["type"] == "other"), "{list}");
        let names: Vec<&str> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
        assert!(names.contains(&"pipe") && !names.contains(&"char") && !names.contains(&"block"), "no device can be made: {names:?}");
        for name in names {
            for answer in readings(&scene, session, name) {
                is_silent(&answer, name);
            }
            scene.file("GET", session, name).send().refused(409, "conflict");
            scene.file("PUT", session, name).body("x").send().expect(200);
            scene.file("DELETE", session, name).send().expect(204);
        }
    }
    scene.others_go_on();
}

#[test]
fn t126_hard_links_count_once() {
    let scene = scene();
    // 1,000 links to 16 MiB in a workspace of 64 MiB: 16 GB by their sizes.
    let code = "import os\nos.mkdir('many')\nopen('many/0', 'wb').write(b'x' * (16 << 20))\nfor n in range(1, 1000): os.link('many/0', f'many/{n}')";
    let execution = scene.python("hard", code);
    let digests = execution["artifacts"].as_array().unwrap().iter().filter(|artifact| !artifact["sha256"].is_null()).count();
    assert!(digests <= 4, "no more is read than the workspace can hold: {digests}");
    // The control: by the sizes that are told, the workspace of 64 MiB would be full many times over.
    let told: u64 = listing(&scene, "hard", "path=many&limit=10000")["files"].as_array().unwrap().iter().map(|file| file["sizeBytes"].as_u64().unwrap()).sum();
    assert_eq!(told, 1000 * (16 << 20), "INVALID: they are no links to one file");
    scene.file("PUT", "hard", "room").body(vec![b'y'; 8 << 20]).send().expect(201);
    assert_eq!(scene.file("GET", "hard", "many/999").send().expect(200).body.len(), 16 << 20);
    let found = scene.tool("hard", "SearchSessionFiles", &json!({"pattern": "zzz"})).expect(200).json();
    assert_eq!(found["incomplete"], true, "what is searched is bounded: {}", found["text"]);
    scene.file("PUT", "hard", "many/5").body("one of them").send().expect(200);
    assert_eq!(scene.file("GET", "hard", "many/6").send().expect(200).body.len(), 16 << 20, "the others stay");
    scene.file("DELETE", "hard", "many").send().expect(204);
    scene.file("PUT", "hard", "room").body(vec![b'y'; 40 << 20]).send().expect(200);
    scene.others_go_on();
}

#[test]
fn t127_files_that_claim_more_than_there_is() {
    let scene = scene();
    const SIZE: u64 = 1 << 40;
    let code = format!("open('sparse', 'wb').truncate({SIZE})\nf = open('text', 'w')\nf.write('line\\n' * 100000)\nf.truncate({SIZE})\nf.close()");
    // The controls: what is as long as it says is hashed, read to its end, searched whole, and comes along.
    let small = scene.python("small", "open('small', 'w').write('line\\n' * 1000)");
    assert!(small["artifacts"][0]["sha256"].is_string(), "INVALID: {small}");
    for (tool, params) in [("ReadSessionFile", json!({"filePath": "small"})), ("SearchSessionFiles", json!({"pattern": "nowhere"}))] {
        assert_ne!(scene.tool("small", tool, &params).expect(200).json()["incomplete"], true, "INVALID: {tool}");
    }
    let run = scene.ask("POST", "/v1/run").json(&json!({"code": "open('small', 'w').write('x')"})).send().expect(200).json();
    assert!(run["artifacts"][0]["url"].as_str().is_some_and(|url| url.starts_with("data:")), "INVALID: {run}");
    let before = resident();
    let execution = scene.python("sparse", &code);
    assert!(execution["artifacts"].as_array().unwrap().iter().all(|artifact| artifact["sha256"].is_null() && artifact["sizeBytes"] == SIZE), "{execution}");
    let head = scene.file("HEAD", "sparse", "sparse").send().expect(200);
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()));
    let last = scene.file("GET", "sparse", "sparse").header("Range", "bytes=-1").send().expect(206);
    assert_eq!((last.body.as_slice(), last.header("content-range")), (&b"\0"[..], Some(format!("bytes {}-{}/{SIZE}", SIZE - 1, SIZE - 1).as_str())));
    // A reader takes a part and leaves: nothing goes on for it.
    let mut some = vec![0; 8 << 20];
    let mut stream = scene.file("GET", "sparse", "sparse").open();
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    // Whoever counts lines does not count for hours.
    let read = scene.tool("sparse", "ReadSessionFile", &json!({"filePath": "text", "startLine": 99_999})).expect(200).json();
    assert!(read["incomplete"] == true && read["text"].as_str().unwrap().contains("only the first"), "{}", read["text"].as_str().unwrap().len());
    scene.tool("sparse", "ReadSessionFile", &json!({"filePath": "sparse"})).refused(400, "invalid_request");
    let found = scene.tool("sparse", "SearchSessionFiles", &json!({"pattern": "line"})).expect(200).json();
    assert_eq!(found["incomplete"], true);
    let run = json!({"code": format!("open('sparse', 'wb').truncate({SIZE})")});
    assert_eq!(scene.ask("POST", "/v1/run").json(&run).send().expect(200).json()["artifacts"][0]["url"], Json::Null);
    assert!(resident() < before + (128 << 20), "memory: {before}, now {}", resident());
    scene.goes_on("sparse");
    scene.others_go_on();
}

#[test]
fn t127_t137_files_that_grow_and_shrink_while_they_are_read() {
    let scene = scene();
    let code = "import mmap, os, threading, time\nopen('f', 'wb').write(b'x' * (4 << 20))\n\
                def change():\n    until = time.monotonic() + 30\n    while time.monotonic() < until and not os.path.exists('/tmp/stop'):\n        \
                os.truncate('f', 0)\n        with open('f', 'r+b') as f:\n            f.truncate(4 << 20)\n            m = mmap.mmap(f.fileno(), 4 << 20)\n            m[:1 << 20] = b'y' * (1 << 20)\n            \
                f.truncate(8 << 20)\n            m.close()\nthreading.Thread(target=change, daemon=True).start()";
    scene.python("moving", code);
    // No control: a reader that maps a file and is killed by its truncation would take this program with it.
    let until = Instant::now() + RACE;
    let (mut whole, mut broken) = (0, 0);
    while Instant::now() < until {
        let answer = scene.file("GET", "moving", "f").send().expect(200);
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert!(answer.whole == (answer.body.len() == length) && answer.body.len() <= length);
        if answer.whole {
            whole += 1
        } else {
            broken += 1
        }
        // What is new is hashed after each execution, and searched by tools.
        let execution = scene.python("moving", "1");
        assert!(execution["artifacts"].as_array().unwrap().len() <= 1);
        is_typed(&scene.tool("moving", "SearchSessionFiles", &json!({"pattern": "y"})), "a search");
    }
    assert!(whole + broken > 3, "{whole} {broken}");
    scene.python("moving", "open('/tmp/stop', 'w').close()");
    scene.others_go_on();
}

/// Names that code gives its files. The first is the control: a name like any other stands in the header as it is.
const NAMES: [&[u8]; 27] = [
    b"plain.txt",
    b"line\nbreak",
    b"cr\r\nSet-Cookie: a=b",
    b"tab\tx",
    b"esc\x1b[31m",
    b"\"quoted\"; filename=x",
    b"semi;colon",
    b"..x",
    b"...",
    b"-rf",
    b" lead",
    b".hidden",
    b"trail ",
    &[b'n'; 255],
    b"\xff\xfe\x80",
    b"\xc0\xaf",
    "e\u{301}".as_bytes(),
    "\u{e9}".as_bytes(),
    "\u{202e}gpj.exe".as_bytes(),
    "\u{200b}".as_bytes(),
    b"CON",
    b"%2e%2e",
    b"a%2Fb",
    "\u{1f600}".as_bytes(),
    b"?#&=+\\",
    b"<script>alert(1)<script>",
    b"UTF-8''x",
];

#[test]
fn t128_t189_names_that_code_makes_come_back_as_they_are() {
    let scene = scene();
    for (session, language) in [("fresh", "python"), ("used", "shell")] {
        for (number, name) in NAMES.iter().enumerate() {
            let octal = |prefix: &str| name.iter().map(|byte| format!("\\{prefix}{byte:03o}")).collect::<String>();
            let code = if language == "python" {
                format!("open(b'{}', 'w').write('{number}')", octal(""))
            } else {
                format!("printf {number} > \"$(printf -- '{}x')\"", octal(""))
            };
            let made = [*name, if language == "shell" && name.len() < 255 { &b"x"[..] } else { &b""[..] }].concat();
            // Bash cuts line ends off at the end, so there is one more letter; a name that is full has no room for it.
            if language == "shell" && name.len() == 255 {
                continue;
            }
            let execution = scene.run(session, language, &code);
            assert_eq!(execution["outcome"], "completed", "{name:?}: {execution}");
            // From the execution, from the list, and spelled out, all lead to the same.
            let listed = listing(&scene, session, "");
            let listed = listed["files"].as_array().unwrap();
            assert_eq!(listed.len(), 1, "{listed:?}");
            assert_eq!(listed[0]["path"], String::from_utf8_lossy(&made).as_ref());
            let url = listed[0]["url"].as_str().unwrap();
            assert_eq!(execution["artifacts"][0]["url"], url);
            for url in [url.to_owned(), format!("/v1/sessions/{session}/files/{}", encoded(&made))] {
                let got = scene.ask("GET", &url).send().expect(200);
                assert_eq!(got.text(), number.to_string());
                let known =
                    ["content-type", "content-length", "content-disposition", "content-security-policy", "x-content-type-options", "cache-control", "etag"];
                let more = ["accept-ranges", "last-modified", "date", "connection", "x-request-id"];
                assert!(got.headers.iter().all(|(name, _)| known.contains(&name.as_str()) || more.contains(&name.as_str())), "{:?}", got.headers);
                let disposition = got.header("content-disposition").unwrap();
                assert!(disposition.starts_with("attachment; filename=\"") && disposition.is_ascii(), "{disposition}");
                let plain = disposition.strip_prefix("attachment; filename=\"").unwrap().split_once('"').unwrap();
                assert!(number > 0 || language == "shell" || *plain.0 == *"plain.txt", "INVALID: {disposition}");
                assert!(plain.1.is_empty() || plain.1.starts_with("; filename*=UTF-8''") && plain.1.matches(';').count() == 1, "{disposition}");
            }
            scene.ask("PUT", url).body("replaced").send().expect(200);
            scene.ask("GET", url).header("Range", "bytes=0-2").send().expect(206);
            let asked = scene.tool(session, "SearchSessionFiles", &json!({"pattern": "^replaced$"})).expect(200).json();
            assert_eq!(asked["matches"].as_array().unwrap().len(), 1);
            scene.ask("DELETE", url).send().expect(204);
            scene.ask("DELETE", url).send().refused(404, "not_found");
        }
    }
    scene.others_go_on();
}

#[test]
fn t130_many_entries_cost_no_more_than_is_said() {
    let scene = scene();
    // 70,000 files whose paths have 3,900 bytes each: more than 270 MB of paths from 70,000 inodes.
    let code = "import os\nd = os.open('.', os.O_RDONLY)\nfor _ in range(15):\n    os.mkdir('x' * 255, dir_fd=d)\n    d = os.open('x' * 255, os.O_RDONLY, dir_fd=d)\n\
                for n in range(70000): os.close(os.open(str(n), os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=d))";
    let before = resident();
    let execution = scene.python("many", code);
    assert!(execution["artifacts"].as_array().unwrap().len() <= 1000);
    for query in ["recursive=true&limit=10000", "recursive=true&limit=10000", "limit=1"] {
        let page = scene.ask("GET", &format!("/v1/sessions/many/files?{query}")).send().expect(200);
        assert!(page.body.len() < 16 << 20, "{} bytes", page.body.len());
        assert_eq!(page.json()["incomplete"], json!(query.starts_with("rec")));
    }
    is_typed(&scene.tool("many", "ListSessionFiles", &json!({"recursive": true})), "a list");
    is_typed(&scene.tool("many", "SearchSessionFiles", &json!({"pattern": "x"})), "a search");
    let grown = resident().saturating_sub(before);
    assert!(grown < 160 << 20, "memory grew by {grown} bytes");
    scene.others_go_on();
    scene.file("DELETE", "many", &"x".repeat(255)).send().expect(204);
    // The control: more of them, with short names, are told in full, page by page.
    scene.python("many", "import os\nos.mkdir('flat')\nfor n in range(90000): os.close(os.open(f'flat/{n}', os.O_CREAT | os.O_WRONLY))");
    let (mut next, mut seen) = (Some("/v1/sessions/many/files?path=flat&limit=10000".to_owned()), 0);
    while let Some(target) = next {
        let page = scene.ask("GET", &target).send().expect(200).json();
        seen += page["files"].as_array().unwrap().len();
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, 90_000);
    scene.file("DELETE", "many", "flat").send().expect(204);
    scene.goes_on("many");
    scene.others_go_on();
}

#[test]
fn t130_a_tree_of_any_depth_is_listed_and_removed() {
    let scene = scene();
    // Walked from the top for each folder in it, removing this takes minutes.
    let code = "import os\nos.mkdir('deep')\nd = os.open('deep', os.O_RDONLY)\nfor _ in range(4000):\n    os.mkdir('a', dir_fd=d)\n    e = os.open('a', os.O_RDONLY, dir_fd=d)\n    os.close(d)\n    d = e\n\
                os.close(d)";
    // The control: one that is not deep is told in full, and removed.
    scene.shell("deep", "mkdir -p shallow/a/b/c; touch shallow/a/b/c/f");
    let list = listing(&scene, "deep", "recursive=true");
    assert_eq!((&list["incomplete"], list["files"].as_array().unwrap().len()), (&json!(false), 5), "INVALID: {list}");
    scene.file("DELETE", "deep", "shallow").send().expect(204);
    let execution = scene.python("deep", code);
    assert_eq!(execution["stateLost"], false);
    let list = listing(&scene, "deep", "recursive=true");
    assert_eq!((&list["incomplete"], list["files"].as_array().unwrap().len() < 100), (&json!(true), true));
    thread::scope(|scope| {
        let removing = scope.spawn(|| scene.file("DELETE", "deep", "deep").send());
        scene.others_go_on();
        removing.join().unwrap().expect(204);
    });
    assert_eq!(listing(&scene, "deep", "")["files"], json!([]));
    // The session itself may end with such a tree in it.
    scene.python("deep", code);
    scene.ask("DELETE", "/v1/sessions/deep").send().expect(204);
    scene.others_go_on();
}

#[test]
fn t131_uploads_onto_what_code_holds() {
    let scene = scene();
    let code = "import os\nheld = open('held', 'w')\nheld.write('old')\nheld.flush()\nos.mkdir('folder')\nopen('folder/x', 'w').close()\nopen('fixed', 'w').close()\nos.chmod('fixed', 0o444)\n\
                os.mkdir('shut')\nos.chmod('shut', 0o555)";
    scene.python("held", code);
    assert_eq!(scene.file("PUT", "held", "held").body("new").send().expect(200).json()["sizeBytes"], 3);
    let seen = scene.python("held", "held.write(' and more')\nheld.flush()\nprint(open('held').read(), os.fstat(held.fileno()).st_nlink)");
    assert_eq!(seen["stdout"], "new 0\n", "whoever holds the old file keeps the old file");
    scene.file("PUT", "held", "folder").body("x").send().refused(409, "conflict");
    scene.file("PUT", "held", "held/x").body("x").send().refused(409, "conflict");
    scene.file("PUT", "held", "fixed").body("x").send().expect(200);
    scene.file("PUT", "held", "shut/x").body("x").send().refused(409, "conflict");
    assert_eq!(scene.shell("held", "cat fixed; ls -A folder")["stdout"], "xx\n");
    // The controls: into a folder that lets its owner write, the same is written, and beside what is no folder.
    scene.shell("held", "chmod 755 shut");
    scene.file("PUT", "held", "shut/x").body("x").send().expect(201);
    scene.file("PUT", "held", "folder/y").body("x").send().expect(201);
}

#[test]
fn t131_names_that_uploads_pass_through_are_taken() {
    let scene = scene();
    scene.file("PUT", "nobody", "x").body("x").send().refused(404, "not_found");
    // The name under which a file waits for its place, as links outside, in all the numbers that it could have.
    let code = format!(
        "import os\nopen('there', 'w').write('old')\nfor n in range(64):\n    for m in range(100): os.symlink('{}', f'.upload-{{n}}-{{m}}')",
        scene.canary.file().display()
    );
    scene.python("planted", &code);
    scene.file("PUT", "planted", "new").body("new").send().expect(201);
    scene.file("PUT", "planted", "there").body("new").send().refused(409, "conflict");
    assert_eq!(scene.file("GET", "planted", "there").send().expect(200).text(), "old");
    // The controls: without the links it is written, and whoever opens such a name as it stands there writes outside.
    scene.python("planted", "for name in os.listdir():\n    if name.startswith('.upload-'): os.remove(name)");
    who_follows_links_is_lured();
    scene.file("PUT", "planted", "there").body("new").send().expect(200);
    // Somebody swaps what waits for its place: then that is what lies there, and nothing outside was written.
    let code = format!(
        "import threading, time\ndef snatch():\n    until = time.monotonic() + 20\n    while time.monotonic() < until and not os.path.exists('/tmp/stop'):\n        for name in os.listdir():\n            \
         if name.startswith('.upload-'):\n                try:\n                    os.remove(name)\n                    os.symlink('{}', name)\n                except OSError: pass\nthreading.Thread(target=snatch, daemon=True).start()",
        scene.canary.file().display()
    );
    scene.python("planted", &code);
    for _ in 0..200 {
        is_typed(&scene.file("PUT", "planted", "there").body("new").send(), "an upload");
        let there = scene.file("GET", "planted", "there").send();
        is_typed(&there, "what lies there");
        assert!(!there.text().contains(SECRET));
    }
    scene.python("planted", "open('/tmp/stop', 'w').close()");
    scene.others_go_on();
}

#[test]
fn t133_t134_t190_t191_what_code_makes_is_never_decoded_nor_run() {
    let scene = scene();
    // A picture of 50,000 by 50,000 that is nothing but its head; a line of ten million columns; pages with scripts.
    let code = "import struct, zlib\nhead = struct.pack('>IIBBBBB', 50000, 50000, 8, 6, 0, 0, 0)\n\
                png = b'\\x89PNG\\r\\n\\x1a\\n' + struct.pack('>I', 13) + b'IHDR' + head + struct.pack('>I', zlib.crc32(b'IHDR' + head))\n\
                open('bomb.png', 'wb').write(png)\nopen('wide.csv', 'w').write('1,' * 10_000_000)\nopen('deep.json', 'w').write('[' * 1_000_000)\n\
                for name in ('a.html', 'a.svg', 'a.xml', 'a.txt', 'a.csv', 'a.md', 'a.pdf', 'noname'): open(name, 'w').write('<html><script>alert(1)</script>')\n\
                from IPython.display import display, Image, HTML\ndisplay(Image(data=png, format='png'))\ndisplay(HTML('<script>alert(1)</script>'))";
    let before = resident();
    let execution = scene.python("media", code);
    assert!(execution["outputs"].as_array().unwrap().iter().any(|output| output["type"] == "image/png"), "{}", execution["outputs"]);
    let got = scene.tool("media", "GetSessionFile", &json!({"filePath": "bomb.png"})).expect(200).json();
    assert!(got.to_string().contains("iVBORw0KGgo"), "the bytes come along unread");
    // The control: whoever decoded it would need 10 GB. Its head says so.
    let head = scene.file("GET", "media", "bomb.png").send().expect(200).body;
    assert_eq!((&head[12..20], &head[20..24]), (&b"IHDR\0\0\xc3\x50"[..], &b"\0\0\xc3\x50"[..]), "INVALID: 50,000 by 50,000");
    let read = scene.tool("media", "ReadSessionFile", &json!({"filePath": "wide.csv"})).expect(200);
    assert!(read.body.len() < 100_000 && read.json()["incomplete"] == true);
    is_typed(&scene.tool("media", "SearchSessionFiles", &json!({"pattern": "(1,)+$"})), "a search");
    // The control: a document that is one is taken for it, and a short line is told in full.
    assert_eq!(scene.python("media", "print('[1]')")["output"], json!([1]), "INVALID: no output is read");
    scene.python("media", "open('short.csv', 'w').write('1,2\\n')");
    assert_ne!(scene.tool("media", "ReadSessionFile", &json!({"filePath": "short.csv"})).expect(200).json()["incomplete"], true, "INVALID");
    let printed = scene.run("media", "python", "print('[' * 1000000)");
    assert!(printed.get("output").is_none_or(Json::is_null), "what is no document is none");
    let nested = scene.run("media", "python", "print('[' * 100000 + ']' * 100000)");
    assert_eq!(nested["outcome"], "completed");
    for name in ["a.html", "a.svg", "a.xml", "a.txt", "a.csv", "a.md", "a.pdf", "noname", "bomb.png"] {
        let answer = scene.file("GET", "media", name).send().expect(200);
        let headers = ["x-content-type-options", "content-security-policy"].map(|name| answer.header(name));
        assert_eq!(headers, [Some("nosniff"), Some("sandbox; default-src 'none'")], "{name}");
        assert!(answer.header("content-disposition").unwrap().starts_with("attachment;"), "{name}");
    }
    assert!(resident() < before + (256 << 20), "memory: {before}, now {}", resident());
    scene.others_go_on();
}

#[test]
fn t136_files_that_nobody_may_read() {
    let scene = scene();
    scene.python("shut", "import os\nos.mkdir('d')\nfor name in ('f', 'd/f'):\n    open(name, 'w').write('x')\n    os.chmod(name, 0)\nos.chmod('d', 0)");
    let is_root = rustix::process::geteuid().is_root();
    let list = listing(&scene, "shut", "recursive=true");
    assert!(list["files"].as_array().unwrap().len() >= 2 && list["incomplete"] == !is_root, "{list}");
    // Root reads what is its tenant's; an ordinary user is told why it cannot.
    for (method, path, done) in [("GET", "f", 200), ("DELETE", "d", 204)] {
        let answer = scene.file(method, "shut", path).send();
        if is_root { drop(answer.expect(done)) } else { drop(answer.refused(409, "conflict")) }
    }
    // The control: what its owner may read is read, whoever the server is.
    scene.shell("shut", "chmod 644 f");
    assert_eq!(scene.file("GET", "shut", "f").send().expect(200).text(), "x", "INVALID");
    scene.file("DELETE", "shut", "f").send().expect(204);
    scene.ask("DELETE", "/v1/sessions/shut").send().expect(204);
    scene.others_go_on();
}

#[test]
fn t109_t127_readers_that_leave_hold_nothing() {
    let scene = scene_with(|pool| pool.sandboxes.limits.workspace_bytes = 256 << 20);
    scene.python("slow", "open('big', 'wb').write(b'x' * (100 << 20))");
    let before = (descriptors(), resident());
    let held: Vec<_> = (0..32).map(|_| scene.file("GET", "slow", "big").open()).collect();
    for stream in &held {
        assert_eq!(Answer::read_head(&mut BufReader::new(stream)).status, 200);
    }
    assert!(descriptors() >= before.0 + 32, "INVALID: they hold nothing");
    assert!(resident() < before.1 + (128 << 20), "32 readers of 100 MiB take {} bytes", resident() - before.1);
    scene.others_go_on();
    let body = json!({"code": "print(2)"});
    scene.ask_as(ALICE, "POST", "/v1/run").json(&body).send().expect(200);
    drop(held);
    assert!(eventually(|| descriptors() <= before.0 + 4), "descriptors: {}, now {}", before.0, descriptors());
    // The control: whoever stays gets all of it.
    assert_eq!(scene.file("GET", "slow", "big").send().expect(200).body.len(), 100 << 20);
}
