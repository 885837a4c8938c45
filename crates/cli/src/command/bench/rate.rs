//! How many sandboxes per second can be made and destroyed, and what a parked one weighs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::{Bench, Held, Row, Stop, processes, settings};

/// Parked sandboxes of each pool: what refilling has to work on.
const READY: usize = 16;
/// No batch takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
enum Step {
    One,
    Two,
    Refill,
}

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let (rate, memory) = (bench.plan.has(Row::Rate), bench.plan.has(Row::Memory));
    let ready = bench.plan.count(READY, 4);
    bench.begin("starting pools", 1);
    let before = processes::inits();
    let blank = bench.pool("blank", settings(ready, "blank", false))?;
    blank.settle(&bench.stop)?;
    let between = processes::inits();
    let warmed = bench.pool("warmed", settings(ready, "light", true))?;
    warmed.settle(&bench.stop)?;
    if memory {
        let after = processes::inits();
        weigh(bench, "memoryBlank", &between.difference(&before).copied().collect());
        weigh(bench, "memoryWarmed", &after.difference(&between).copied().collect());
    }
    if rate {
        rates(bench, &blank, &warmed)?;
    }
    bench.problems.extend(blank.problems().chain(warmed.problems()));
    Ok(())
}

/// Private memory of parked sandboxes, all processes of each together.
fn weigh(bench: &mut Bench<'_>, id: &str, inits: &std::collections::BTreeSet<u32>) {
    let some = inits.iter().copied().take(8).collect();
    match processes::memory(&some) {
        Ok(all) => {
            for one in all {
                bench.records.add(id, mebibytes(one.private));
                bench.records.add(format!("{id}Share"), mebibytes(one.share));
            }
        }
        Err(reason) => [id.to_owned(), format!("{id}Share")].into_iter().for_each(|id| bench.records.explain(id, &reason)),
    }
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn rates(bench: &mut Bench<'_>, blank: &Held, warmed: &Held) -> anyhow::Result<()> {
    let (rounds, count) = bench.plan.count((7, 60), (1, 6));
    let all = [Step::One, Step::Two, Step::Refill];
    let mut steps: Vec<(&str, &Held, Step)> = Vec::new();
    all.iter().for_each(|step| steps.extend([("rateBlank", blank, *step), ("rateWarmed", warmed, *step)]));
    bench.begin("sandboxes per second", steps.len() * rounds);
    for _ in 0..rounds {
        bench.random.shuffle(&mut steps);
        for (name, held, step) in &steps {
            bench.progress.inc(1);
            blank.settle(&bench.stop)?;
            warmed.settle(&bench.stop)?;
            let id = format!("{name}{step:?}");
            let (not_forked, took) = match step {
                Step::One => make(held, 1, count, &bench.stop)?,
                Step::Two => make(held, 2, count, &bench.stop)?,
                Step::Refill => refill(held, count, &bench.stop)?,
            };
            (0..not_forked).for_each(|_| bench.records.mark(&id, false, true));
            bench.records.add(id, f64::from(count) / took.as_secs_f64());
        }
    }
    Ok(())
}

/// Makes and destroys so many, by so many callers at once. Tells how many were not forked, and the time until the last one was gone.
fn make(held: &Held, callers: u32, count: u32, stop: &Stop) -> anyhow::Result<(u32, Duration)> {
    let (given, not_forked) = (AtomicU32::new(0), AtomicU32::new(0));
    let call = || -> anyhow::Result<()> {
        while given.fetch_add(1, Ordering::Relaxed) < count {
            stop.check()?;
            let taken = held.pool.make()?;
            not_forked.fetch_add(u32::from(!taken.is_forked()), Ordering::Relaxed);
        }
        Ok(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(call)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a caller of the bench panicked")))
    })?;
    clean(held)?;
    Ok((not_forked.into_inner(), start.elapsed()))
}

/// Takes so many from a full pool, as fast as they come, and destroys them. The time goes on until the pool is full again.
fn refill(held: &Held, count: u32, stop: &Stop) -> anyhow::Result<(u32, Duration)> {
    let mut not_forked = 0;
    let start = Instant::now();
    for _ in 0..count {
        held.wait(1, PATIENCE, stop)?;
        let taken = held.pool.take(&engine::Limits::default())?;
        not_forked += u32::from(!taken.is_forked());
    }
    held.wait(held.ready, PATIENCE, stop)?;
    clean(held)?;
    Ok((not_forked, start.elapsed()))
}

fn clean(held: &Held) -> anyhow::Result<()> {
    if !held.pool.wait_until_clean(PATIENCE) {
        bail!("sandboxes that were used are not gone after {} s", PATIENCE.as_secs());
    }
    Ok(())
}
