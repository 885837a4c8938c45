//! The namespace backend on its own: a sandbox without an environment, and what a shell command in it can do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test stops where its assumption ends")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::{
    BACKENDS, Backend, Controls, End, Execute, Exit, FromInit, Limits, Sandbox, SpawnOptions, Stream, Template, TemplateId, ToInit, Work, WorkerStart,
};

fn backend(controls: Controls) -> (Arc<dyn Backend>, TemplateId) {
    let (_, start) = BACKENDS[0];
    let backend = start(controls).unwrap();
    let template = backend.prepare(&Template::default()).unwrap();
    (backend, template)
}

fn options(limits: Limits) -> SpawnOptions {
    SpawnOptions { limits, worker: WorkerStart::None, shell: true, process_spawning: false, cpu_total_seconds: None, background: false }
}

/// Runs a command and gives (stdout, stderr, end).
fn shell(sandbox: &mut dyn Sandbox, command: &str) -> (String, String, End) {
    sandbox.remote().send(&ToInit::Execute(Execute { execution: 1, work: Work::Shell(command.into()) })).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match sandbox.receive(Some(deadline)).unwrap().expect("in time") {
            FromInit::Output { stream: Stream::Stdout, bytes, .. } => stdout.extend(bytes),
            FromInit::Output { stream: Stream::Stderr, bytes, .. } => stderr.extend(bytes),
            FromInit::Done { end, .. } => return (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), end),
            _ => {}
        }
    }
}

#[test]
fn a_command_runs_and_its_end_is_told() {
    let (backend, template) = backend(Controls::default());
    let mut sandbox = backend.spawn(template, &options(Limits::default())).unwrap();
    let (stdout, stderr, end) = shell(sandbox.as_mut(), "echo out; echo err >&2; pwd; id -u; hostname; exit 3");
    assert_eq!((stdout.as_str(), stderr.as_str(), end), ("out\n/mnt/data\n1000\nsandbox\n", "err\n", End::ShellExited(Exit::Code(3))));
    let (stdout, _, end) = shell(sandbox.as_mut(), "echo again > file; cat file; kill -TERM $$");
    assert_eq!((stdout.as_str(), end), ("again\n", End::ShellExited(Exit::Signal(15))));
    // The kernel's call for this is another one than for a name that is free.
    let (stdout, stderr, _) = shell(sandbox.as_mut(), "echo new > other; mv other file; cat file");
    assert_eq!((stdout.as_str(), stderr.as_str()), ("new\n", ""));
    sandbox.kill();
    assert_eq!(sandbox.wait(Duration::from_secs(5)), Some(Exit::Signal(9)));
}
