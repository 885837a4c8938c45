//! Many parked sandboxes at once: whether they fit, what they take, whether one still answers, and how long their end takes.

use std::time::{Duration, Instant};

use engine::{Control, Limits};

use super::latency::{Watch, printed};
use super::rate::mebibytes;
use super::{Bench, jobs, machine, request, settings};

/// A pool may take this long for each sandbox…
const EACH: Duration = Duration::from_millis(300);
/// …and this long in any case.
const PATIENCE: Duration = Duration::from_secs(60);
/// A pool with a problem that does not grow for so long will not.
const STUCK: Duration = Duration::from_secs(10);

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let many = bench.plan.many;
    bench.begin("many at once", many);
    let begin = machine::used_bytes();
    let held = bench.pool("many", settings(many, "light", true))?;
    let (start, before) = (Instant::now(), held.pool.status().parked);
    let (used, deadline) = (machine::used_bytes(), start + PATIENCE + EACH * u32::try_from(many)?);
    let (mut most, mut since) = (before, start);
    while !held.pool.wait_until_parked(many, Duration::from_millis(500)) && Instant::now() < deadline {
        bench.stop.check()?;
        let parked = held.pool.status().parked;
        bench.progress.set_position(parked as u64);
        if parked > most {
            (most, since) = (parked, Instant::now());
        }
        // It says that something is wrong, and gets no further.
        if since.elapsed() > STUCK && !held.pool.status().problems.is_empty() {
            break;
        }
    }
    let filled = start.elapsed();
    let status = held.pool.status();
    let now = machine::used_bytes();
    bench.records.add("manyParked", status.parked as f64);
    if status.parked < many {
        bench.records.explain("manyParked", status.problems.join("; "));
    }
    bench.records.add("manyFill", filled.as_secs_f64());
    bench.records.add("manyMemory", mebibytes(now.saturating_sub(begin)));
    if status.parked > before {
        bench.records.add("manyMemoryEach", mebibytes(now.saturating_sub(used)) / (status.parked - before) as f64);
    }
    let limits = Limits::default();
    let request = request(&bench.plan.environment, jobs::GROUPBY, limits);
    for _ in 0..bench.plan.count(100, 5) {
        held.wait(status.parked, PATIENCE, &bench.stop)?;
        let start = Instant::now();
        let mut taken = held.pool.take(&limits)?;
        let execution = taken.run(&request, &mut Watch::start(), &Control::default())?;
        bench.records.add_time("manyGroupby", start.elapsed());
        bench.records.mark("manyGroupby", taken.is_forked(), taken.parked);
        printed(execution)?;
    }
    bench.problems.extend(held.problems());
    let start = Instant::now();
    drop(held);
    bench.records.add("manyTeardown", start.elapsed().as_secs_f64());
    Ok(())
}
