//! What breaks around a server: its processes killed one by one under load, and a host without room, descriptors, memory or a steady clock.
//!
//! After a kill nothing may be left running, whatever was answered is on record, and the next start serves. What a host lacks is survived, or
//! refused with an error of its own; when it is there again, everything goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value as Json, json};

use super::process::{self, Process};
use super::random::Random;
use super::served::{self, Client, Server};
use crate::ci::{check, say};

mod shortage;

/// Callers at once.
const CALLERS: u64 = 4;
/// A server that serves again has to within this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Who is killed, with how often each is taken.
const VICTIMS: &[(u64, &str)] = &[(8, "an init"), (4, "a template"), (3, "a worker"), (2, "the outer launcher"), (2, "the inner launcher"), (3, "the server")];

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kills: BTreeMap<&'static str, u64>,
    starts: u64,
    acknowledged: u64,
    answers: BTreeMap<String, u64>,
    shortages: Vec<String>,
    pub(super) problems: Vec<String>,
}

impl Faults {
    /// In words.
    pub(super) fn text(&self) -> String {
        let told = |counts: &mut dyn Iterator<Item = (String, u64)>| counts.map(|(what, count)| format!("{count} × {what}")).collect::<Vec<_>>().join(", ");
        let kills = told(&mut self.kills.iter().map(|(what, count)| ((*what).to_owned(), *count)));
        let answers = told(&mut self.answers.iter().map(|(what, count)| (what.clone(), *count)));
        let acknowledged = self.acknowledged;
        format!(
            "faults: killed {kills}; {} starts on one data folder; {acknowledged} executions acknowledged, all on record; answers: {answers}\n{}",
            self.starts,
            self.shortages.join("\n")
        )
    }
}

/// Everything.
pub(super) fn run(belljar: &Path, data: &Path, kills: u64, seed: u64) -> anyhow::Result<Faults> {
    let own = own_data(data)?;
    let (mut faults, mut random) = (Faults::default(), Random::new(seed));
    while faults.kills.values().sum::<u64>() < kills && faults.problems.len() < super::ENOUGH {
        let left = kills - faults.kills.values().sum::<u64>();
        round(belljar, own.path(), left, &mut random, &mut faults)?;
        if faults.starts.is_multiple_of(20) {
            say(&format!("{} kills, {} starts", faults.kills.values().sum::<u64>(), faults.starts));
        }
    }
    shortage::run(belljar, own.path(), &mut faults)?;
    Ok(faults)
}

/// A data folder of its own with the same environments, so that the record in it is of this run alone.
fn own_data(data: &Path) -> anyhow::Result<tempfile::TempDir> {
    let own = tempfile::Builder::new().prefix("belljar-faults-").tempdir()?;
    for name in ["environments", "cache"] {
        if data.join(name).is_dir() {
            // Other names for the same files, where the folders are on one disk.
            let linked = Command::new("cp").args(["-al"]).arg(data.join(name)).arg(own.path()).status();
            if !linked.is_ok_and(|status| status.success()) {
                check(Command::new("cp").args(["-a"]).arg(data.join(name)).arg(own.path()))?;
            }
        }
    }
    Ok(own)
}

/// What the callers were told.
#[derive(Debug, Default)]
struct Ledger {
    acknowledged: BTreeSet<String>,
    answers: BTreeMap<String, u64>,
    problems: Vec<String>,
}

impl Ledger {
    fn note(&mut self, status: u16, answer: &Json) {
        let word = |pointer: &str| answer.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned();
        let told = if status == 200 { word("/outcome") } else { word("/error/code") };
        *self.answers.entry(format!("{status} {told}")).or_default() += 1;
        if status == 200 {
            self.acknowledged.insert(word("/id"));
        }
        // What broke is no fault of the caller's, and none that we would not know of.
        if told.is_empty() || !matches!(status, 200 | 404 | 429 | 503) {
            self.problems.push(format!("faults: {status} {answer}"));
        }
    }
}

/// Calls until it is stopped, or the server is gone.
fn call(url: &str, caller: u64, stop: &AtomicBool, ledger: &Mutex<Ledger>) {
    let client = Client::new(url);
    for number in 0_u64.. {
        let code = if number % 2 == 0 { "print(1)" } else { "import time\ntime.sleep(0.05)\nx = bytes(1 << 20)" };
        let path = format!("/v1/sessions/fault-{caller}-{}/executions", number / 5);
        let Ok((status, answer)) = client.post(&path, &json!({"code": code, "timeoutSeconds": 30})) else { return };
        ledger.lock().unwrap_or_else(PoisonError::into_inner).note(status, &answer);
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// One server, killed in parts and then as a whole.
fn round(belljar: &Path, data: &Path, kills: u64, random: &mut Random, faults: &mut Faults) -> anyhow::Result<()> {
    let mut server = Server::start(belljar, data).context("the start after a kill")?;
    faults.starts += 1;
    let (stop, ledger, url) = (AtomicBool::new(false), Mutex::new(Ledger::default()), server.url.clone());
    std::thread::scope(|scope| -> anyhow::Result<()> {
        for caller in 0..CALLERS {
            let (url, stop, ledger) = (&url, &stop, &ledger);
            scope.spawn(move || call(url, caller, stop, ledger));
        }
        let done = strikes(&mut server, kills, random, faults);
        stop.store(true, Ordering::Relaxed);
        let _ = server.child.kill();
        done
    })?;
    let pid = server.pid();
    server.child.wait()?;
    let (_, left) = served::left(pid);
    faults.problems.extend(left.into_iter().map(|what| format!("faults: `{what}` is left of a server that was killed")));
    let ledger = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
    let recorded = recorded(belljar, data)?;
    let lost: Vec<_> = ledger.acknowledged.difference(&recorded).collect();
    if !lost.is_empty() {
        faults.problems.push(format!("faults: acknowledged, and not on record: {lost:?}"));
    }
    faults.acknowledged += ledger.acknowledged.len() as u64;
    faults.problems.extend(ledger.problems);
    for (answer, count) in ledger.answers {
        *faults.answers.entry(answer).or_default() += count;
    }
    Ok(())
}

/// Kills parts at random moments; the last of them is the server itself. In between it has to serve again.
fn strikes(server: &mut Server, kills: u64, random: &mut Random, faults: &mut Faults) -> anyhow::Result<()> {
    for _ in 1..kills.min(random.between(2, 9)) {
        std::thread::sleep(Duration::from_millis(random.below(400)));
        let victim = random.weighted(VICTIMS).copied().unwrap_or_default();
        if victim == "the server" {
            break;
        }
        let (candidates, at) = (candidates(server.pid(), victim), random.number());
        let chosen = candidates.get(usize::try_from(at % candidates.len().max(1) as u64)?);
        if chosen.is_some_and(process::kill) {
            *faults.kills.entry(victim).or_default() += 1;
            serves_again(server, victim).with_context(|| format!("after the end of {victim}"))?;
        }
        if server.child.try_wait()?.is_some() {
            return Ok(());
        }
    }
    std::thread::sleep(Duration::from_millis(random.below(400)));
    *faults.kills.entry("the server").or_default() += 1;
    Ok(())
}

/// Processes of a server that are what is to be killed.
fn candidates(server: u32, victim: &str) -> Vec<Process> {
    let launchers = process::launchers(server);
    // Workers are forked from the template and keep its command line; they are one process namespace further down.
    let depth = |process: &Process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("NSpid:").map(|numbers| numbers.split_whitespace().count())).unwrap_or_default()
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("NSpid:").map(|numbers| numbers.split_whitespace().count())).unwrap_or(1);
    let fits = |process: &Process| match victim {
        "an init" => process::command(process.pid).starts_with("belljar-init"),
        "a template" => process::command(process.pid).contains("/opt/runtime/driver.py") && depth(process) == own + 1,
        "a worker" => process::command(process.pid).contains("/opt/runtime/driver.py") && depth(process) > own + 1,
        "the outer launcher" => launchers.is_some_and(|(outer, _)| outer == process.pid),
        "the inner launcher" => launchers.is_some_and(|(_, inner)| inner == process.pid),
        _ => false,
    };
    process::below(server).into_iter().filter(fits).collect()
}

/// Whether a server whose part was killed serves again, or has ended where it cannot.
fn serves_again(server: &mut Server, victim: &str) -> anyhow::Result<()> {
    let (client, deadline) = (Client::new(&server.url), Instant::now() + AGAIN);
    let mut last = String::new();
    while Instant::now() < deadline {
        if server.child.try_wait()?.is_some() {
            ensure!(victim.contains("launcher"), "the server ended");
            return Ok(());
        }
        match client.post("/v1/run", &json!({"code": "print(6 * 7)", "timeoutSeconds": 30})) {
            Ok((200, answer)) if answer.pointer("/stdout").and_then(Json::as_str) == Some("42\n") => return Ok(()),
            Ok((status, answer)) => last = format!("{status} {answer}"),
            Err(error) => last = format!("{error:#}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("it does not serve again: {last}")
}

/// Executions whose beginning is on record.
fn recorded(belljar: &Path, data: &Path) -> anyhow::Result<BTreeSet<String>> {
    let query = ["audit", "query", "--json", "--kind", "execution_intended", "--limit", "10000", "--data"];
    let output = Command::new(belljar).args(query).arg(data).output().context("cannot ask for the record")?;
    ensure!(output.status.success(), "the record cannot be read: {}", String::from_utf8_lossy(&output.stderr));
    let events = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(events.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()?.get("execution")?.as_str().map(str::to_owned)).collect())
}
