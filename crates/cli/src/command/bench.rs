//! `belljar bench`: what sandboxes take on this machine, measured in one run beside what Python and bubblewrap take there.
//!
//! Every phase goes in rounds. A round does each of its steps, in an order that is shuffled from a fixed seed, so that the noise of the
//! machine hits all alike. Nothing else of ours runs during a step: before each one the pools are full and what was used is gone. Figures
//! of a series are percentiles of its samples; one that so few samples cannot tell is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::ValueEnum;
use engine::environment::{Environment, Lease};
use engine::{Command, Engine, Imports, Language, Limits, Pool, PoolSettings, Reply, RunRequest};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Map;

use crate::args::{self, BenchRow as Row};
use crate::config::Configuration;
use crate::exit::usage;
use crate::{exit, terminal};

mod host;
mod jobs;
mod latency;
mod machine;
mod many;
mod parts;
mod processes;
mod rate;
mod refill;
mod report;
mod samples;
mod serve;
mod table;

/// The order of steps comes from this.
const SEED: u64 = 1;
/// How long a pool may take to be full again between two steps.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
/// How often a wait looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(100);
/// Sandboxes parked at once in a full run.
const MANY: u32 = 500;

/// Measures, and tells.
pub(crate) fn run(arguments: &args::Bench, configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(arguments, configuration)?;
    let stop = Stop::listen()?;
    let engine = super::engine(configuration);
    let started = SystemTime::now();
    let mut bench = Bench::new(&engine, plan, stop, configuration.data.value.clone())?;
    if let Err(error) = bench.measure() {
        bench.progress.finish_and_clear();
        if bench.stop.is_asked() {
            terminal::note("interrupted: nothing is reported, and nothing is left running");
            return Ok(ExitCode::from(exit::FAILED));
        }
        return Err(error);
    }
    bench.progress.finish_and_clear();
    let document = report::Document::new(bench, started);
    drop(engine);
    let document = document.ended(processes::count(), processes::groups());
    if arguments.json {
        terminal::json(&document).context("cannot write to standard output")?;
    } else {
        use std::io::Write;
        std::io::stdout().write_all(document.text().as_bytes()).context("cannot write to standard output")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is measured, and how often.
#[derive(Debug)]
struct Plan {
    rows: BTreeSet<Row>,
    quick: bool,
    rounds: u32,
    /// Sandboxes to park at once.
    many: usize,
    environment: String,
    /// Measure a Jupyter Kernel Gateway too.
    gateway: bool,
}

impl Plan {
    fn new(arguments: &args::Bench, configuration: &Configuration) -> anyhow::Result<Self> {
        let all = arguments.only.is_empty();
        let mut rows: BTreeSet<Row> = if all { Row::value_variants() } else { &arguments.only }.iter().copied().collect();
        if arguments.serve {
            rows = BTreeSet::from([Row::Serve]);
        } else if all {
            rows.remove(&Row::Serve);
        }
        let many = arguments.parked.unwrap_or(if arguments.quick { 0 } else { MANY });
        if many == 0 && rows.remove(&Row::Many) && rows.is_empty() {
            return Err(usage("there is nothing to measure: the row `many` parks no sandbox", "say how many with --parked"));
        }
        if arguments.parked.is_some_and(|many| many > 0) && !rows.contains(&Row::Many) && !rows.contains(&Row::Serve) {
            return Err(usage("--parked is of no use: the row `many` is not among those of --only", "add it: `--only many`"));
        }
        let rounds = arguments.rounds.unwrap_or(if arguments.quick { 2 } else { 40 });
        let environment = arguments.environment.clone().unwrap_or_else(|| configuration.environment.value.clone());
        Ok(Self { rows, quick: arguments.quick, rounds, many: usize::try_from(many)?, environment, gateway: arguments.gateway })
    }

    fn has(&self, row: Row) -> bool {
        self.rows.contains(&row)
    }

    /// One of two numbers.
    fn count<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Whether somebody asked for an end. The second time ends belljar at once, and the kernel ends what it started.
#[derive(Debug, Clone)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(exit::FAILED), Arc::clone(&asked)).context("cannot listen for signals")?;
            signal_hook::flag::register(signal, Arc::clone(&asked)).context("cannot listen for signals")?;
        }
        Ok(Self(asked))
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.is_asked() { bail!("interrupted") } else { Ok(()) }
    }
}

/// A pool that is measured.
struct Held {
    pool: Pool,
    name: &'static str,
    ready: usize,
    _lease: Lease,
}

impl Held {
    /// Waits until it is full and everything used is gone, or says why that does not come about.
    fn settle(&self, stop: &Stop) -> anyhow::Result<()> {
        self.wait(self.ready, SETTLE_PATIENCE, stop)?;
        while !self.pool.wait_until_clean(LOOK) {
            stop.check()?;
        }
        Ok(())
    }

    fn wait(&self, parked: usize, patience: Duration, stop: &Stop) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            stop.check()?;
            if self.pool.wait_until_parked(parked, LOOK) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let status = self.pool.status();
                bail!("the pool `{}` holds {} of {parked} sandboxes after {} s: {}", self.name, status.parked, patience.as_secs(), status.problems.join("; "));
            }
        }
    }

    /// Its problems, with its name.
    fn problems(&self) -> impl Iterator<Item = String> {
        self.pool.status().problems.into_iter().map(|problem| format!("pool `{}`: {problem}", self.name))
    }
}

/// A run of the bench.
struct Bench<'a> {
    engine: &'a Engine,
    plan: Plan,
    stop: Stop,
    /// The data folder.
    data: PathBuf,
    environment: Environment,
    machine: machine::Machine,
    versions: BTreeMap<String, String>,
    records: samples::Records,
    random: samples::Random,
    problems: BTreeSet<String>,
    progress: ProgressBar,
}

impl<'a> Bench<'a> {
    fn new(engine: &'a Engine, plan: Plan, stop: Stop, data: PathBuf) -> anyhow::Result<Self> {
        let mut shown = super::progress::Shown::new();
        let build = Command::BuildEnvironment { name: plan.environment.clone(), options: Default::default(), progress: &mut |event| shown.show(event) };
        let Reply::Environments(mut built) = engine.dispatch(build)? else { bail!("the engine gave no environment") };
        let environment = built.pop().context("the engine gave no environment")?;
        let mut versions = BTreeMap::from([("python".to_owned(), environment.python_version.clone())]);
        let told = ["numpy", "pandas", "pyarrow"];
        versions.extend(environment.packages.iter().filter(|(name, _)| told.contains(&name.as_str())).cloned());
        let machine = machine::Machine::look(engine.backend()?.as_ref());
        let (records, random) = (samples::Records::default(), samples::Random(SEED));
        let progress = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg} {pos}/{len} [{elapsed}]") {
            progress.set_style(style);
        }
        Ok(Self { engine, plan, stop, data, environment, machine, versions, records, random, problems: BTreeSet::new(), progress })
    }

    /// All phases, one after the other: each has its own pools.
    fn measure(&mut self) -> anyhow::Result<()> {
        type Phase = fn(&mut Bench<'_>) -> anyhow::Result<()>;
        let phases: [(&str, Phase, &[Row]); 5] = [
            ("latency", latency::measure, latency::ROWS),
            ("rate", rate::measure, &[Row::Rate, Row::Memory]),
            ("refill", refill::measure, &[Row::Refill]),
            ("many", many::measure, &[Row::Many]),
            ("serve", serve::measure, &[Row::Serve]),
        ];
        for (name, measure, rows) in phases {
            if rows.iter().any(|row| self.plan.has(*row)) {
                let start = Instant::now();
                measure(self)?;
                self.machine.phase(name, start.elapsed());
            }
        }
        Ok(())
    }

    /// Starts a pool, which is not full yet.
    fn pool(&mut self, name: &'static str, settings: PoolSettings) -> anyhow::Result<Held> {
        self.stop.check()?;
        let ready = settings.ready;
        let (pool, lease) = self.engine.pool(&self.plan.environment, settings, &mut |_| {})?;
        let held = Held { pool, name, ready, _lease: lease };
        self.problems.extend(held.problems());
        Ok(held)
    }

    /// Shows what is measured now; nothing is drawn until the next step.
    fn begin(&self, what: &'static str, steps: usize) {
        self.progress.set_length(steps as u64);
        self.progress.set_position(0);
        self.progress.set_message(what);
    }
}

/// Settings of a pool with this many sandboxes.
fn settings(ready: usize, profile: &str, warm: bool) -> PoolSettings {
    // Recycling would start a template's process in the midst of a step.
    PoolSettings { ready, imports: Imports::Profile(profile.to_owned()), warm, recycle_forks: u64::MAX, ..PoolSettings::default() }
}

/// A run of Python code.
fn request(environment: &str, code: &str, limits: Limits) -> RunRequest {
    RunRequest {
        language: Language::Python,
        code: code.as_bytes().to_vec(),
        filename: None,
        inputs: Map::new(),
        fresh: false,
        files: Vec::new(),
        limits,
        environment: environment.to_owned(),
        process_spawning: false,
        out: None,
    }
}
