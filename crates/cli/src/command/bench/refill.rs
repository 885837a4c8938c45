//! Whether refilling disturbs those who wait for an answer: the same requests at the same pace, with pools that yield to them and pools
//! that do not.

use std::time::{Duration, Instant};

use engine::{Control, Limits, PoolSettings};

use super::latency::{Watch, printed};
use super::{Bench, Held, jobs, request, settings};

/// Parked sandboxes of each pool.
const READY: usize = 8;
/// One request in this time: refilling keeps up, and nearly always has something to do.
const PACE: Duration = Duration::from_millis(30);

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    bench.begin("starting pools", 1);
    let settings = |yields| PoolSettings { yields, ..settings(READY, "light", true) };
    let yields = bench.pool("yields", settings(true))?;
    let plain = bench.pool("plain", settings(false))?;
    let (rounds, requests) = bench.plan.count((12, 30), (1, 5));
    let mut blocks = [("refillYieldsGroupby", &yields), ("refillPlainGroupby", &plain)];
    bench.begin("requests while refilling", blocks.len() * rounds);
    for _ in 0..rounds {
        bench.random.shuffle(&mut blocks);
        for (id, held) in blocks {
            bench.progress.inc(1);
            yields.settle(&bench.stop)?;
            plain.settle(&bench.stop)?;
            block(bench, id, held, requests)?;
        }
    }
    bench.problems.extend(yields.problems().chain(plain.problems()));
    Ok(())
}

/// So many requests at the pace.
fn block(bench: &mut Bench<'_>, id: &str, held: &Held, requests: u32) -> anyhow::Result<()> {
    let limits = Limits::default();
    let request = request(&bench.plan.environment, jobs::GROUPBY, limits);
    let begin = Instant::now();
    for number in 0..requests {
        bench.stop.check()?;
        std::thread::sleep((begin + PACE * number).saturating_duration_since(Instant::now()));
        let start = Instant::now();
        let mut taken = held.pool.take(&limits)?;
        let execution = taken.run(&request, &mut Watch::start(), &Control::default())?;
        bench.records.add_time(id, start.elapsed());
        bench.records.mark(id, taken.is_forked(), taken.parked);
        printed(execution)?;
    }
    Ok(())
}
