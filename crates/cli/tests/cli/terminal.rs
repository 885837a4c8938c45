//! What reaches a terminal is inert, what reaches a pipe is exact.

use std::process::Command;

use crate::support::{Ended, Running, Scene, binary};

/// Clears the screen, sets the title, fills the clipboard, moves the cursor up; as Python and as bytes.
const HOSTILE: &str = "print('a\\x1b[2J\\x1b]0;title\\x07\\x1b]52;c;eA==\\x07\\x1b[1Ab\\u202ec\\x9bd', end='|')";
const HOSTILE_BYTES: &[u8] = b"a\x1b[2J\x1b]0;title\x07\x1b]52;c;eA==\x07\x1b[1Ab\xe2\x80\xaec\xc2\x9bd|";

/// Runs belljar on a terminal of its own.
fn on_a_terminal(scene: &Scene, arguments: &str) -> Ended {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{} {arguments}", binary().display()), "/dev/null"]);
    scene.dress(&mut command);
    command.env("TERM", "xterm");
    Running::start(command, b"").end()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_pipe_gets_the_exact_bytes() {
    let scene = Scene::new();
    let ended = scene.python(HOSTILE);
    assert_eq!((ended.stdout.as_slice(), ended.code()), (HOSTILE_BYTES, 0));
    let ended = scene.python("import sys\nsys.stdout.buffer.write(bytes(range(256)) * 3 + b'\\xf0\\x9f\\x98')\nsys.stdout.flush()");
    let expected: Vec<u8> = (0..=255).cycle().take(768).chain(*b"\xf0\x9f\x98").collect();
    assert!(ended.stdout.starts_with(&expected), "every byte in its place");
    let ended = scene.call(["run", "--raw", "-"], HOSTILE);
    assert_eq!(ended.stdout, HOSTILE_BYTES);
}

#[test]
fn a_terminal_gets_no_control_sequence_unless_asked_for() {
    let scene = Scene::new();
    scene.write("hostile.py", HOSTILE);
    let shown = on_a_terminal(&scene, "run hostile.py");
    assert_eq!(shown.code(), 0, "{}", shown.text());
    assert!(!contains(&shown.stdout, b"\x1b") && !contains(&shown.stdout, b"\x07") && !contains(&shown.stdout, b"\xc2\x9b"), "{:?}", shown.text());
    assert!(shown.text().contains("a␛[2J␛]0;title␇␛]52;c;eA==␇␛[1Ab<U+202E>c<U+009B>d|"), "{:?}", shown.text());
    let raw = on_a_terminal(&scene, "run --raw hostile.py");
    assert!(contains(&raw.stdout, HOSTILE_BYTES), "{:?}", raw.stdout);
}

#[test]
fn neither_errors_nor_names_of_files_act_on_a_terminal() {
    let scene = Scene::new();
    scene.write("hostile.py", "open('x\\x1b[2J.txt', 'w').write('x')\nimport sys\nprint('\\x1b[2J', file=sys.stderr)\n'\\x1b[2J'\nclass E(Exception): pass\nE.__name__ = '\\x1b[2J'\nraise E('\\x1b]0;t\\x07')");
    let shown = on_a_terminal(&scene, "run hostile.py");
    assert_eq!(shown.code(), 1, "{}", shown.text());
    assert!(shown.text().contains("saved ") && shown.text().contains("belljar: raised"), "{:?}", shown.text());
    assert!(!contains(&shown.stdout, b"\x1b") && !contains(&shown.stdout, b"\x07"), "{:?}", shown.text());
    // To a pipe, too, where the words are belljar's own.
    let ended = scene.call(["run", "hostile.py"], "");
    let ours: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("saved ") || line.starts_with("belljar: ")).collect();
    assert!(ours.len() == 2 && !ours.concat().contains('\x1b'), "{ours:?}");
}

#[test]
fn no_code_on_a_terminal_is_a_mistake_not_a_wait() {
    let scene = Scene::new();
    let shown = on_a_terminal(&scene, "run");
    assert_eq!(shown.code(), 2, "{}", shown.text());
    assert!(shown.text().starts_with("error: there is no code to run\r\nhint: "), "{}", shown.text());
}
