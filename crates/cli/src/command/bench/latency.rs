//! How long the same jobs take in a parked sandbox, in one forked on demand, in a one-shot run, in plain Python and in bubblewrap; and,
//! round by round beside them, what computing takes inside and outside and how long an end takes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::{Command, Control, Execution, Limits, Observer, Outcome, Output, Reply, Stream, Value};

use super::host::{self, Interpreter};
use super::jobs::{self, Work};
use super::{Bench, Held, Row, machine, parts, request, settings};

/// Parked sandboxes of each pool. With that many, refilling waits until the one that was taken is done.
const READY: usize = 3;
/// A memory file system, as the workspace is one.
const MEMORY_FILES: &str = "/dev/shm";

/// A way to run code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Parked,
    Cold,
    Demand,
    Once,
    Python,
    Bwrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Print,
    Groupby,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Run(Way, Job),
    ParkedParts,
    DemandParts,
    Kill { used: bool },
    Compute(Work),
}

/// Each way with its row, its name in ids, and how often a full round has it: what takes long is done less often.
const WAYS: &[(Way, Row, &str, usize)] = &[
    (Way::Parked, Row::Parked, "parked", 5),
    (Way::Cold, Row::Cold, "cold", 3),
    (Way::Demand, Row::Demand, "demand", 3),
    (Way::Once, Row::Once, "once", 1),
    (Way::Python, Row::Python, "python", 1),
    (Way::Bwrap, Row::Bwrap, "bwrap", 1),
];

/// The rows of this phase.
pub(super) const ROWS: &[Row] = &[Row::Parked, Row::Cold, Row::Demand, Row::Once, Row::Python, Row::Bwrap, Row::Detail, Row::Kill, Row::Compute];

/// One round in so many computes, in a full run.
const COMPUTE_EVERY: u32 = 4;

/// What the steps use.
struct Scene {
    warm: Option<Held>,
    cold: Option<Held>,
    demand: Option<Held>,
    python: Interpreter,
    bwrap: Option<Interpreter>,
    limits: Limits,
    /// Where files are written outside.
    files: String,
    _scratch: tempfile::TempDir,
}

/// Sees when the first byte comes.
pub(super) struct Watch {
    start: Instant,
    first: Option<Duration>,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), first: None }
    }
}

impl Observer for Watch {
    fn wrote(&mut self, _: Stream, _: &[u8]) {
        if self.first.is_none() {
            self.first = Some(self.start.elapsed());
        }
    }
    fn showed(&mut self, _: &Output) {}
    fn result(&mut self, _: &Value) {}
}

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let steps = steps(bench);
    bench.begin("starting pools", 1);
    let scene = Scene::new(bench)?;
    let steps: Vec<Step> = steps.into_iter().filter(|step| scene.bwrap.is_some() || !matches!(step, Step::Run(Way::Bwrap, _))).collect();
    bench.begin("latency and computing", steps.len() * usize::try_from(bench.plan.rounds)?);
    for round in 0..bench.plan.rounds {
        let mut order = steps.clone();
        order.retain(|step| !matches!(step, Step::Compute(_)) || bench.plan.quick || round % COMPUTE_EVERY == 0);
        bench.random.shuffle(&mut order);
        for step in order {
            bench.progress.inc(1);
            scene.settle(bench)?;
            scene.step(bench, step)?;
        }
    }
    scene.settle(bench)?;
    let pools = [&scene.warm, &scene.cold, &scene.demand];
    bench.problems.extend(pools.into_iter().flatten().flat_map(Held::problems));
    Ok(())
}

/// The steps of a round.
fn steps(bench: &Bench<'_>) -> Vec<Step> {
    let plan = &bench.plan;
    let mut steps = Vec::new();
    for (way, _, _, often) in WAYS.iter().filter(|(_, row, ..)| plan.has(*row)) {
        for _ in 0..plan.count(*often, 1) {
            steps.extend([Step::Run(*way, Job::Print), Step::Run(*way, Job::Groupby)]);
        }
    }
    if plan.has(Row::Detail) {
        (0..plan.count(3, 1)).for_each(|_| steps.extend([Step::ParkedParts, Step::DemandParts]));
    }
    if plan.has(Row::Kill) {
        (0..plan.count(2, 1)).for_each(|_| steps.extend([Step::Kill { used: false }, Step::Kill { used: true }]));
    }
    if plan.has(Row::Compute) {
        steps.extend(Work::ALL.map(Step::Compute));
    }
    steps
}

impl Scene {
    fn new(bench: &mut Bench<'_>) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("belljar-bench-").tempdir().context("cannot make a temporary folder")?;
        let has = |row| bench.plan.has(row);
        let warm = [Row::Parked, Row::Detail, Row::Kill, Row::Compute].into_iter().any(has);
        let demand = [Row::Demand, Row::Detail].into_iter().any(has);
        let (cold, wants_bwrap) = (has(Row::Cold), has(Row::Bwrap));
        let python = host::python(&bench.environment, scratch.path())?;
        // Warms the page cache, for all alike.
        python.run(jobs::GROUPBY).context("the environment's interpreter does not run on the host")?;
        let bwrap = if wants_bwrap { find_bwrap(bench) } else { None };
        let warm = if warm { Some(bench.pool("parked", settings(READY, "light", true))?) } else { None };
        let cold = if cold { Some(bench.pool("cold", settings(READY, "light", false))?) } else { None };
        let demand = if demand { Some(bench.pool("demand", settings(0, "light", false))?) } else { None };
        let in_memory = writable(Path::new(MEMORY_FILES));
        let files = if in_memory { MEMORY_FILES.to_owned() } else { scratch.path().display().to_string() };
        if !in_memory && bench.plan.has(Row::Compute) {
            bench
                .problems
                .insert(format!("`{MEMORY_FILES}` cannot be written: small files outside are on another file system, so their ratio is none of isolation"));
        }
        Ok(Self { warm, cold, demand, python, bwrap, limits: Limits::default(), files, _scratch: scratch })
    }

    /// Waits until nothing of ours is at work.
    fn settle(&self, bench: &Bench<'_>) -> anyhow::Result<()> {
        [&self.warm, &self.cold, &self.demand].into_iter().flatten().try_for_each(|held| held.settle(&bench.stop))
    }

    fn step(&self, bench: &mut Bench<'_>, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Run(way, job) => self.run(bench, way, job),
            Step::ParkedParts => parts::parked(bench, held(&self.warm)?, &self.limits),
            Step::DemandParts => parts::demand(bench, held(&self.demand)?, &self.limits),
            Step::Kill { used } => self.kill(bench, used),
            Step::Compute(work) => self.compute(bench, work),
        }
    }

    fn run(&self, bench: &mut Bench<'_>, way: Way, job: Job) -> anyhow::Result<()> {
        let code = if job == Job::Print { jobs::PRINT } else { jobs::GROUPBY };
        let name = WAYS.iter().find(|(other, ..)| *other == way).map_or("", |(_, _, name, _)| *name);
        let id = format!("{name}{job:?}");
        let (first, total, text) = match way {
            Way::Parked | Way::Cold | Way::Demand => {
                let held = held(if way == Way::Parked {
                    &self.warm
                } else if way == Way::Cold {
                    &self.cold
                } else {
                    &self.demand
                })?;
                let request = request(&bench.plan.environment, code, self.limits);
                let mut watch = Watch::start();
                let mut taken = held.pool.take(&self.limits)?;
                let execution = taken.run(&request, &mut watch, &Control::default())?;
                let total = watch.start.elapsed();
                bench.records.mark(&id, taken.is_forked(), taken.parked || way == Way::Demand);
                (watch.first, total, printed(execution)?)
            }
            Way::Once => {
                let request = Box::new(request(&bench.plan.environment, code, self.limits));
                let mut watch = Watch::start();
                let command = Command::Run { request, observer: &mut watch, control: &Control::default(), progress: &mut |_| {} };
                let Reply::Execution(execution) = bench.engine.dispatch(command)? else { bail!("the engine gave no execution") };
                let total = watch.start.elapsed();
                (watch.first, total, printed(*execution)?)
            }
            Way::Python | Way::Bwrap => {
                let interpreter = if way == Way::Python { Some(&self.python) } else { self.bwrap.as_ref() };
                let run = interpreter.context("there is no interpreter")?.run(code)?;
                (Some(run.first), run.total, run.text)
            }
        };
        let expected = if job == Job::Print { "1\n" } else { jobs::GROUPBY_BEGINS };
        if !text.starts_with(expected) {
            bail!("the job of `{id}` printed {text:?}");
        }
        if let (Job::Print, Some(first)) = (job, first) {
            bench.records.add_time(format!("{id}FirstByte"), first);
        }
        bench.records.add_time(id, total);
        Ok(())
    }

    /// Ends a sandbox: first it has no process left, then no control group either.
    fn kill(&self, bench: &mut Bench<'_>, used: bool) -> anyhow::Result<()> {
        let pool = &held(&self.warm)?.pool;
        let mut taken = pool.take(&self.limits)?;
        let id = if used { "killUsed" } else { "killParked" };
        bench.records.mark(id, taken.is_forked(), taken.parked);
        if used {
            let request = request(&bench.plan.environment, jobs::GROUPBY, self.limits);
            printed(taken.run(&request, &mut Watch::start(), &Control::default())?)?;
        }
        let start = Instant::now();
        taken.sandbox().kill();
        taken.sandbox().wait(Duration::from_secs(30)).context("a sandbox that was killed did not end")?;
        let processes = start.elapsed();
        drop(taken);
        if !pool.wait_until_clean(Duration::from_secs(30)) {
            bail!("a sandbox that was killed is not gone");
        }
        bench.records.add_time(id, start.elapsed());
        bench.records.add_time(format!("{id}Processes"), processes);
        Ok(())
    }

    /// The same work inside and outside, one right after the other.
    fn compute(&self, bench: &mut Bench<'_>, work: Work) -> anyhow::Result<()> {
        let repeats = bench.plan.count(5, 2);
        let mut places = [true, false];
        bench.random.shuffle(&mut places);
        for inside in places {
            let id = format!("compute{}{}", work.name(), if inside { "Inside" } else { "Outside" });
            let text = if inside {
                // Never throttled, never short of memory.
                let limits = Limits { cpus: machine::cpus() as f64, memory_bytes: 2 << 30, wall_seconds: 300, ..self.limits };
                let request = request(&bench.plan.environment, &work.code(repeats, "/mnt/data"), limits);
                let mut taken = held(&self.warm)?.pool.take(&limits)?;
                bench.records.mark(&id, taken.is_forked(), true);
                printed(taken.run(&request, &mut Watch::start(), &Control::default())?)?
            } else {
                self.python.run(&work.code(repeats, &self.files))?.text
            };
            let seconds: f64 = text.trim().parse().with_context(|| format!("the work of `{id}` printed {text:?}"))?;
            bench.records.add(id, seconds * 1000.0);
        }
        Ok(())
    }
}

fn held(pool: &Option<Held>) -> anyhow::Result<&Held> {
    pool.as_ref().context("the pool was not started")
}

/// What a run printed that came to its end.
pub(super) fn printed(execution: Execution) -> anyhow::Result<String> {
    if execution.outcome != Outcome::Completed {
        let error = execution.error.map(|error| format!(": {}: {}", error.name, error.message)).unwrap_or_default();
        bail!("a job of the bench did not come to its end ({}){error}", execution.outcome);
    }
    Ok(execution.stdout)
}

fn find_bwrap(bench: &mut Bench<'_>) -> Option<Interpreter> {
    match host::bwrap(&bench.environment) {
        Ok((interpreter, version)) => {
            bench.versions.insert("bwrap".to_owned(), version.trim_start_matches("bubblewrap").trim().to_owned());
            Some(interpreter)
        }
        Err(reason) => {
            bench.versions.insert("bwrap".to_owned(), reason.clone());
            for id in ["bwrapPrintFirstByte", "bwrapPrint", "bwrapGroupby"] {
                bench.records.explain(id, &reason);
            }
            None
        }
    }
}

fn writable(folder: &Path) -> bool {
    tempfile::tempfile_in(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::table::TABLE;
    use super::*;

    #[test]
    fn every_way_and_work_is_in_the_table() {
        let known = |row: Row, id: String| assert!(TABLE.iter().any(|entry| entry.id == id && entry.row == row), "{id}");
        for (_, row, name, _) in WAYS {
            known(*row, format!("{name}{:?}", Job::Print));
            known(*row, format!("{name}{:?}FirstByte", Job::Print));
            known(*row, format!("{name}{:?}", Job::Groupby));
        }
        for work in Work::ALL {
            known(Row::Compute, format!("compute{}Inside", work.name()));
            known(Row::Compute, format!("compute{}Outside", work.name()));
        }
    }
}
