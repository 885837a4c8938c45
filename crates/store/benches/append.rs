//! What putting an event on record takes, until it is durable: by durability and number of callers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends at the first error, and prints what it saw")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use store::{Durability, Event, EventKind, Options, Store};

/// Events of one row.
const EVENTS: usize = 4000;

fn main() {
    // On the disk that is asked for, since some folders for temporary files are memory.
    let base: PathBuf = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')).map_or_else(std::env::temp_dir, Into::into);
    println!("durability  callers       p50       p99       max   events/s");
    let mut alone = disk(&base);
    row("disk alone", 1, &mut alone, None);
    for durability in [Durability::Full, Durability::Normal] {
        for callers in [1, 8, 32] {
            let home = tempfile::tempdir_in(&base).unwrap();
            let store = Store::open(home.path(), Options { durability }).unwrap();
            let clock = Instant::now();
            let mut times = append(&store, callers);
            let rate = times.len() as f64 / clock.elapsed().as_secs_f64();
            row(&format!("{durability:?}"), callers, &mut times, Some(rate));
        }
    }
}

fn row(name: &str, callers: usize, times: &mut [Duration], rate: Option<f64>) {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() - 1) * share / 100).copied().unwrap_or_default().as_micros();
    let rate = rate.map_or_else(String::new, |rate| format!("{rate:.0}"));
    println!("{name:<10}  {callers:>7}  {:>6}µs  {:>6}µs  {:>6}µs  {rate:>9}", at(50), at(99), at(100));
}

/// What the disk itself takes for as much as one event writes: a reference from the same run.
fn disk(base: &Path) -> Vec<Duration> {
    let mut file = tempfile::tempfile_in(base).unwrap();
    let one = |_| {
        let clock = Instant::now();
        file.write_all(&[7; 20 * 1024]).and_then(|()| file.sync_data()).unwrap();
        clock.elapsed()
    };
    (0..EVENTS / 10).map(one).collect()
}

/// Appends events from so many threads, and gives how long each took.
fn append(store: &Store, callers: usize) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                scope.spawn(move || {
                    let one = |turn: usize| {
                        let event = Event::new(EventKind::ExecutionIntended).by("k3y").with("code_bytes", 120).with("code_sha256", "0".repeat(64));
                        let clock = Instant::now();
                        store.append(Event { execution: Some(format!("exe_{caller}_{turn}")), ..event }).unwrap();
                        clock.elapsed()
                    };
                    (0..EVENTS / callers).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
