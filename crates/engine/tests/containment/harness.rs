//! Runs probes: in sandboxes through the engine, with a layer off, and outside as the same user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::environment::{Host, Lease, Progress};
use engine::{
    Command, Control, Controls, Engine, Execution, Language, Limits, Observer, Outcome, Output, Pool, PoolSettings, Reply, RunRequest, Settings, Stream, Value,
};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::used::Visits;

/// What a probe printed.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Document {
    /// What came of each attempt.
    pub(crate) attempts: Map<String, Json>,
    /// What was found.
    pub(crate) facts: Map<String, Json>,
}

/// A run inside.
pub(crate) struct Inside {
    /// What the probe printed; `None` where it did not come that far.
    pub(crate) document: Option<Document>,
    /// The execution.
    pub(crate) execution: Execution,
    /// What was wrong after it.
    pub(crate) trouble: Option<String>,
}

impl Document {
    /// Adds what another probe printed.
    fn extend(&mut self, other: Self) {
        self.attempts.extend(other.attempts);
        self.facts.extend(other.facts);
    }
}

/// What a run inside gets.
pub(crate) struct Order {
    /// Its limits.
    pub(crate) limits: Limits,
    /// Code that runs after it, in the same sandbox, where there is a second execution.
    pub(crate) second: Option<String>,
    /// Files to put into the workspace.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Python may start processes.
    pub(crate) process_spawning: bool,
    /// Where artifacts go.
    pub(crate) out: Option<PathBuf>,
}

impl Default for Order {
    fn default() -> Self {
        Self { limits: Limits { wall_seconds: 60, ..Limits::default() }, second: None, files: Vec::new(), process_spawning: false, out: None }
    }
}

/// The ways in.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// The interpreter is executed in a fresh sandbox.
    Executed(&'a Engine),
    /// The worker is forked from a template, warmed and parked. Code may start processes in the second pool.
    Forked(&'a Pool, &'a Pool),
    /// A session that was used before; its worker is of the first or the second kind.
    Used(&'a Visits, &'static str),
}

/// The ways of every row, by the names that [`Engines::get`] knows. The short form has both ways in and both kinds of sandbox in two.
pub(crate) fn ways() -> &'static [&'static str] {
    if crate::report::is_full() { &["full", "forked", "used", "used forked"] } else { &["full", "used forked"] }
}

/// Engines by the layers that are on.
pub(crate) struct Engines {
    pools: OnceLock<[(Pool, Lease); 2]>,
    visits: Arc<Visits>,
    full: Engine,
    without_seccomp: Engine,
    without_landlock: Engine,
    bare: Engine,
}

impl Engines {
    /// Engines on one data folder. Each starts when it is first needed.
    pub(crate) fn new(data: &Path) -> Self {
        let host = Host::new(std::env::vars_os());
        let cgroups = std::env::var_os("BELLJAR_CONTAINMENT_CGROUPS").is_none_or(|value| value != "off");
        let engine = |seccomp, landlock| Engine::new(Settings { data: data.to_owned(), host: host.clone(), controls: Controls { seccomp, landlock, cgroups } });
        let full = engine(true, true);
        Self {
            pools: OnceLock::new(),
            visits: Arc::new(Visits::start(&full)),
            full,
            without_seccomp: engine(false, true),
            without_landlock: engine(true, false),
            bare: engine(false, false),
        }
    }

    /// The engine with every layer on.
    pub(crate) fn full(&self) -> &Engine {
        &self.full
    }

    /// The sessions.
    pub(crate) fn visits(&self) -> &Arc<Visits> {
        &self.visits
    }

    /// Ends what runs. Everybody else has let go of the sessions.
    pub(crate) fn stop(self) {
        if let Some(visits) = Arc::into_inner(self.visits) {
            visits.stop();
        }
    }

    /// The way of a control by its name in the table, or one of [`ways`]; the full engine for every other name.
    pub(crate) fn get(&self, control: &str) -> Way<'_> {
        match control {
            "seccomp" => Way::Executed(&self.without_seccomp),
            "landlock" => Way::Executed(&self.without_landlock),
            "bare" => Way::Executed(&self.bare),
            "forked" => {
                let [(usual, _), (spawning, _)] = self.pools.get_or_init(|| [self.pool(2, false), self.pool(1, true)]);
                Way::Forked(usual, spawning)
            }
            "used" => Way::Used(&self.visits, "executed"),
            "used forked" => Way::Used(&self.visits, "forked"),
            _ => Way::Executed(&self.full),
        }
    }

    fn pool(&self, ready: usize, process_spawning: bool) -> (Pool, Lease) {
        let settings = PoolSettings { ready, process_spawning, limits: Order::default().limits, ..PoolSettings::default() };
        let pool = self.full.pool("core", settings, &mut |_| {}).expect("a pool");
        assert!(pool.0.wait_until_parked(ready, Duration::from_secs(60)), "{:?}", pool.0.status());
        assert_eq!(pool.0.status().problems, Vec::<String>::new());
        pool
    }
}

/// Nobody watches.
pub(crate) struct Silent;

impl Observer for Silent {
    fn wrote(&mut self, _: Stream, _: &[u8]) {}
    fn showed(&mut self, _: &Output) {}
    fn result(&mut self, _: &Value) {}
}

/// Runs code in a fresh sandbox of the environment `core`.
pub(crate) fn run(way: Way<'_>, language: Language, code: &str, order: &Order, watch: (&mut dyn Observer, &Control)) -> Execution {
    let request = RunRequest {
        language,
        code: code.as_bytes().to_vec(),
        filename: None,
        inputs: Map::new(),
        fresh: false,
        files: order.files.clone(),
        limits: order.limits,
        environment: "core".to_owned(),
        process_spawning: order.process_spawning,
        out: order.out.clone(),
    };
    let mut progress = |step: Progress<'_>| eprintln!("{step:?}");
    let (observer, control) = watch;
    let engine = match way {
        Way::Executed(engine) => engine,
        Way::Forked(usual, spawning) => {
            let pool = if order.process_spawning { spawning } else { usual };
            assert!(pool.wait_until_parked(1, Duration::from_secs(60)), "{:?}", pool.status());
            let mut taken = pool.take(&request.limits).expect("a sandbox");
            // A sandbox that waits may not be able to take narrower limits: another one is forked then.
            assert!(taken.is_forked(), "{:?}", pool.status());
            return taken.run(&request, observer, control).expect("the engine does its part");
        }
        Way::Used(..) => panic!("a session is visited"),
    };
    match engine.dispatch(Command::Run { request: Box::new(request), observer, control, progress: &mut progress }) {
        Ok(Reply::Execution(execution)) => *execution,
        other => panic!("the engine could not do its part: {other:?}"),
    }
}

/// Runs a probe in one of the languages of the table.
pub(crate) fn inside(way: Way<'_>, language: &str, code: &str, order: Order, scratch: &Path) -> Inside {
    let mut order = order;
    let script = scratch.join("probe.py");
    fs::write(&script, code).expect("the script is written");
    order.files.push(("probe.py".to_owned(), script));
    let (language, code) = match language {
        "python" => (Language::Python, code.to_owned()),
        "shell" => (Language::Shell, "exec /opt/env/bin/python -I /mnt/data/probe.py".to_owned()),
        "bang" => (Language::Python, "get_ipython().system('/opt/env/bin/python -I /mnt/data/probe.py')".to_owned()),
        "bash" => (Language::Shell, code.to_owned()),
        other => panic!("no language {other}"),
    };
    if let Way::Used(visits, kind) = way {
        return visit(visits, kind, (language, &code), &order);
    }
    let execution = run(way, language, &code, &order, (&mut Silent, &Control::default()));
    Inside { document: document(&execution.stdout), execution, trouble: None }
}

/// Runs a probe, and the one that looks after it, in a session that was used before, and tries whether that goes on.
fn visit(visits: &Visits, kind: &'static str, (language, code): (Language, &str), order: &Order) -> Inside {
    let visit = visits.used(kind, &order.limits);
    for (name, place) in &order.files {
        visit.put(name, place);
    }
    let timeout = Duration::from_secs(order.limits.wall_seconds);
    let execution = visit.run(language, code, timeout).unwrap_or_else(|error| panic!("the engine could not do its part: {error}"));
    let mut found = document(&execution.stdout);
    let mut trouble = visit.goes_on().err();
    if let Some(second) = &order.second {
        let command = format!("cat > /tmp/look.py <<'belljar-end'\n{second}\nbelljar-end\nexec /opt/env/bin/python -I /tmp/look.py");
        let looked = visit.run(Language::Shell, &command, timeout).map_err(|error| error.to_string());
        match looked.map(|execution| document(&execution.stdout)) {
            Ok(Some(second)) => found.get_or_insert_default().extend(second),
            other => trouble = Some(format!("what was left could not be looked at: {other:?}")),
        }
    }
    Inside { document: found, execution, trouble }
}

/// Whether code that ends like this was killed for a call of a foreign ABI.
pub(crate) fn killed_by_sigsys(execution: &Execution) -> bool {
    execution.outcome == Outcome::Killed && execution.error.as_ref().is_some_and(|error| error.message.contains("signal 31"))
}

/// Runs two probes on the host, one after the other.
pub(crate) fn outside_twice(interpreter: &Path, (first, second): (&str, &str), scratch: &Path) -> Result<Document, String> {
    let mut found = outside(interpreter, first, "probe.py", false, scratch)?;
    found.extend(outside(interpreter, second, "look.py", false, scratch)?);
    Ok(found)
}

/// Runs a probe on the host, as the user of this process; `unshared`: as root of namespaces made for it.
pub(crate) fn outside(interpreter: &Path, code: &str, script: &str, unshared: bool, scratch: &Path) -> Result<Document, String> {
    let place = scratch.join(script);
    fs::write(&place, code).map_err(|error| error.to_string())?;
    let mut words: Vec<String> = ["timeout", "30"].map(str::to_owned).to_vec();
    if unshared {
        words.extend(["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--fork"].map(str::to_owned));
    }
    words.push(interpreter.display().to_string());
    words.push(place.display().to_string());
    let output = Process::new(&words[0]).args(&words[1..]).current_dir(scratch).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    document(&said).ok_or_else(|| format!("the control said {said} {}", String::from_utf8_lossy(&output.stderr)))
}

/// The document in what was printed.
fn document(text: &str) -> Option<Document> {
    // The last line may have been cut off.
    text.lines().rev().filter(|line| line.starts_with('{')).find_map(|line| serde_json::from_str(line).ok())
}
