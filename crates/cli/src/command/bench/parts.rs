//! Where the time goes: the same way as an execution's, seen step by step.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use engine::{Limits, Taken};
use sandbox::{End, Execute, FromInit, Sandbox, ToInit, Work};
use serde_json::json;

use super::jobs::CLOCK;
use super::{Bench, Held};

/// No message of a sandbox takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A parked sandbox.
pub(super) fn parked(bench: &mut Bench<'_>, held: &Held, limits: &Limits) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut taken = held.pool.take(limits)?;
    let took = start.elapsed();
    mark(bench, "detailParked", &taken, taken.parked);
    if !taken.parked {
        return Ok(());
    }
    bench.records.add_time("detailParkedTake", took);
    run(bench, "detailParked", taken.sandbox())?;
    let start = Instant::now();
    let sandbox = taken.sandbox();
    let _ = (sandbox.usage(), sandbox.workspace().space(), sandbox.workspace().list());
    bench.records.add_time("detailParkedCount", start.elapsed());
    Ok(())
}

/// One that is forked on demand.
pub(super) fn demand(bench: &mut Bench<'_>, held: &Held, limits: &Limits) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut taken = held.pool.take(limits)?;
    let took = start.elapsed();
    bench.records.add_time("detailDemandTake", took);
    let sandbox = taken.sandbox();
    while !matches!(receive(sandbox)?, FromInit::WorkerReady) {}
    bench.records.add_time("detailDemandReady", start.elapsed().saturating_sub(took));
    run(bench, "detailDemand", sandbox)?;
    mark(bench, "detailDemand", &taken, true);
    Ok(())
}

/// Marks every part.
fn mark(bench: &mut Bench<'_>, prefix: &str, taken: &Taken, parked: bool) {
    let parts = super::table::TABLE.iter().filter(|entry| entry.id.starts_with(prefix));
    parts.for_each(|entry| bench.records.mark(entry.id, taken.is_forked(), parked));
}

/// Has code tell when it runs, by the clock that host and sandbox share.
fn run(bench: &mut Bench<'_>, prefix: &str, sandbox: &mut dyn Sandbox) -> anyhow::Result<()> {
    let remote = sandbox.remote();
    let work = Work::Code(json!({"code": CLOCK, "inputs": {}}).to_string().into_bytes());
    let begin = now()?;
    remote.send(&ToInit::Execute(Execute { execution: 1, work }))?;
    let sent = now()?;
    let mut first = None;
    let mut text = Vec::new();
    loop {
        match receive(sandbox)? {
            FromInit::Output { bytes, .. } => {
                first.get_or_insert(now()?);
                text.extend(bytes);
            }
            FromInit::Done { end: End::Completed, .. } => break,
            FromInit::Done { end, .. } => bail!("a job of the bench did not come to its end ({end:?})"),
            _ => {}
        }
    }
    let done = now()?;
    let first = first.context("a job of the bench printed nothing")?;
    let ran = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).map(Duration::from_nanos);
    let ran = ran.with_context(|| format!("a job of the bench printed {:?}", String::from_utf8_lossy(&text)))?;
    // The code may run before the call that sent it returns.
    let parts = [("Send", begin, sent), ("ToCode", sent, ran), ("Back", ran, first), ("End", first, done)];
    for (part, from, to) in parts {
        bench.records.add_time(format!("{prefix}{part}"), to.saturating_sub(from));
    }
    Ok(())
}

fn receive(sandbox: &mut dyn Sandbox) -> anyhow::Result<FromInit> {
    sandbox.receive(Some(Instant::now() + PATIENCE))?.context("a sandbox does not answer")
}

fn now() -> anyhow::Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}
