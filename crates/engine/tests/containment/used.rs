//! Sessions that code and commands have run in before; and a second one beside them, which must go on whatever happens.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::record::Unrecorded;
use engine::session::{Caller, Create, ExecuteRequest, LimitsRequest, Session, SessionPoolSettings, Sessions, parse_path};
use engine::{Engine, Error, Execution, Imports, Language, Limits, Outcome, PoolSettings};
use serde_json::Map;

/// Sessions at once, the neighbour's among them.
const MAX_SESSIONS: usize = 208;
/// Nobody waits longer for a sign of life. Nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the sessions have behind them: variables, a thread, a copy of an old stream, files…
const BEFORE: &str = "import os, threading\nleft, kept = 'left', os.dup(1)\nopen('/mnt/data/left.txt', 'w').write('left')\n\
                      threading.Thread(target=threading.Event().wait, daemon=True).start()\nprint(left)";
/// …and a command that tried to leave something running.
const COMMAND_BEFORE: &str = "(setsid sleep 600 > /dev/null 2>&1 &); echo left > /tmp/left; cd /tmp; echo left";

/// Sessions whose workers are forked, and sessions whose workers are executed because their template's process cannot start.
pub(crate) struct Visits {
    runtime: tokio::runtime::Runtime,
    sessions: Arc<Sessions>,
    count: AtomicU32,
}

/// One session.
pub(crate) struct Visit<'a> {
    visits: &'a Visits,
    session: Arc<Session>,
}

impl Visits {
    /// Starts both kinds.
    pub(crate) fn start(engine: &Engine) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let nothing = || Imports::Modules { modules: Vec::new(), warm_up: String::new() };
        let missing = Imports::Modules { modules: vec!["a_module_that_is_not_there".to_owned()], warm_up: String::new() };
        let pools = vec![pool("forked", nothing()), pool("executed", missing)];
        let sessions = {
            let _entered = runtime.enter();
            Sessions::start(engine, pools, Arc::new(Unrecorded), &mut |_| {}).expect("sessions")
        };
        Self { runtime, sessions, count: AtomicU32::new(0) }
    }

    /// A session, used before.
    pub(crate) fn used(&self, pool: &str, limits: &Limits) -> Visit<'_> {
        let visit = self.open("mallory", pool, limits).expect("a session");
        let patience = Duration::from_secs(30);
        for (language, code) in [(Language::Python, BEFORE), (Language::Shell, COMMAND_BEFORE)] {
            let execution = visit.run(language, code, patience).expect("an execution");
            assert_eq!((execution.outcome, execution.stdout.as_str()), (Outcome::Completed, "left\n"), "{:?}", execution.error);
        }
        visit
    }

    /// A session that nobody has used.
    pub(crate) fn open(&self, principal: &str, pool: &str, limits: &Limits) -> Result<Visit<'_>, Error> {
        let id = format!("visit-{}", self.count.fetch_add(1, Ordering::Relaxed));
        let opened = self.runtime.block_on(self.sessions.open(&caller(principal), pool, Some(&id), Create::IfMissing, &wanted(limits)))?;
        Ok(Visit { visits: self, session: opened.session })
    }

    /// Ends all.
    pub(crate) fn stop(self) {
        self.runtime.block_on(self.sessions.shutdown(Duration::ZERO));
        drop(self.sessions);
        self.runtime.shutdown_timeout(Duration::from_secs(10));
    }
}

fn pool(name: &str, imports: Imports) -> SessionPoolSettings {
    SessionPoolSettings {
        name: name.to_owned(),
        environment: "core".to_owned(),
        sandboxes: PoolSettings { ready: usize::from(name == "forked"), imports, ..PoolSettings::default() },
        max_sessions: MAX_SESSIONS,
        idle_timeout: Duration::from_secs(3600),
        max_lifetime: Duration::from_secs(24 * 3600),
        allocation_wait: PATIENCE,
        create_on_use: true,
        region: None,
    }
}

fn caller(principal: &str) -> Caller {
    Caller { principal: principal.into(), max_sessions: None, max_executions: None }
}

/// These limits, as a caller asks for them.
fn wanted(limits: &Limits) -> LimitsRequest {
    LimitsRequest {
        wall_seconds: Some(limits.wall_seconds),
        cpu_seconds: Some(limits.cpu_seconds),
        cpus: Some(limits.cpus),
        memory_bytes: Some(limits.memory_bytes),
        processes: Some(limits.processes),
        open_files: Some(limits.open_files),
        workspace_bytes: Some(limits.workspace_bytes),
        workspace_inodes: Some(limits.workspace_inodes),
        tmp_bytes: Some(limits.tmp_bytes),
        output_bytes: Some(limits.output_bytes),
    }
}

impl Visit<'_> {
    /// Runs once more in it.
    pub(crate) fn run(&self, language: Language, code: &str, timeout: Duration) -> Result<Execution, Arc<Error>> {
        let request = ExecuteRequest {
            language,
            code: code.as_bytes().to_vec(),
            filename: None,
            inputs: Map::new(),
            fresh: false,
            timeout: Some(timeout),
            surface: "test",
        };
        self.visits.runtime.block_on(async {
            let started = self.session.start(&caller("mallory"), request, None)?;
            Ok(started.finished().await?.execution.clone())
        })
    }

    /// Puts a file into its workspace.
    pub(crate) fn put(&self, name: &str, place: &Path) {
        let content = std::fs::read(place).expect("the file to upload");
        self.visits.runtime.block_on(async {
            let mut upload = self.session.upload(&parse_path(name.as_bytes()).expect("a path"), None).await.expect("an upload");
            upload.write(&content).await.expect("written");
            upload.finish().await.expect("taken");
        });
    }

    /// Whether it runs on, or has ended and says so: nothing else may have become of it.
    pub(crate) fn goes_on(&self) -> Result<(), String> {
        let (mut last, deadline) = (String::new(), Instant::now() + PATIENCE);
        // What was left over may be told by the first one; and where processes are still on their way out, there may be no room for an interpreter.
        while Instant::now() < deadline {
            match self.run(Language::Python, "print(6 * 7)", Duration::from_secs(30)) {
                Ok(execution) if execution.outcome == Outcome::Completed && execution.stdout == "42\n" => return Ok(()),
                Ok(execution) => last = format!("{:?} {:?} {:?}", execution.outcome, execution.stdout, execution.error),
                Err(error) if error.kind == engine::ErrorKind::NotFound => return Ok(()),
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("its session does not go on: {last}"))
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.visits.runtime.block_on(self.visits.sessions.close(&self.session));
    }
}

/// How the second session fares.
#[derive(Default)]
struct Pulse {
    beats: u64,
    failures: Vec<String>,
    milliseconds: Vec<u64>,
}

#[derive(Default)]
struct Shared {
    pulse: Mutex<Pulse>,
    changed: Condvar,
    stop: AtomicBool,
}

/// The second session: it runs `print(1)` again and again beside everything that is tried.
pub(crate) struct Neighbour {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// Moves in.
    pub(crate) fn start(visits: &Arc<Visits>) -> Self {
        let shared = Arc::new(Shared::default());
        let (visits, own) = (Arc::clone(visits), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let visit = visits.open("neighbour", "forked", &Limits::default()).expect("the neighbour's session");
            while !own.stop.load(Ordering::Relaxed) {
                let clock = Instant::now();
                let came = visit.run(Language::Python, "print(1)", PATIENCE);
                let elapsed = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
                let mut pulse = own.pulse.lock().unwrap_or_else(PoisonError::into_inner);
                match came {
                    Ok(execution) if execution.stdout == "1\n" => pulse.milliseconds.push(elapsed),
                    Ok(execution) => pulse.failures.push(format!("{:?} {:?}", execution.outcome, execution.error)),
                    Err(error) => pulse.failures.push(error.to_string()),
                }
                pulse.beats += 1;
                drop(pulse);
                own.changed.notify_all();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Whether it has gone on since this was last asked, and goes on now.
    pub(crate) fn went_on(&self) -> Result<(), String> {
        let mut pulse = self.shared.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, deadline) = (pulse.beats, Instant::now() + PATIENCE);
        // The one that runs now may have begun long ago.
        while pulse.beats < now + 2 && Instant::now() < deadline {
            pulse = self.shared.changed.wait_timeout(pulse, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner).0;
        }
        let failures = std::mem::take(&mut pulse.failures);
        match failures.first() {
            Some(failure) => Err(format!("the second session failed: {failure}")),
            None if pulse.beats < now + 2 => Err("the second session does not go on".to_owned()),
            None => Ok(()),
        }
    }

    /// How long its executions took since this was last asked: how many, the 99th percentile and the longest, in milliseconds.
    pub(crate) fn times(&self) -> (usize, u64, u64) {
        let mut times = std::mem::take(&mut self.shared.pulse.lock().unwrap_or_else(PoisonError::into_inner).milliseconds);
        times.sort_unstable();
        let at = times.len().saturating_mul(99).div_ceil(100).saturating_sub(1);
        (times.len(), times.get(at).copied().unwrap_or_default(), times.last().copied().unwrap_or_default())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
