//! Killed at any moment: whatever was acknowledged is there, nothing stands there twice, and the store opens.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use store::{Event, EventKind, Filter, MAX_LIMIT, Options, Recorded, Store};

/// Names the data folder to the process that is going to be killed.
const VICTIM: &str = "BELLJAR_STORE_VICTIM";
const KILLS: usize = 40;
const THREADS: usize = 4;

/// Appends for ever, and says so each time that something is acknowledged.
fn victim(data: &Path, round: &str) {
    let store = Store::open(data, Options::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for turn in 0.. {
                    let execution = format!("exe_{round}_{thread}_{turn}");
                    let event =
                        Event { execution: Some(execution.clone()), ..Event::new(EventKind::ExecutionIntended).with("padding", "x".repeat(turn % 3000)) };
                    let seq = store.append(event).unwrap();
                    println!("acknowledged {seq} {execution}");
                    if turn % 3 == 0 {
                        store.enqueue(Event { execution: Some(execution), ..Event::new(EventKind::ExecutionConcluded) }).unwrap();
                    }
                }
            });
        }
    });
}

/// Starts a victim, kills it after so many acknowledgements, and gives all that it could still say.
fn kill(data: &Path, round: usize, after: usize) -> Vec<(i64, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::whatever_was_acknowledged_outlives_a_kill", "--nocapture", "--test-threads=1"])
        .env(VICTIM, format!("{round}={}", data.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
        let line = String::from_utf8(line.unwrap()).unwrap();
        // The last line may have been cut by the kill; lines of the test's own harness are none of ours.
        if let [.., "acknowledged", seq, execution] = line.split(' ').collect::<Vec<_>>().as_slice()
            && execution.starts_with("exe_")
        {
            acknowledged.push((seq.parse().unwrap(), (*execution).to_owned()));
        }
        if acknowledged.len() == after {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success() && acknowledged.len() >= after, "{status}, {} acknowledged", acknowledged.len());
    if acknowledged.len() > after {
        acknowledged.pop();
    }
    acknowledged
}

fn all(store: &Store) -> Vec<Recorded> {
    let mut all: Vec<Recorded> = Vec::new();
    loop {
        let page = store.query(&Filter { after_seq: all.last().map(|event| event.seq), ..Filter::default() }).unwrap();
        let over = page.len() < MAX_LIMIT;
        all.extend(page);
        if over {
            return all;
        }
    }
}

#[test]
fn whatever_was_acknowledged_outlives_a_kill() {
    if let Some(place) = std::env::var_os(VICTIM) {
        let place = place.into_string().unwrap();
        let (round, data) = place.split_once('=').unwrap();
        return victim(&PathBuf::from(data), round);
    }
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..KILLS {
        let mut random = [0];
        getrandom::fill(&mut random).unwrap();
        acknowledged.extend(kill(home.path(), round, 1 + usize::from(random[0])));
        let store = Store::open(home.path(), Options::default()).unwrap();
        let events = all(&store);
        assert!(events.iter().map(|event| event.seq).eq(1..=i64::try_from(events.len()).unwrap()), "round {round}: no gap");
        let by_seq: HashMap<i64, &Recorded> = events.iter().map(|event| (event.seq, event)).collect();
        for (seq, execution) in &acknowledged {
            let event = by_seq.get(seq).unwrap_or_else(|| panic!("round {round}: {execution} was acknowledged as {seq} and is gone"));
            assert_eq!((event.kind.as_str(), event.execution.as_deref()), ("execution_intended", Some(execution.as_str())));
        }
        let count = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
        assert_eq!(count("execution_intended"), count("execution_concluded"), "round {round}: each is concluded, once");
    }
    let _ = writeln!(std::io::stderr(), "{} events acknowledged before {KILLS} kills", acknowledged.len());
}
