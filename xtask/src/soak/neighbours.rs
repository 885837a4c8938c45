//! Neighbours of hostile code: what `print(1)` in a quiet session and the server itself take while another session does its worst, and while
//! two hundred do.
//!
//! Times are told, never judged: what is a problem is a call that fails, a session that is lost, and a server that grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::served::{self, Client, Server};
use crate::ci::say;

/// Sessions that misbehave at once, after those that do so alone.
const CROWD: usize = 200;
/// Between two calls of who measures.
const PAUSE: Duration = Duration::from_millis(3);
/// Before who measures begins, the other one has begun.
const BEGUN: Duration = Duration::from_millis(500);
/// Of a program that runs classes of stressors, where the host has it. Left out: `security`, of which nothing runs without rights, and stressors of
/// semaphores that sandboxes do not have, for which the whole program ends.
const STRESS: &str = "/usr/bin/stress-ng";
const CLASSES: &[&str] = &["cpu", "cpu-cache", "device", "filesystem", "interrupt", "io", "memory", "network", "os", "pipe", "scheduler", "vm"];
/// What the server may keep when all of them have ended: its threads', and its allocator's.
const SLACK_KIB: u64 = 64 * 1024;
/// How long it may take until then.
const SETTLE: Duration = Duration::from_secs(30);
/// The neighbour's session.
const QUIET: &str = "quiet";
/// Its pool, that of the others, and that of the crowd, whose limits let two hundred be at once.
const POOLS: &str = "[pools.default]\nready = 2\nmax_sessions = 8\nallocation_wait_seconds = 30\n\
     [pools.spawning]\nready = 1\nmax_sessions = 8\nprocess_spawning = \"allow\"\nallocation_wait_seconds = 30\n\
     [pools.crowd]\nready = 8\nmax_sessions = 220\nallocation_wait_seconds = 60\nlimits.memory_bytes = 67108864\nlimits.workspace_bytes = 4194304\n\
     limits.tmp_bytes = 4194304\nlimits.processes = 32\nlimits.workspace_inodes = 1000\nlimits.open_files = 256\n";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    deed: Vec<Deed>,
}

/// What a session does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deed {
    number: String,
    title: String,
    #[serde(default = "python")]
    language: String,
    #[serde(default = "default")]
    pool: String,
    /// Whether its session ends with the code each time.
    #[serde(default)]
    ends_session: bool,
    code: String,
}

fn python() -> String {
    "python".to_owned()
}

fn default() -> String {
    "default".to_owned()
}

/// Those of the table, and the classes of stressors where they are to be had.
fn deeds() -> anyhow::Result<Vec<Deed>> {
    let mut deeds = toml::from_str::<Table>(include_str!("neighbours.toml")).context("neighbours.toml")?.deed;
    if Path::new(STRESS).is_file() {
        deeds.extend(CLASSES.iter().map(|class| Deed {
            number: "stress-ng".to_owned(),
            title: format!("class {class}"),
            language: "shell".to_owned(),
            pool: default(),
            ends_session: false,
            code: format!("cd /tmp && {STRESS} --class {class} --all 1 --exclude sem-sysv --timeout 30 --temp-path /tmp >/dev/null 2>&1"),
        }));
    }
    Ok(deeds)
}

/// Milliseconds, sorted.
#[derive(Debug, Clone, Default)]
struct Times(Vec<f64>);

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// The one that so many of a thousand are below.
    fn at(&self, thousandth: usize) -> f64 {
        let index = self.0.len().saturating_sub(1) * thousandth / 1000;
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }
}

/// What calls took.
#[derive(Debug, Clone, Default)]
struct Measured {
    prints: Times,
    health: Times,
}

/// One line of what is told.
#[derive(Debug)]
struct Line {
    what: String,
    quiet: Measured,
    beside: Measured,
    ends: BTreeMap<String, u64>,
    grown_kib: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    lines: Vec<Line>,
    sizes: Vec<(u64, usize)>,
    pub(super) problems: Vec<String>,
}

impl Neighbours {
    /// A table.
    pub(super) fn text(&self) -> String {
        let mut text = String::from(
            "| beside | `print(1)`: median, p99 (ms) | quiet: median, p99 (ms) | p99, times quiet | health: p99 (ms) | the server has grown by (MiB) | ended |\n|---|---|---|---|---|---|---|\n",
        );
        for line in &self.lines {
            let Line { what, quiet, beside, ends, grown_kib } = line;
            let ends: Vec<_> = ends.iter().map(|(end, count)| format!("{count} × {end}")).collect();
            let (now, before) = (&beside.prints, &quiet.prints);
            text += &format!(
                "| {what} | {:.1}, {:.1} | {:.1}, {:.1} | {:.1} | {:.1} | {} | {} |\n",
                now.at(500),
                now.at(990),
                before.at(500),
                before.at(990),
                now.at(990) / before.at(990),
                beside.health.at(990),
                grown_kib / 1024,
                ends.join(", ")
            );
        }
        let sizes: Vec<_> = self.sizes.iter().map(|(kib, descriptors)| format!("{kib} KiB and {descriptors} descriptors")).collect();
        text + &format!("the server: {}", sizes.join(", then "))
    }
}

/// All of it: each deed for so many seconds, and the crowd for three times as many.
pub(super) fn run(belljar: &Path, data: &Path, seconds: u64, only: Option<&str>) -> anyhow::Result<Neighbours> {
    let server = Server::start_with(POOLS, belljar, data)?;
    let mut told = Neighbours::default();
    let client = Client::new(&server.url);
    keep_quiet(&client)?;
    std::thread::sleep(Duration::from_secs(2));
    told.sizes.push(server.size());
    let time = Duration::from_secs(seconds);
    let deeds: Vec<_> = deeds()?.into_iter().filter(|deed| only.is_none_or(|only| deed.title.contains(only) || deed.number == only)).collect();
    for deed in &deeds {
        let line = alone(&server, &client, deed, time, &mut told.problems)?;
        say(&format!("{}: p99 {:.1} ms beside, {:.1} quiet", line.what, line.beside.prints.at(990), line.quiet.prints.at(990)));
        told.lines.push(line);
    }
    told.sizes.push(server.size());
    if only.is_none_or(|only| only == "T118") {
        let line = crowd(&server, &client, time * 3, &mut told.problems)?;
        told.lines.push(line);
    }
    let outcome = client.execute(QUIET, &json!({"code": "assert kept == 42"}))?;
    if outcome != "completed" {
        told.problems.push(format!("neighbours: the neighbour has lost its state: {outcome}"));
    }
    let (first_kib, first) = told.sizes.first().copied().unwrap_or_default();
    let deadline = Instant::now() + SETTLE;
    let (kib, descriptors) = loop {
        std::thread::sleep(Duration::from_millis(500));
        let (kib, descriptors) = server.size();
        if (kib <= first_kib + SLACK_KIB && descriptors <= first + 16) || Instant::now() > deadline {
            break (kib, descriptors);
        }
    };
    told.sizes.push((kib, descriptors));
    if kib > first_kib + SLACK_KIB || descriptors > first + 16 {
        told.problems.push(format!("neighbours: the server had {first_kib} KiB and {first} descriptors, and keeps {kib} KiB and {descriptors}"));
    }
    let (_, left) = served::end(server)?;
    told.problems.extend(left.into_iter().map(|what| format!("neighbours: `{what}` is left of a server that has ended")));
    Ok(told)
}

/// Begins the neighbour's session, which stays until the end.
fn keep_quiet(client: &Client) -> anyhow::Result<()> {
    let outcome = client.execute(QUIET, &json!({"code": "kept = 42"}))?;
    ensure!(outcome == "completed", "the neighbour's session does not begin: {outcome}");
    Ok(())
}

/// Calls for a time, as somebody with a session and somebody who looks after the server would.
fn measure(client: &Client, time: Duration, problems: &mut Vec<String>) -> Measured {
    let (mut prints, mut health) = (Vec::new(), Vec::new());
    let clock = Instant::now();
    let body = json!({"code": "print(1)"});
    while clock.elapsed() < time {
        let start = Instant::now();
        match client.execute(QUIET, &body).as_deref() {
            Ok("completed") => prints.push(start.elapsed().as_secs_f64() * 1000.0),
            other => problems.push(format!("neighbours: `print(1)` came to {other:?}")),
        }
        let start = Instant::now();
        match client.get("/healthz") {
            Ok(_) => health.push(start.elapsed().as_secs_f64() * 1000.0),
            Err(error) => problems.push(format!("neighbours: no health: {error:#}")),
        }
        std::thread::sleep(PAUSE);
    }
    Measured { prints: Times::of(prints), health: Times::of(health) }
}

/// Does it again and again until it is stopped, in one session after the other where they end.
fn misbehave(client: &Client, deed: &Deed, id: &str, stop: &AtomicBool, ends: &Mutex<BTreeMap<String, u64>>) {
    let body = json!({"code": deed.code, "language": deed.language, "timeoutSeconds": 50});
    while !stop.load(Ordering::Relaxed) {
        let end = match client.post(&format!("/v1/sessions/{id}/executions?pool={}", deed.pool), &body) {
            Ok((200, answer)) => answer.get("outcome").and_then(Json::as_str).unwrap_or("nothing").to_owned(),
            Ok((status, answer)) => format!("{status} {}", answer.pointer("/error/code").and_then(Json::as_str).unwrap_or_default()),
            Err(error) => format!("{error:#}"),
        };
        if !stop.load(Ordering::Relaxed) {
            *ends.lock().unwrap_or_else(PoisonError::into_inner).entry(end).or_default() += 1;
        }
        if deed.ends_session {
            let _ = client.delete_in(&deed.pool, id);
        }
    }
}

/// One of them beside the neighbour.
fn alone(server: &Server, client: &Client, deed: &Deed, time: Duration, problems: &mut Vec<String>) -> anyhow::Result<Line> {
    let quiet = measure(client, time / 2, problems);
    let (before, _) = server.size();
    let (stop, ends) = (AtomicBool::new(false), Mutex::default());
    let mut most = before;
    let beside = std::thread::scope(|scope| -> anyhow::Result<Measured> {
        let hostile = scope.spawn(|| misbehave(&Client::new(&server.url), deed, "hostile", &stop, &ends));
        std::thread::sleep(BEGUN);
        let beside = measure(client, time, problems);
        most = most.max(server.size().0);
        stop.store(true, Ordering::Relaxed);
        // Whoever waits for what runs is answered; it may have been about to begin once more.
        while !hostile.is_finished() {
            client.delete_in(&deed.pool, "hostile")?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(beside)
    })?;
    client.delete_in(&deed.pool, "hostile")?;
    let grown_kib = most.saturating_sub(before);
    let ends = ends.into_inner().unwrap_or_else(PoisonError::into_inner);
    if deed.code.contains(STRESS) && ends.values().sum::<u64>() > 2 * time.as_secs() {
        problems.push(format!("neighbours: INVALID: `{}` ends by itself at once: {ends:?}", deed.title));
    }
    let what = format!("{}: {}", deed.number, deed.title);
    Ok(Line { what, quiet, beside, ends, grown_kib })
}

/// Many at once, each in a session of its own.
fn crowd(server: &Server, client: &Client, time: Duration, problems: &mut Vec<String>) -> anyhow::Result<Line> {
    let deeds: Vec<Deed> = deeds()?.into_iter().filter(|deed| deed.pool == "default" && !deed.ends_session && deed.number.starts_with("T1")).collect();
    let quiet = measure(client, time / 3, problems);
    let (before, _) = server.size();
    let (stop, ends) = (AtomicBool::new(false), Mutex::default());
    let (mut beside, mut most) = (Measured::default(), before);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let (url, stop, ends) = (&server.url, &stop, &ends);
        let begin = |(number, deed): (usize, &Deed)| {
            let deed = Deed { pool: "crowd".to_owned(), ..deed.clone() };
            scope.spawn(move || misbehave(&Client::new(url), &deed, &format!("crowd-{number}"), stop, ends))
        };
        let hostile: Vec<_> = deeds.iter().cycle().take(CROWD).enumerate().map(begin).collect();
        let deadline = Instant::now() + Duration::from_secs(120);
        while sessions(client)? < CROWD && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
        }
        let there = sessions(client)?;
        say(&format!("{there} sessions misbehave at once"));
        beside = measure(client, time, problems);
        most = most.max(server.size().0);
        stop.store(true, Ordering::Relaxed);
        while hostile.iter().any(|thread| !thread.is_finished()) {
            for number in (0..CROWD).filter(|number| hostile.get(*number).is_some_and(|thread| !thread.is_finished())) {
                client.delete_in("crowd", &format!("crowd-{number}"))?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        (0..CROWD).try_for_each(|number| client.delete_in("crowd", &format!("crowd-{number}")))
    })?;
    let ends = ends.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Line { what: format!("T118: {CROWD} sessions of these at once"), quiet, beside, ends, grown_kib: most.saturating_sub(before) })
}

/// Sessions of the crowd that are there.
fn sessions(client: &Client) -> anyhow::Result<usize> {
    let pools: Json = serde_json::from_slice(&client.get("/v1/pools")?)?;
    let crowd = pools.get("pools").and_then(Json::as_array).into_iter().flatten().find(|pool| pool.get("name").and_then(Json::as_str) == Some("crowd"));
    let count = crowd.and_then(|pool| pool.pointer("/now/sessions")?.as_u64()).unwrap_or_default();
    Ok(usize::try_from(count)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_and_times_are_counted_from_below() {
        assert!(deeds().unwrap().len() >= 20);
        let times = Times::of((1..=1000).rev().map(f64::from).collect());
        assert!((times.at(500) - 500.0).abs() < 1.0 && (times.at(990) - 990.0).abs() < 1.0);
        assert!(Times::default().at(990).is_nan());
    }
}
