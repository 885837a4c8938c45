//! What init does with a worker that is not our driver at all: a script that speaks the channel as an attacker would, once all of Python's own
//! rules are gone. Nothing it writes may keep init from the host, or from its next worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops where its assumption ends")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::{
    BACKENDS, Backend, Controls, End, Execute, Exit, FromInit, Limits, Sandbox, SpawnOptions, Stream, Template, TemplateId, ToInit, Work, WorkerStart,
};

/// Far above what anything here takes: a test that reaches it has found init deaf.
const PATIENCE: Duration = Duration::from_secs(60);
/// Frames without a payload, as `printf` writes them.
const READY: &str = r"printf '\0\0\0\0\020' >&3";
const DISPLAY: &str = r"printf '\0\0\0\0\021' >&3";
/// Of execution 1.
const DONE: &str = r"printf '\010\0\0\0\024\001\0\0\0\0\0\0\0' >&3";
/// Waits until the next frame has begun; of `setup`, one is there from the start.
const HEAR: &str = "head -c 5 <&3 >/dev/null";

/// A sandbox whose worker is a script of bash.
fn worker(script: &str, process_spawning: bool) -> Box<dyn Sandbox> {
    let (_, start) = BACKENDS[0];
    let backend: Arc<dyn Backend> = start(Controls::default()).unwrap();
    let template = Template { worker: ["/bin/bash", "--norc", "-c", script].map(str::to_owned).to_vec(), ..Template::default() };
    let id: TemplateId = backend.prepare(&template).unwrap();
    let options = SpawnOptions {
        limits: Limits { cpus: 2.0, ..Limits::default() },
        worker: WorkerStart::Exec,
        shell: true,
        process_spawning,
        cpu_total_seconds: None,
        background: false,
    };
    backend.spawn(id, &options).unwrap()
}

/// Sends code, of which the scripts read nothing.
fn execute(sandbox: &mut dyn Sandbox, execution: u64, work: Work) {
    sandbox.remote().send(&ToInit::Execute(Execute { execution, work })).unwrap();
}

fn await_ready(sandbox: &mut dyn Sandbox) {
    while sandbox.receive(Some(Instant::now() + PATIENCE)).unwrap().expect("init is deaf") != FromInit::WorkerReady {}
}

/// How the execution ends, and what it wrote to stdout.
fn end(sandbox: &mut dyn Sandbox, number: u64) -> (End, String) {
    let deadline = Instant::now() + PATIENCE;
    let mut stdout = Vec::new();
    loop {
        match sandbox.receive(Some(deadline)).unwrap().expect("init is deaf") {
            FromInit::Output { stream: Stream::Stdout, bytes, execution } if execution == number => stdout.extend(bytes),
            FromInit::Done { end, execution } if execution == number => return (end, String::from_utf8(stdout).unwrap()),
            _ => {}
        }
    }
}

fn shell(sandbox: &mut dyn Sandbox, execution: u64, command: &str) -> String {
    execute(sandbox, execution, Work::Shell(command.into()));
    let (end, stdout) = end(sandbox, execution);
    assert_eq!(end, End::ShellExited(Exit::Code(0)));
    stdout
}

/// Names of the processes inside but for those that look.
fn processes(sandbox: &mut dyn Sandbox, execution: u64) -> Vec<String> {
    let names = shell(sandbox, execution, "for p in /proc/[0-9]*/comm; do read -r name < $p && echo $name; done 2>/dev/null; true");
    names.lines().filter(|name| !matches!(*name, "belljar-init" | "belljar-guest" | "3" | "bash")).map(str::to_owned).collect()
}

#[test]
fn a_child_that_writes_frames_without_end_does_not_outlive_its_worker() {
    // Displays are taken at any time; the child has the channel when the worker is dead, and writes faster than anybody reads.
    let frames = format!("{DISPLAY}; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 14; do cat frames frames > more; cat more > frames; done");
    let frames = frames.replace(">&3", "> frames");
    let mut sandbox = worker(&format!("{frames}; {READY}; {HEAR}; {HEAR}; (while :; do cat frames frames frames; done >&3) & sleep 0.2; exit 7"), true);
    execute(sandbox.as_mut(), 1, Work::Code(b"{}".to_vec()));
    let (end, _) = end(sandbox.as_mut(), 1);
    assert_eq!(end, End::WorkerExited(Exit::Code(7)));
    assert!(!processes(sandbox.as_mut(), 2).contains(&"cat".to_owned()));
}

#[test]
fn a_worker_that_floods_its_channel_is_killed_as_soon_as_the_host_says_so() {
    for flood in [format!("while :; do {DISPLAY}; done"), r"yes $'\x00' | tr -d '\n' >&3".to_owned()] {
        let mut sandbox = worker(&format!("{READY}; {HEAR}; {HEAR}; {flood}"), true);
        await_ready(sandbox.as_mut());
        execute(sandbox.as_mut(), 1, Work::Code(b"{}".to_vec()));
        sandbox.remote().send(&ToInit::KillExecution).unwrap();
        let (end, _) = end(sandbox.as_mut(), 1);
        assert!(matches!(end, End::WorkerExited(_) | End::WorkerBroken), "{flood}: {end:?}");
        assert_eq!(shell(sandbox.as_mut(), 2, "echo here"), "here\n");
    }
}

#[test]
fn commands_that_a_worker_gives_up_end_with_its_execution() {
    // Each command takes the place of the one before; what they leave behind is in sessions of its own. The last runs when the worker says it is done.
    let command = "setsid sleep 1000 & for i in 1 2 3 4 5 6 7 8; do (setsid sleep 1000 &) & done; wait; sleep 1000";
    let length = u32::try_from(command.len() + 1).unwrap().to_le_bytes().iter().fold(String::new(), |text, byte| format!("{text}\\{byte:03o}"));
    let shell_frame = format!(r#"printf '{length}\025\0' >&3; printf '%s' "{command}" >&3"#);
    let mut sandbox = worker(&format!("{READY}; {HEAR}; {HEAR}; {shell_frame}; sleep 0.3; {shell_frame}; sleep 0.3; {DONE}; while :; do {HEAR}; done"), false);
    execute(sandbox.as_mut(), 1, Work::Code(b"{}".to_vec()));
    assert_eq!(end(sandbox.as_mut(), 1).0, End::Completed);
    let left = processes(sandbox.as_mut(), 2);
    assert!(left.iter().filter(|name| *name == "sleep").count() == 0, "{left:?}");
}

#[test]
fn what_stands_where_it_may_not_breaks_the_worker_and_nothing_else() {
    // Done before anything runs; a second ready; an unknown kind; a length that no frame has.
    for said in [DONE, READY, r"printf '\0\0\0\0\377' >&3", r"printf '\377\377\377\377\021' >&3"] {
        let mut sandbox = worker(&format!("{READY}; {HEAR}; {said}; sleep 1000"), true);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match sandbox.receive(Some(deadline)).unwrap().expect("init is deaf") {
                FromInit::WorkerLost(_) => break,
                FromInit::WorkerReady => {}
                other => panic!("{said}: {other:?}"),
            }
        }
        assert_eq!(shell(sandbox.as_mut(), 1, "echo here"), "here\n");
    }
}

#[test]
fn an_end_of_another_execution_is_not_taken_for_this_one() {
    // As code that forges its end does it: it says `done`, goes on, and the driver says it once more, when the next one runs.
    let mut sandbox = worker(&format!("{READY}; {HEAR}; {HEAR}; {DONE}; sleep 0.5; {DONE}; sleep 1000"), true);
    await_ready(sandbox.as_mut());
    execute(sandbox.as_mut(), 1, Work::Code(b"{}".to_vec()));
    assert_eq!(end(sandbox.as_mut(), 1).0, End::Completed);
    execute(sandbox.as_mut(), 2, Work::Code(b"{}".to_vec()));
    assert_eq!(end(sandbox.as_mut(), 2).0, End::WorkerBroken);
}
