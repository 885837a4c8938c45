//! Sandboxes made ahead of need: started, confined, reseeded and warmed, they wait for the one execution or session they are for.
//!
//! A pool keeps a template's process, from which it forks workers, and as many parked sandboxes as it is set to. Taking one is the
//! hot path. Each is handed out once and destroyed after. Two kinds of threads work behind it: one keeps the template's process
//! (started again when it dies, replaced when it is old), the others keep the pool full. Where a template's process cannot be had,
//! sandboxes start their interpreter by exec: slower, and otherwise the same.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sandbox::cgroup::Counters;
use sandbox::{Backend, FromInit, Limits, Preload, Sandbox, SpawnOptions, TemplateId, TemplateProcess, WorkerStart};

use crate::artifact::Before;
use crate::error::{Error, ErrorKind};
use crate::execution::Execution;
use crate::run::{self, Control, Observer, Ran, RunRequest, Turn};
use crate::runtime::{self, Report};

/// How long a worker may take from its start until it waits for code.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts that fail: this at first, doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often the keeper looks at its template's process, and refillers at their stock.
const LOOK: Duration = Duration::from_millis(100);
/// With stock left, refilling waits for running executions, but never longer than this for one sandbox.
const YIELD: Duration = Duration::from_millis(250);
/// What was handed out is put to use within this time: refilling that starts in between would share the CPU with it.
const HAND_OUT: Duration = Duration::from_millis(5);
/// Memory that a parked sandbox takes, for the decision whether there is room for one more, in bytes.
const PARKED_BYTES: u64 = 16 * 1024 * 1024;

/// What a template's process imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imports {
    /// A profile of the runtime's manifest, by its name.
    Profile(String),
    /// These modules, in this order, then this code.
    Modules {
        /// Names as `import` takes them.
        modules: Vec<String>,
        /// Code that runs once; empty: none.
        warm_up: String,
    },
}

impl std::fmt::Display for Imports {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Profile(name) => write!(formatter, "import profile `{name}`"),
            Self::Modules { modules, .. } => write!(formatter, "imports of {}", if modules.is_empty() { "nothing".to_owned() } else { modules.join(", ") }),
        }
    }
}

/// What a pool is made of.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Sandboxes that wait, at most.
    pub ready: usize,
    /// What the template's process imports.
    pub imports: Imports,
    /// Run a small job in each sandbox before it is parked.
    pub warm: bool,
    /// Limits of the sandboxes.
    pub limits: Limits,
    /// Shell commands are allowed.
    pub shell: bool,
    /// Python code may start processes.
    pub process_spawning: bool,
    /// CPU seconds that a sandbox's process may use in its whole life, over many executions; `None`: what one execution may.
    pub cpu_total_seconds: Option<u64>,
    /// The template's process is replaced after this many forks…
    pub recycle_forks: u64,
    /// …or at this age: what all sandboxes of one process share (hash seed, memory layout) is worth less to who learns it.
    pub recycle_age: Duration,
    /// How long one import of the template's process may take.
    pub import_patience: Duration,
    /// Private data that the template's process may have, in bytes.
    pub template_bytes: u64,
    /// Memory of the host that parked sandboxes leave free, in bytes.
    pub reserve_bytes: u64,
    /// Threads that refill.
    pub refillers: usize,
    /// Refilling waits for running executions while there is stock.
    pub yields: bool,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            ready: 8,
            imports: Imports::Profile("light".to_owned()),
            warm: true,
            limits: Limits::default(),
            shell: true,
            process_spawning: false,
            cpu_total_seconds: None,
            recycle_forks: 10_000,
            recycle_age: Duration::from_secs(3600),
            import_patience: Duration::from_secs(60),
            template_bytes: 4 << 30,
            reserve_bytes: 512 << 20,
            refillers: 2,
            yields: true,
        }
    }
}

/// How a pool is doing.
#[derive(Debug, Clone, Default)]
pub struct PoolStatus {
    /// Sandboxes that wait.
    pub parked: usize,
    /// Sandboxes that were handed out and are in use.
    pub taken: usize,
    /// Forks of the current template's process.
    pub forks: u64,
    /// Template processes started so far.
    pub generations: u64,
    /// What the current template's process said of its imports.
    pub report: Option<Report>,
    /// What went wrong last, with its remedy: of the template's process, and of refilling.
    pub problems: Vec<String>,
}

/// A template's process in use.
#[derive(Debug, Clone)]
struct Current {
    process: TemplateProcess,
    forks: u64,
    since: Instant,
    report: Report,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    generations: u64,
    parked: VecDeque<Box<dyn Sandbox>>,
    /// Sandboxes that refillers are making.
    making: usize,
    taken: usize,
    /// Executions that run.
    executing: usize,
    /// When a sandbox was handed out last.
    handed_out: Option<Instant>,
    /// Sandboxes to be destroyed.
    used: Vec<Box<dyn Sandbox>>,
    template_problem: Option<String>,
    refill_problem: Option<String>,
    stop: bool,
}

struct Shared {
    backend: Arc<dyn Backend>,
    template: TemplateId,
    settings: PoolSettings,
    command: Vec<String>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Parked sandboxes of one template.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A sandbox that was handed out. It goes back for destruction when dropped.
pub struct Taken {
    sandbox: Option<Box<dyn Sandbox>>,
    shared: Arc<Shared>,
    /// What its control group had counted when its last execution ended.
    counters: Counters,
    /// It had been parked.
    pub parked: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, patience: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0
    }

    fn options(&self, limits: Limits, process: Option<TemplateProcess>, background: bool) -> SpawnOptions {
        let worker = process.map_or(WorkerStart::Exec, WorkerStart::Fork);
        let PoolSettings { shell, process_spawning, cpu_total_seconds, .. } = self.settings;
        SpawnOptions { limits, worker, shell, process_spawning, cpu_total_seconds, background }
    }

    /// The template's process to fork from next, counted.
    fn process(&self) -> Option<TemplateProcess> {
        let mut state = self.lock();
        let current = state.current.as_mut()?;
        current.forks = current.forks.saturating_add(1);
        Some(current.process)
    }

    /// Makes a sandbox, waits until its worker is ready for code, and lets it rehearse.
    fn make(&self, background: bool) -> Result<Box<dyn Sandbox>, Error> {
        let sandbox = self.make_once(background)?;
        // Its template was replaced or died just then: the sandbox is good, but not what a pool is for.
        if !sandbox.is_forked() && self.lock().current.is_some() {
            return self.make_once(background);
        }
        Ok(sandbox)
    }

    fn make_once(&self, background: bool) -> Result<Box<dyn Sandbox>, Error> {
        let mut sandbox = self.backend.spawn(self.template, &self.options(self.settings.limits, self.process(), background))?;
        until_ready(sandbox.as_mut())?;
        if self.settings.warm && sandbox.is_forked() {
            run::rehearse(sandbox.as_mut())?;
        }
        Ok(sandbox)
    }
}

/// Waits until a worker is ready for code.
fn until_ready(sandbox: &mut dyn Sandbox) -> Result<(), Error> {
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        match sandbox.receive(Some(deadline))? {
            Some(FromInit::WorkerReady) => return Ok(()),
            Some(FromInit::WorkerLost(exit)) => {
                return Err(Error::new(ErrorKind::Unavailable, format!("the interpreter of a sandbox ended before it was ready ({exit:?})"))
                    .hint("raise the pool's memory limit, or look at what the environment's packages do when they start"));
            }
            Some(_) => {}
            None => return Err(Error::new(ErrorKind::Unavailable, "the interpreter of a sandbox was not ready in time")),
        }
    }
}

impl Pool {
    /// Starts a pool. Returns when its template's process is ready, or has failed: then [`Self::status`] tells why, and the pool serves all the same.
    ///
    /// # Errors
    /// An unknown profile; no thread to be had.
    pub(crate) fn start(backend: Arc<dyn Backend>, template: TemplateId, settings: PoolSettings) -> Result<Self, Error> {
        let command = runtime::template_command(&settings.imports)?;
        let refillers = if settings.ready == 0 { 0 } else { settings.refillers.max(1) };
        let shared = Arc::new(Shared { backend, template, settings, command, state: Mutex::default(), changed: Condvar::new() });
        if let Err(error) = renew(&shared) {
            shared.lock().template_problem = Some(told(&error));
        }
        let mut pool = Self { shared, threads: Vec::new() };
        pool.spawn_thread("template-keeper", keep)?;
        // Not waited for at the end: a template that is being started may take its time, and ends by itself.
        pool.threads.clear();
        pool.spawn_thread("pool-cleaner", clean)?;
        for _ in 0..refillers {
            pool.spawn_thread("pool-refiller", refill)?;
        }
        Ok(pool)
    }

    fn spawn_thread(&mut self, name: &str, work: fn(&Shared)) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared));
        self.threads.push(thread.map_err(|error| Error::new(ErrorKind::Unavailable, format!("no thread for the pool: {error}")))?);
        Ok(())
    }

    /// Hands a sandbox out: a parked one where there is one and it can be given these limits, else a new one.
    ///
    /// # Errors
    /// Where a new one is needed and cannot be made.
    pub fn take(&self, limits: &Limits) -> Result<Taken, Error> {
        let mut parked = {
            let mut state = self.shared.lock();
            state.taken += 1;
            state.handed_out = Some(Instant::now());
            state.parked.pop_front()
        };
        // Refillers are not woken: this is the moment in which the machine has something better to do. They look by themselves.
        let hand_out = |sandbox, parked| Taken { sandbox, shared: Arc::clone(&self.shared), counters: Counters::default(), parked };
        while let Some(mut sandbox) = parked {
            let adjusted = if sandbox.has_ended() { None } else { sandbox.adjust(limits).ok() };
            if adjusted == Some(true) {
                return Ok(hand_out(Some(sandbox), true));
            }
            let mut state = self.shared.lock();
            if adjusted == Some(false) {
                // It cannot have these limits: the next caller may want it.
                state.parked.push_front(sandbox);
                break;
            }
            // Dead, or with limits that are neither these nor those.
            state.taken += 1;
            state.used.push(sandbox);
            parked = state.parked.pop_front();
        }
        // From here on, dropping it counts it off.
        let mut taken = hand_out(None, false);
        taken.sandbox = Some(self.shared.backend.spawn(self.shared.template, &self.shared.options(*limits, self.shared.process(), false))?);
        Ok(taken)
    }

    /// Makes a sandbox as those that are parked are made, ready for code, and hands it out instead of parking it.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn make(&self) -> Result<Taken, Error> {
        self.shared.lock().taken += 1;
        // From here on, dropping it counts it off.
        let mut taken = Taken { sandbox: None, shared: Arc::clone(&self.shared), counters: Counters::default(), parked: false };
        taken.sandbox = Some(self.shared.make(false)?);
        Ok(taken)
    }

    /// One execution in a sandbox of the pool, which is destroyed after.
    ///
    /// # Errors
    /// Where we could not do our part. Code that fails is no error: its execution says so.
    pub fn run(&self, request: &RunRequest, observer: &mut dyn Observer, control: &Control) -> Result<Execution, Error> {
        let mut taken = self.take(&request.limits)?;
        taken.run(request, observer, control)
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let state = self.shared.lock();
        PoolStatus {
            parked: state.parked.len(),
            taken: state.taken,
            forks: state.current.as_ref().map_or(0, |current| current.forks),
            generations: state.generations,
            report: state.current.as_ref().map(|current| current.report.clone()),
            problems: state.template_problem.iter().chain(&state.refill_problem).cloned().collect(),
        }
    }

    /// Waits until this many sandboxes are parked; false where they are not within `patience`.
    #[must_use]
    pub fn wait_until_parked(&self, count: usize, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.parked.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wait(state, left);
        }
        true
    }

    /// Waits until every used sandbox is destroyed; false where that is not within `patience`.
    #[must_use]
    pub fn wait_until_clean(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.taken > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wait(state, left);
        }
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let parked = {
            let mut state = self.shared.lock();
            state.stop = true;
            std::mem::take(&mut state.parked)
        };
        self.shared.changed.notify_all();
        // All at once, then one after the other: their ends overlap.
        parked.iter().for_each(|sandbox| sandbox.kill());
        drop(parked);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Some(current) = self.shared.lock().current.take() {
            self.shared.backend.end_process(current.process);
        }
    }
}

impl Taken {
    /// The sandbox.
    ///
    /// # Panics
    /// Never: it is there until this is dropped.
    #[expect(clippy::expect_used, reason = "taken out by drop only")]
    pub fn sandbox(&mut self) -> &mut dyn Sandbox {
        self.sandbox.as_deref_mut().expect("a sandbox that was handed out")
    }

    /// Whether its worker was forked from a template: where that could not be, it was executed.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|sandbox| sandbox.is_forked())
    }

    /// Replaces a worker that was lost (`state_lost`) by one forked from the template, so that the next execution does not have to start an
    /// interpreter. Without it, that one does.
    ///
    /// # Errors
    /// Where the sandbox or its launcher is gone, or the worker is not ready in time.
    pub fn replace_worker(&mut self) -> Result<(), Error> {
        let Some(process) = self.shared.process() else { return Ok(()) };
        let sandbox = self.sandbox();
        sandbox.replace_worker(process)?;
        until_ready(sandbox)
    }

    /// Runs once in it.
    ///
    /// # Errors
    /// Where we could not do our part.
    pub fn run(&mut self, request: &RunRequest, observer: &mut dyn Observer, control: &Control) -> Result<Execution, Error> {
        let turn = Turn { number: 1, before: Some(Before::default()), ..Turn::default() };
        self.run_turn(turn, request, observer, control).map(|ran| ran.execution)
    }

    /// Runs in it, after what ran before.
    pub(crate) fn run_turn(&mut self, turn: Turn<'_>, request: &RunRequest, observer: &mut dyn Observer, control: &Control) -> Result<Ran, Error> {
        if let Some(out) = &request.out {
            crate::out::check(out)?;
        }
        control.begin();
        let turn = Turn { isolation: self.shared.backend.name(), counted: self.counters, ..turn };
        self.shared.lock().executing += 1;
        let ran = run::run_in(self.sandbox(), turn, request, observer, control);
        // Refillers are not woken: whoever waits for the answer comes first, and they look by themselves.
        self.shared.lock().executing -= 1;
        let ran = ran?;
        self.counters = ran.counters;
        Ok(ran)
    }

    /// The backend's name.
    pub(crate) fn isolation(&self) -> &'static str {
        self.shared.backend.name()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let sandbox = self.sandbox.take();
        if let Some(sandbox) = &sandbox {
            sandbox.kill();
        }
        let mut state = self.shared.lock();
        match sandbox {
            Some(sandbox) => state.used.push(sandbox),
            None => state.taken = state.taken.saturating_sub(1),
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// Starts a template's process and puts it in the place of the one there is, which ends.
fn renew(shared: &Shared) -> Result<(), Error> {
    let settings = &shared.settings;
    let preload = Preload { command: shared.command.clone(), memory_bytes: settings.template_bytes, patience: settings.import_patience };
    let started = shared.backend.start_process(shared.template, &preload);
    let (process, said) = started.map_err(|error| {
        let message = format!("the template's process ({}) cannot be used: {error}", settings.imports);
        let hint = "sandboxes start without it, and slower; look at the package named, choose another profile, or raise the template's memory";
        Error { detail: Some(error.to_string()), ..Error::new(ErrorKind::Unavailable, message).hint(hint) }
    })?;
    let report = Report::read(&said);
    let problem = report.problem(&settings.imports);
    let mut state = shared.lock();
    if state.stop {
        // Nobody will end it after this.
        drop(state);
        shared.backend.end_process(process);
        return Ok(());
    }
    let old = state.current.replace(Current { process, forks: 0, since: Instant::now(), report });
    state.generations += 1;
    state.template_problem = problem;
    drop(state);
    shared.changed.notify_all();
    if let Some(old) = old {
        shared.backend.end_process(old.process);
    }
    Ok(())
}

/// Keeps a template's process: starts it again when it has died, replaces it when it is used up.
fn keep(shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    let mut not_before = Instant::now() + pause;
    loop {
        let due = {
            let mut state = shared.lock();
            if state.stop {
                return;
            }
            let settings = &shared.settings;
            match &state.current {
                Some(current) if !shared.backend.is_alive(current.process) => {
                    // What is left of it goes, its control groups for one.
                    shared.backend.end_process(current.process);
                    state.current = None;
                    state.template_problem = Some("the template's process has ended; it is started again".to_owned());
                    true
                }
                Some(current) => current.forks >= settings.recycle_forks || current.since.elapsed() >= settings.recycle_age,
                None => true,
            }
        };
        if due && Instant::now() >= not_before {
            match renew(shared) {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    shared.lock().template_problem = Some(told(&error));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            not_before = Instant::now() + pause;
        }
        let state = shared.lock();
        if !state.stop {
            drop(shared.wait(state, LOOK));
        }
    }
}

/// Keeps the pool full.
fn refill(shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    loop {
        {
            let mut state = shared.lock();
            let mut yielded = Duration::ZERO;
            loop {
                if state.stop {
                    return;
                }
                let wanted = state.parked.len() + state.making < shared.settings.ready;
                // Whoever waits for an answer now comes first, while there is something in stock for the next one.
                let stock = state.parked.len() * 2 > shared.settings.ready;
                let occupied = state.executing > 0 || state.handed_out.is_some_and(|handed_out| handed_out.elapsed() < HAND_OUT);
                let busy = shared.settings.yields && stock && occupied && yielded < YIELD;
                if wanted && !busy {
                    break;
                }
                let before = Instant::now();
                state = shared.wait(state, if wanted { Duration::from_millis(5) } else { LOOK });
                yielded = if wanted { yielded + before.elapsed() } else { Duration::ZERO };
            }
            state.making += 1;
        }
        let made = room(shared).and_then(|()| shared.make(shared.settings.yields));
        let mut state = shared.lock();
        state.making -= 1;
        match made {
            Ok(sandbox) => {
                state.parked.push_back(sandbox);
                state.refill_problem = None;
                pause = FIRST_PAUSE;
                drop(state);
                shared.changed.notify_all();
            }
            Err(error) => {
                state.refill_problem = Some(format!("the pool holds {} of {} sandboxes: {}", state.parked.len(), shared.settings.ready, told(&error)));
                let until = Instant::now() + pause;
                while !state.stop && Instant::now() < until {
                    state = shared.wait(state, until.saturating_duration_since(Instant::now()));
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// An error with its remedy, in one line.
fn told(error: &Error) -> String {
    error.hint.as_deref().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

/// Whether the host has memory for one more parked sandbox.
fn room(shared: &Shared) -> Result<(), Error> {
    let wanted = shared.settings.reserve_bytes.saturating_add(PARKED_BYTES);
    match sandbox::memory::available_bytes() {
        Some(available) if available < wanted => {
            let message = format!("no memory for one more: {} MiB are available, and {} MiB stay free", available >> 20, shared.settings.reserve_bytes >> 20);
            Err(Error::new(ErrorKind::Unavailable, message).hint("lower the pool's `ready`, or give the host more memory"))
        }
        _ => Ok(()),
    }
}

/// Destroys what was used: nobody waits for that.
fn clean(shared: &Shared) {
    loop {
        let used = {
            let mut state = shared.lock();
            while state.used.is_empty() {
                if state.stop {
                    // What is still out there is destroyed with the last that holds it.
                    return;
                }
                state = shared.wait(state, LOOK);
            }
            std::mem::take(&mut state.used)
        };
        let count = used.len();
        drop(used);
        let mut state = shared.lock();
        state.taken = state.taken.saturating_sub(count);
        drop(state);
        shared.changed.notify_all();
    }
}
