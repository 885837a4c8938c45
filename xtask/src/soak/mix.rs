//! Sandboxes started and ended in every way there is, at random.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use engine::environment::{Host, Lease};
use engine::{
    Command, Control, Controls, Engine, Execution, Imports, Language, Limits, Observer, Output, Pool, PoolSettings, Reply, Settings, Stream, Taken, Value,
};
use sandbox::{Execute, Sandbox, SpawnOptions, TemplateId, ToInit, Work, WorkerStart};

use super::process;
use super::program::{ENDLESS, PROGRAMS, Program};
use super::random::Random;

/// The one root that an engine with one environment has prepared.
const TEMPLATE: TemplateId = TemplateId(1);
/// Something that takes this long hangs.
pub(crate) const HANG: Duration = Duration::from_secs(90);

/// One way of starting and ending a sandbox.
struct Way {
    name: &'static str,
    go: fn(&Mix, &Pool, &mut Random) -> anyhow::Result<()>,
}

/// Every way with its weight.
const WAYS: &[(u64, Way)] = &[
    (8, Way { name: "exec: dropped while it starts", go: exec_dropped }),
    (5, Way { name: "exec: dropped while code runs", go: exec_running_dropped }),
    (4, Way { name: "no worker: dropped", go: bare_dropped }),
    (6, Way { name: "exec: run to the end", go: dispatched }),
    (4, Way { name: "exec: interrupted, or killed at the second time", go: dispatched_interrupted }),
    (25, Way { name: "pool: taken and dropped", go: taken_dropped }),
    (20, Way { name: "pool: run to the end", go: taken_run }),
    (10, Way { name: "pool: interrupted, or killed at the second time", go: taken_interrupted }),
    (10, Way { name: "forked on demand: dropped in its set-up", go: on_demand_dropped }),
    (4, Way { name: "pool: worker lost and forked anew", go: worker_replaced }),
    (2, Way { name: "a pool made and dropped at once", go: pool_dropped }),
];

/// What was done in one way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    /// As expected.
    pub(crate) done: u64,
    /// Ended by an error: a failure, unless somebody was killing processes below.
    pub(crate) failed: u64,
    /// The longest took this long.
    pub(crate) longest: Duration,
}

/// An engine and what was done with it.
pub(crate) struct Mix {
    engine: Engine,
    out: PathBuf,
    counts: Mutex<BTreeMap<&'static str, Count>>,
    problems: Mutex<Vec<String>>,
    /// Sandboxes started: an executed or handed out one counts, one that waits in a pool does not.
    started: AtomicU64,
    /// Processes killed from outside.
    victims: AtomicU64,
    busy: Mutex<BTreeMap<String, (ThreadId, Instant)>>,
}

/// How a round goes.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// It ends when so many sandboxes have been started.
    pub(crate) until: u64,
    /// Threads that start them.
    pub(crate) threads: u64,
    /// Processes below are killed from outside: then errors are no failure.
    pub(crate) disturbed: bool,
}

struct Silent;

impl Observer for Silent {
    fn wrote(&mut self, _: Stream, _: &[u8]) {}
    fn showed(&mut self, _: &Output) {}
    fn result(&mut self, _: &Value) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine's error with what only the operator sees.
fn told(error: &engine::Error) -> anyhow::Error {
    anyhow!("{error} ({})", error.detail.as_deref().unwrap_or("no detail"))
}

impl Mix {
    /// An engine on this data folder; `out` is for copied artifacts.
    pub(crate) fn new(data: &Path, out: &Path) -> Self {
        Self {
            engine: Engine::new(Settings { data: data.to_owned(), host: Host::new(std::env::vars_os()), controls: Controls::default() }),
            out: out.to_owned(),
            counts: Mutex::default(),
            problems: Mutex::default(),
            started: AtomicU64::new(0),
            victims: AtomicU64::new(0),
            busy: Mutex::default(),
        }
    }

    /// Sandboxes started so far.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Threads that found a round over had counted one more each.
    pub(crate) fn end_round(&self, until: u64) {
        self.started.store(until, Ordering::Relaxed);
    }

    /// Processes killed from outside so far.
    pub(crate) fn victims(&self) -> u64 {
        self.victims.load(Ordering::Relaxed)
    }

    /// What was done, by way.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, Count> {
        lock(&self.counts).clone()
    }

    /// What went wrong since this was last asked.
    pub(crate) fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.problems))
    }

    /// Notes something wrong; the first hundred are enough.
    fn problem(&self, text: String) {
        let mut problems = lock(&self.problems);
        if problems.len() < 100 {
            problems.push(text);
        }
    }

    /// What has been under way for longer than anything may.
    pub(crate) fn hanging(&self) -> Vec<String> {
        let busy = lock(&self.busy);
        busy.iter().filter(|(_, (_, since))| since.elapsed() > HANG).map(|(what, (_, since))| format!("{what} for {} s", since.elapsed().as_secs())).collect()
    }

    /// Does something while [`Self::hanging`] watches.
    fn watched<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let thread = std::thread::current().id();
        let key = format!("`{what}` in {thread:?}");
        lock(&self.busy).insert(key.clone(), (thread, Instant::now()));
        let done = work();
        lock(&self.busy).remove(&key);
        done
    }

    /// Starts everything that stays: the launcher, and the environment's root in it.
    pub(crate) fn warm_up(&self, random: &mut Random) -> anyhow::Result<()> {
        let (_, print) = PROGRAMS.first().context("there are programs")?;
        print.judge(&self.dispatch(print, &Control::default(), None)?)?;
        drop(self.pool(random)?);
        Ok(())
    }

    /// A pool of random settings.
    fn pool(&self, random: &mut Random) -> anyhow::Result<(Pool, Lease)> {
        let profile = if random.chance(30) { "light" } else { "blank" };
        let settings = PoolSettings {
            ready: usize::try_from(random.below(5)).unwrap_or_default(),
            imports: Imports::Profile(profile.to_owned()),
            warm: profile == "light" && random.chance(50),
            recycle_forks: if random.chance(30) { random.between(3, 30) } else { 10_000 },
            recycle_age: if random.chance(20) { Duration::from_millis(random.between(600, 2000)) } else { Duration::from_secs(3600) },
            refillers: usize::try_from(random.between(1, 2)).unwrap_or(1),
            yields: random.chance(50),
            ..PoolSettings::default()
        };
        self.engine.pool("core", settings, &mut |_| {}).map_err(|error| told(&error))
    }

    fn spawn(&self, worker: WorkerStart, random: &mut Random) -> anyhow::Result<Box<dyn Sandbox>> {
        let backend = self.engine.backend().map_err(|error| told(&error))?;
        let limits = Limits { workspace_bytes: random.between(1, 64) << 20, ..Limits::default() };
        Ok(backend.spawn(
            TEMPLATE,
            &SpawnOptions { limits, worker, shell: true, cpu_total_seconds: None, process_spawning: random.chance(30), background: random.chance(30) },
        )?)
    }

    fn dispatch(&self, program: &Program, control: &Control, out: Option<PathBuf>) -> anyhow::Result<Execution> {
        let mut request = program.request();
        request.out = out;
        let command = Command::Run { request: Box::new(request), observer: &mut Silent, control, progress: &mut |_| {} };
        match self.engine.dispatch(command).map_err(|error| told(&error))? {
            Reply::Execution(execution) => Ok(*execution),
            other @ Reply::Environments(_) => bail!("a run came to {other:?}"),
        }
    }

    /// Whether the engine has a launcher; starts it where not.
    pub(crate) fn is_up(&self) -> bool {
        self.engine.backend().is_ok()
    }

    /// Whether another launcher takes the place of one that is gone: then a sandbox can be started again.
    pub(crate) fn comes_back(&self, random: &mut Random) -> bool {
        self.watched("spawn by another launcher", || {
            (0..50).any(|_| {
                let is_started = self.spawn(WorkerStart::Exec, random).is_ok();
                if !is_started {
                    std::thread::sleep(Duration::from_millis(100));
                }
                is_started
            })
        })
    }

    /// One round: threads that start and end sandboxes of one pool after the other, until `round.until`, or until `stop`.
    pub(crate) fn round(&self, round: &Round, random: &mut Random, stop: &AtomicBool) {
        let pool = match self.watched("start of a pool", || self.pool(random)) {
            Ok(pool) => Mutex::new(Arc::new(pool)),
            Err(error) => return self.failed(round, "a pool", &error),
        };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if round.disturbed {
                let random = random.split();
                scope.spawn(|| self.disturb(random, &over));
            }
            let workers: Vec<_> = (0..round.threads)
                .map(|_| {
                    let random = random.split();
                    scope.spawn(|| self.work(round, &pool, random, stop))
                })
                .collect();
            for worker in workers {
                if worker.join().is_err() {
                    self.problem("a thread panicked".to_owned());
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        let pool = pool.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !round.disturbed {
            pool.0.status().problems.into_iter().for_each(|problem| self.problem(format!("pool: {problem}")));
        }
        self.watched("drop of a pool", || drop(pool));
    }

    fn failed(&self, round: &Round, what: &str, error: &anyhow::Error) {
        if !round.disturbed {
            self.problem(format!("{what}: {error:#}"));
        }
    }

    fn work(&self, round: &Round, shared: &Mutex<Arc<(Pool, Lease)>>, mut random: Random, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) && self.started.fetch_add(1, Ordering::Relaxed) < round.until {
            if random.chance(1) {
                let made = self.watched("start of another pool", || self.pool(&mut random));
                match made {
                    Ok(made) => {
                        let old = std::mem::replace(&mut *lock(shared), Arc::new(made));
                        self.watched("drop of the pool before", || drop(old));
                    }
                    Err(error) => self.failed(round, "another pool", &error),
                }
            }
            let pool = Arc::clone(&lock(shared));
            let Some(way) = random.weighted(WAYS) else { return };
            let clock = Instant::now();
            let result = self.watched(way.name, || (way.go)(self, &pool.0, &mut random));
            let took = clock.elapsed();
            self.watched("drop of the last use of a pool", || drop(pool));
            let mut counts = lock(&self.counts);
            let count = counts.entry(way.name).or_default();
            count.longest = count.longest.max(took);
            match result {
                Ok(()) => count.done += 1,
                Err(error) => {
                    count.failed += 1;
                    drop(counts);
                    self.failed(round, way.name, &error);
                }
            }
        }
    }

    /// Kills processes below the launcher: inits, templates, workers, what shell commands left, half-made sandboxes.
    fn disturb(&self, mut random: Random, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            random.pause(Duration::from_millis(150));
            let Some((outer, inner)) = process::launchers(std::process::id()) else { continue };
            let mut family = process::below(inner);
            family.retain(|process| !process.ended && process.pid != outer);
            let wanted = random.one(&["belljar-init", "--template", "belljar-launcher", "driver", "", ""]).copied().unwrap_or_default();
            family.retain(|process| wanted.is_empty() || process::command(process.pid).contains(wanted));
            if random.chance(50) {
                // The youngest are in the middle of something.
                family.sort_by_key(|process| std::cmp::Reverse(process.start));
                family.truncate(2);
            }
            if random.one(&family).is_some_and(process::kill) {
                self.victims.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn exec_dropped(mix: &Mix, _: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let sandbox = mix.spawn(WorkerStart::Exec, random)?;
    random.pause(Duration::from_millis(100));
    if random.chance(50) {
        sandbox.kill();
    }
    drop(sandbox);
    Ok(())
}

fn bare_dropped(mix: &Mix, _: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let mut sandbox = mix.spawn(WorkerStart::None, random)?;
    if random.chance(50) {
        let work = Work::Shell(b"sleep 1000 & (setsid sleep 1000 &); exec sleep 1000".to_vec());
        sandbox.remote().send(&ToInit::Execute(Execute { execution: 1, work }))?;
    }
    random.pause(Duration::from_millis(50));
    sandbox.kill();
    if random.chance(50) {
        ensure!(sandbox.wait(Duration::from_secs(20)).is_some(), "a sandbox that was killed is still there");
    }
    Ok(())
}

fn exec_running_dropped(mix: &Mix, _: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let mut sandbox = mix.spawn(WorkerStart::Exec, random)?;
    let programs = if random.chance(50) { PROGRAMS } else { ENDLESS };
    let program = random.weighted(programs).context("there are programs")?;
    let work = match program.language {
        Language::Python => Work::Code(serde_json::json!({"code": program.code, "inputs": {}}).to_string().into_bytes()),
        Language::Shell => Work::Shell(program.code.as_bytes().to_vec()),
    };
    sandbox.remote().send(&ToInit::Execute(Execute { execution: 1, work }))?;
    if random.chance(50) {
        // Listened to, or not: then its outputs fill the channel.
        let deadline = Instant::now() + random.span(Duration::from_millis(250));
        while sandbox.receive(Some(deadline))?.is_some() {}
    } else {
        random.pause(Duration::from_millis(250));
    }
    if random.chance(20) {
        let _ = sandbox.freeze(true);
    }
    drop(sandbox);
    Ok(())
}

fn dispatched(mix: &Mix, _: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let program = random.weighted(PROGRAMS).context("there are programs")?;
    let out = random.chance(30).then(|| mix.out.join(format!("{:016x}", random.number())));
    if let Some(out) = &out {
        std::fs::create_dir(out)?;
    }
    let execution = mix.dispatch(program, &Control::default(), out.clone());
    out.map_or(Ok(()), std::fs::remove_dir_all)?;
    program.judge(&execution?)
}

/// Runs what has no end, interrupted once or twice from another thread.
fn interrupted(random: &mut Random, run: impl FnOnce(&Program, &Control) -> anyhow::Result<Execution>) -> anyhow::Result<()> {
    let program = random.weighted(ENDLESS).context("there are programs")?;
    let control = Control::default();
    let first = random.span(Duration::from_millis(500));
    let second = random.chance(50).then(|| random.span(Duration::from_millis(100)));
    let execution = std::thread::scope(|scope| {
        let control = &control;
        scope.spawn(move || {
            std::thread::sleep(first);
            control.interrupt();
            if let Some(second) = second {
                std::thread::sleep(second);
                control.interrupt();
            }
        });
        run(program, control)
    });
    program.judge(&execution?).with_context(|| format!("interrupted after {first:?} and {second:?}"))
}

fn dispatched_interrupted(mix: &Mix, _: &Pool, random: &mut Random) -> anyhow::Result<()> {
    interrupted(random, |program, control| mix.dispatch(program, control, None))
}

fn taken_interrupted(_: &Mix, pool: &Pool, random: &mut Random) -> anyhow::Result<()> {
    interrupted(random, |program, control| pool.run(&program.request(), &mut Silent, control).map_err(|error| told(&error)))
}

fn taken_dropped(_: &Mix, pool: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let taken = pool.take(&Limits::default()).map_err(|error| told(&error))?;
    if random.chance(50) {
        random.pause(Duration::from_millis(10));
    }
    drop(taken);
    Ok(())
}

fn taken_run(_: &Mix, pool: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let program = random.weighted(PROGRAMS).context("there are programs")?;
    program.judge(&pool.run(&program.request(), &mut Silent, &Control::default()).map_err(|error| told(&error))?)
}

/// Limits that no parked sandbox has: a new one is forked, and its worker is still on its way when it is dropped.
fn on_demand_dropped(_: &Mix, pool: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let taken = pool.take(&Limits { workspace_bytes: 8 << 20, ..Limits::default() }).map_err(|error| told(&error))?;
    random.pause(Duration::from_millis(15));
    drop(taken);
    Ok(())
}

fn worker_replaced(_: &Mix, pool: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let mut taken = pool.take(&Limits::default()).map_err(|error| told(&error))?;
    run_in(&mut taken, "exit of the worker")?;
    if random.chance(70) {
        taken.replace_worker().map_err(|error| told(&error))?;
    }
    run_in(&mut taken, "print")
}

fn run_in(taken: &mut Taken, wanted: &str) -> anyhow::Result<()> {
    let program = PROGRAMS.iter().map(|(_, program)| program).find(|program| program.name == wanted).context("there is such a program")?;
    program.judge(&taken.run(&program.request(), &mut Silent, &Control::default()).map_err(|error| told(&error))?)
}

fn pool_dropped(mix: &Mix, _: &Pool, random: &mut Random) -> anyhow::Result<()> {
    let pool = mix.pool(random)?;
    random.pause(Duration::from_millis(60));
    drop(pool);
    Ok(())
}
