//! Many sessions that misbehave at the same time (T118), each in one of the ways of T100 to T107, scaled down.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::sync::Mutex;
use std::time::Duration;

use engine::{Language, Limits};

use crate::harness::Engines;
use crate::judge::Verdict;
use crate::report::{Row, is_full, suite_row};
use crate::used::Neighbour;

const MEBIBYTE: u64 = 1 << 20;
/// How long each goes on at most, in seconds.
const SECONDS: u64 = 10;

/// What they do.
const DEEDS: &[(Language, &str)] = &[
    (Language::Shell, ":(){ :|:& };: ; wait"),
    (Language::Python, "import threading\ngate = threading.Event()\nwhile True: threading.Thread(target=gate.wait, daemon=True).start()"),
    (Language::Python, "kept = []\nwhile True: kept.append(bytearray(4 << 20))"),
    (
        Language::Python,
        "import socket\nkept = []\nwhile True:\n    kept.append(socket.socketpair())\n    kept[-1][0].setblocking(False)\n    try:\n        while True: kept[-1][0].send(b'x' * 4096)\n    except BlockingIOError: pass",
    ),
    (Language::Shell, "for place in /mnt/data /tmp /dev/shm; do cat /dev/zero > $place/fill; done; false"),
    (Language::Python, "number = 0\nwhile True:\n    open(f'/mnt/data/{number}', 'w').close()\n    number += 1"),
    (Language::Python, "import os\nkept = []\nwhile True: kept.append(os.open('/dev/null', 0))"),
    (Language::Shell, "yes"),
    (Language::Python, "while True: pass"),
];

/// Suites that run side by side have their crowds one after the other: a host has memory for one. `None` where no lock can be had.
fn turn() -> Option<File> {
    let path = std::env::temp_dir().join("belljar-containment-crowd.lock");
    // Whoever comes second may only read what the first one made, which is enough.
    let file = File::open(&path).or_else(|_| OpenOptions::new().write(true).create_new(true).open(&path)).or_else(|_| File::open(&path)).ok()?;
    file.lock().ok()?;
    Some(file)
}

/// All at once; the second session goes on, and each of them comes to an end of its own.
pub(crate) fn row(engines: &Engines, neighbour: &Neighbour) -> Row {
    let count = if is_full() { 200 } else { 16 };
    let limits = Limits {
        wall_seconds: SECONDS,
        cpu_seconds: SECONDS,
        memory_bytes: 96 * MEBIBYTE,
        processes: 32,
        open_files: 128,
        workspace_bytes: 4 * MEBIBYTE,
        workspace_inodes: 1000,
        tmp_bytes: 4 * MEBIBYTE,
        output_bytes: MEBIBYTE,
        ..Limits::default()
    };
    let _turn = turn();
    let (ends, problems) = (Mutex::new(BTreeMap::<String, u32>::new()), Mutex::new(Vec::new()));
    let visits = engines.visits();
    std::thread::scope(|scope| {
        for (language, code) in DEEDS.iter().cycle().take(count) {
            let (ends, problems, limits) = (&ends, &problems, &limits);
            scope.spawn(move || {
                let came = visits.open("mallory", "forked", limits).map_err(|error| error.to_string()).and_then(|visit| {
                    let came = visit.run(*language, code, Duration::from_secs(SECONDS)).map_err(|error| error.to_string());
                    visit.goes_on().and(came)
                });
                match came {
                    Ok(execution) => *ends.lock().expect("ends").entry(execution.outcome.to_string()).or_default() += 1,
                    Err(problem) => problems.lock().expect("problems").push(format!("{code:.20}: {problem}")),
                }
            });
        }
    });
    let mut problems = problems.into_inner().expect("problems");
    problems.extend(neighbour.went_on().err());
    let verdict = if problems.is_empty() { Verdict::Holds } else { Verdict::NotHeld(problems.join("; ")) };
    println!("{count} sessions at once ended like this: {:?}", ends.into_inner().expect("ends"));
    Row { number: "T118".to_owned(), title: format!("{count} sessions that misbehave at once"), way: "forked", ..suite_row("T118", verdict) }
}
