//! What is tied to its parent goes with it, however that ends.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption ends")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A shell that starts this, tells its process id, and waits; killed. Gives that id.
fn left_by_a_killed_shell(start: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{start} & echo $!; wait"), "sh", env!("CARGO_BIN_EXE_xtask")]).stdout(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = line.trim().to_owned();
    until(|| name(&child).is_some_and(|name| name == "sleep"));
    shell.kill().unwrap();
    shell.wait().unwrap();
    child
}

/// The name of a process that has not ended.
fn name(process: &str) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process).join("stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    (!rest.starts_with(" Z")).then(|| name.to_owned())
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < patience, "it does not come to be so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_parent_takes_it_along() {
    // The control: what is not tied lives on.
    let free = left_by_a_killed_shell("sleep 1000");
    std::thread::sleep(Duration::from_millis(200));
    assert!(name(&free).is_some(), "INVALID: it ended by itself");
    assert!(Command::new("kill").arg(&free).status().unwrap().success());
    let tied = left_by_a_killed_shell("\"$1\" tied $$ sleep 1000");
    until(|| name(&tied).is_none());
}

#[test]
fn a_parent_that_has_ended_already_starts_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["tied", "1", "echo", "started"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}
