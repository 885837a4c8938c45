//! Input that is wrong: one line that names the object, one that says what to do, the right exit code, and nothing left behind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{Ended, Running, Scene, binary, is_root};

/// It was refused: nothing on stdout, `error: …` with all of `names`, then `hint: …`, and nothing else.
fn refused(ended: &Ended, code: i32, names: &[&str]) {
    assert_eq!((ended.code(), ended.text().as_str()), (code, ""), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "an error and a hint: {}", ended.stderr);
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{}", ended.stderr);
    assert!(lines[1].len() > 12 && !lines[0].ends_with('.'), "house style: {}", ended.stderr);
    for name in names {
        assert!(lines[0].contains(name), "`{name}` is named: {}", ended.stderr);
    }
}

/// As [`refused`], with nothing made in the scene.
fn refused_here(scene: &Scene, arguments: &[&str], input: impl AsRef<[u8]>, names: &[&str]) {
    let before = scene.files();
    refused(&scene.call(arguments.iter().copied(), input), 2, names);
    assert_eq!(scene.files(), before, "nothing is left behind by {arguments:?}");
}

#[test]
fn code_that_cannot_be_read_is_named() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("folder.py")).unwrap();
    refused_here(&scene, &["run", "missing.py"], "", &["`missing.py`", "does not exist"]);
    refused_here(&scene, &["run", "no/such/folder.py"], "", &["`no/such/folder.py`", "does not exist"]);
    refused_here(&scene, &["run", "folder.py"], "", &["`folder.py`", "folder"]);
}

#[test]
fn code_that_is_no_code_is_named() {
    let scene = Scene::new();
    let cases: [(&str, &[u8], &str); 5] = [
        ("latin1.py", b"print('\xe9')\n", "UTF-8"),
        ("empty.py", b"", "empty"),
        ("blank.py", b" \n\t\n", "empty"),
        ("nul.py", b"print(1)\0\n", "NUL"),
        ("utf16.py", b"\xff\xfep\0r\0", "UTF-8"),
    ];
    for (name, content, reason) in cases {
        scene.write(name, content);
        refused_here(&scene, &["run", name], "", &[&format!("`{name}`"), reason]);
        refused_here(&scene, &["run", "-"], content, &["`standard input`", reason]);
    }
    scene.write("nul.sh", b"echo \0\n");
    refused_here(&scene, &["run", "nul.sh"], "", &["`nul.sh`", "NUL"]);
}

#[test]
fn code_may_have_a_mebibyte_and_no_byte_more() {
    let scene = Scene::new();
    let mut code = b"print('ran')\n".to_vec();
    code.resize(1024 * 1024, b'#');
    scene.call(["run", "-"], &code).prints("ran\n");
    code.push(b'#');
    scene.write("long.py", &code);
    refused_here(&scene, &["run", "long.py"], "", &["`long.py`", "1048576 bytes"]);
    refused_here(&scene, &["run", "-"], &code, &["`standard input`", "1048576 bytes"]);
}

#[test]
fn files_that_cannot_be_passed_are_named() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("folder")).unwrap();
    scene.write("a/same.csv", "1");
    scene.write("b/same.csv", "2");
    refused_here(&scene, &["run", "-", "--file", "missing.csv"], "1", &["`missing.csv`", "does not exist"]);
    refused_here(&scene, &["run", "-", "--file", "folder"], "1", &["`folder`", "folder"]);
    refused_here(&scene, &["run", "-", "--file", "a/same.csv", "--file", "b/same.csv"], "1", &["`same.csv`"]);
    refused_here(&scene, &["run", "-", "--file", "a/same.csv", "--file", "a/same.csv"], "1", &["`same.csv`"]);
    refused_here(&scene, &["run", "-", "--file", ".."], "1", &["`..`"]);
}

#[test]
fn a_file_without_permission_is_named() {
    let scene = Scene::new();
    let path = scene.write("private.py", "print('read')");
    std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    if is_root() {
        // Nothing is unreadable to root.
        scene.call(["run", "private.py"], "").prints("read\n");
        scene.call(["run", "-", "--file", "private.py"], "print(open('private.py').read())").prints("print('read')\n");
        return;
    }
    refused_here(&scene, &["run", "private.py"], "", &["`private.py`", "ermission"]);
    refused_here(&scene, &["run", "-", "--file", "private.py"], "1", &["`private.py`", "ermission"]);
    refused_here(&scene, &["run", "/root/secret.py"], "", &["`/root/secret.py`"]);
}

#[test]
fn a_file_that_does_not_fit_is_named() {
    let scene = Scene::limited("workspace_bytes = 1048576\nworkspace_inodes = 8");
    scene.write("large.bin", vec![1; 2 * 1024 * 1024]);
    refused_here(&scene, &["run", "-", "--file", "large.bin"], "1", &["`large.bin`", "does not fit"]);
    let names: Vec<String> = (0..20).map(|number| format!("small-{number}")).collect();
    let mut arguments = vec!["run", "-"];
    for name in &names {
        scene.write(name, "x");
        arguments.extend(["--file", name]);
    }
    refused_here(&scene, &arguments, "1", &["does not fit"]);
}

#[test]
fn inputs_that_are_not_json_are_named() {
    let scene = Scene::new();
    refused_here(&scene, &["run", "-", "--input", "justakey"], "1", &["`justakey`", "KEY=JSON"]);
    refused_here(&scene, &["run", "-", "--input", "=1"], "1", &["`=1`", "KEY=JSON"]);
    refused_here(&scene, &["run", "-", "--input", "a=text"], "1", &["`a`", "JSON"]);
    refused_here(&scene, &["run", "-", "--input", "a="], "1", &["`a`", "JSON"]);
    refused_here(&scene, &["run", "-", "--input", "a=NaN"], "1", &["`a`", "JSON"]);
    refused_here(&scene, &["run", "-", "--input", "a=1 2"], "1", &["`a`", "JSON"]);
    refused_here(&scene, &["run", "-", "--input", "a=1", "--input", "a=2"], "1", &["`a`", "twice"]);
}

#[test]
fn an_unknown_environment_is_named() {
    let scene = Scene::new();
    refused_here(&scene, &["run", "-", "--env", "nothere"], "1", &["`nothere`"]);
    refused_here(&scene, &["run", "-", "--env", "../etc"], "1", &["`../etc`"]);
    refused_here(&scene, &["run", "-", "--env", ""], "1", &["``"]);
}

#[test]
fn flags_that_are_wrong_are_named_with_the_usage() {
    let scene = Scene::new();
    let cases: [(&[&str], &str); 8] = [
        (&["run", "-", "--timeout", "0"], "'0' for '--timeout <SECONDS>'"),
        (&["run", "-", "--timeout", "901"], "'901' for '--timeout <SECONDS>'"),
        (&["run", "-", "--timeout", "abc"], "'abc' for '--timeout <SECONDS>'"),
        (&["run", "-", "--timeout", "-1"], "'-1'"),
        (&["run", "-", "--language", "cobol"], "'cobol' for '--language <LANGUAGE>'"),
        (&["run", "-", "--nonsense"], "'--nonsense'"),
        (&["run", "one.py", "two.py"], "'two.py'"),
        (&["frobnicate"], "'frobnicate'"),
    ];
    for (arguments, name) in cases {
        let ended = scene.call(arguments, "1");
        assert_eq!((ended.code(), ended.text().as_str()), (2, ""), "{arguments:?}");
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.lines().next().unwrap().contains(name), "{name} is named: {}", ended.stderr);
        assert!(ended.stderr.contains("--help"), "it says where to look: {}", ended.stderr);
    }
    assert_eq!(scene.files(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn help_and_version_are_data_and_no_command_is_a_mistake() {
    let scene = Scene::new();
    for arguments in [&["--help"][..], &["help"], &["run", "--help"], &["env", "--help"], &["-h"]] {
        let ended = scene.call(arguments, "");
        assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(ended.text().contains("Usage: belljar"), "{}", ended.text());
    }
    assert!(scene.call(["run", "--help"], "").text().contains("Exit codes: 0 done, 1 the execution failed, 2 usage"), "help tells the exit codes");
    scene.call(["--version"], "").prints(&format!("belljar {}\n", env!("CARGO_PKG_VERSION")));
    let ended = scene.call([] as [&str; 0], "");
    assert_eq!((ended.code(), ended.text().as_str()), (2, ""), "no command");
    assert!(ended.stderr.contains("Usage: belljar"), "{}", ended.stderr);
    assert_eq!(scene.files(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn a_configuration_that_is_wrong_is_named_with_its_line() {
    let scene = Scene::new();
    let cases = [
        ("unknown.toml", "environment = \"core\"\ncolour = \"red\"\n", "`colour`"),
        ("limit.toml", "[limits]\nmemory = 5\n", "`memory`"),
        ("type.toml", "[limits]\nprocesses = \"many\"\n", "string \"many\""),
        ("syntax.toml", "environment = core\n", "line 1"),
        ("range.toml", "[limits]\nwall_seconds = 901\n", "`wall_seconds`"),
        ("zero.toml", "[limits]\nprocesses = 0\n", "`processes`"),
        ("require.toml", "require = [\"magic\"]\n", "`magic`"),
    ];
    for (name, content, object) in cases {
        scene.write(name, content);
        refused_here(&scene, &["--config", name, "run", "-"], "1", &[object]);
        refused_here(&scene, &["--config", name, "config", "check"], "", &[object]);
    }
    refused_here(&scene, &["run", "-", "--config", "missing.toml"], "1", &["`missing.toml`"]);
}

#[test]
fn an_output_folder_that_cannot_be_is_named_before_code_runs() {
    let scene = Scene::new();
    scene.write("file", "");
    let code = "print('ran'); open('x', 'w').write('x')";
    refused_here(&scene, &["run", "-", "--out", "file"], code, &["`file`"]);
    refused_here(&scene, &["run", "-", "--out", "file/below"], code, &["`file/below`"]);
    refused(&scene.call(["run", "-", "--out", "/proc/belljar-out"], code), if is_root() { 4 } else { 2 }, &["`/proc/belljar-out`"]);
    if !is_root() {
        let folder = scene.path("readonly");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
        refused_here(&scene, &["run", "-", "--out", "readonly"], code, &["`readonly`", "ermission"]);
        refused_here(&scene, &["run", "-", "--out", "readonly/new"], code, &["`readonly/new`", "ermission"]);
    }
    assert_eq!(scene.files().iter().filter(|name| name.contains("out")).count(), 0, "{:?}", scene.files());
}

/// The tests' own mount: a private namespace with a file system of 64 KiB on `disk`, then belljar with the rest of the arguments.
const ON_A_SMALL_DISK: &str = "mount -t tmpfs -o size=64k tmpfs disk && shift && \"$@\"; code=$?; ls -A disk; exit $code";

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("disk")).unwrap();
    let on_disk = |code: &str| {
        let mut command = Command::new("unshare");
        command.args(if is_root() { &["-m"][..] } else { &["-Urm"] });
        command.args(["sh", "-c", ON_A_SMALL_DISK, "sh", "-"]).arg(binary()).args(["run", "-", "--out", "disk/new/out"]);
        scene.dress(&mut command);
        Running::start(command, code.as_bytes()).end()
    };
    let ended = on_disk("open('small', 'w').write('x'); open('large', 'wb').write(bytes(1_000_000));");
    refused(&ended, 4, &["disk/new/out"]);
    let ended = on_disk("open('small', 'w').write('x');");
    assert_eq!((ended.code(), ended.text().as_str()), (0, "new\n"), "the control fits: {}", ended.stderr);
}
