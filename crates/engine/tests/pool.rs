//! Pools and templates: what parked sandboxes share and must not share, and what goes on when something breaks.
//!
//! `BELLJAR_TEST_DATA` names the folder with the environment `core`, which is built there when it is missing.
#![expect(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test stops where its assumption ends")]

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::environment::{Host, Lease, Progress};
use engine::{
    Command, Control, Controls, Engine, Execution, Imports, Language, Limits, Observer, Outcome, Output, Pool, PoolSettings, Reply, RunRequest, Settings,
    Stream, Value,
};
use serde_json::{Map, Value as Json};

const PATIENCE: Duration = Duration::from_secs(60);

struct Silent;

impl Observer for Silent {
    fn wrote(&mut self, _: Stream, _: &[u8]) {}
    fn showed(&mut self, _: &Output) {}
    fn result(&mut self, _: &Value) {}
}

/// One test at a time: they count the processes of this one.
fn engine() -> (MutexGuard<'static, ()>, Engine) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = std::env::var_os("BELLJAR_TEST_DATA").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("data"), PathBuf::from);
    (turn, Engine::new(Settings { data, host: Host::new(std::env::vars_os()), controls: Controls::default() }))
}

fn pool(engine: &Engine, settings: PoolSettings) -> (Pool, Lease) {
    engine.pool("core", settings, &mut |step: Progress<'_>| eprintln!("{step:?}")).expect("a pool")
}

fn small(ready: usize) -> PoolSettings {
    PoolSettings { ready, imports: Imports::Modules { modules: Vec::new(), warm_up: String::new() }, ..PoolSettings::default() }
}

fn modules(names: &[&str], warm_up: &str) -> Imports {
    Imports::Modules { modules: names.iter().map(|name| (*name).to_owned()).collect(), warm_up: warm_up.to_owned() }
}

fn request(code: &str, limits: Limits) -> RunRequest {
    RunRequest {
        language: Language::Python,
        code: code.as_bytes().to_vec(),
        filename: None,
        inputs: Map::new(),
        fresh: false,
        files: Vec::new(),
        limits,
        environment: "core".to_owned(),
        process_spawning: false,
        out: None,
    }
}

fn run(pool: &Pool, code: &str) -> Execution {
    pool.run(&request(code, Limits::default()), &mut Silent, &Control::default()).expect("an execution")
}

/// The JSON that code printed.
fn printed(execution: &Execution) -> Json {
    assert_eq!(execution.outcome, Outcome::Completed, "{execution:?}");
    serde_json::from_str(&execution.stdout).unwrap_or_else(|error| panic!("{error}: {}", execution.stdout))
}

/// Command lines of the processes below this one.
fn processes(name: &str) -> Vec<i32> {
    let mut family = vec![std::process::id()];
    let mut found = Vec::new();
    let mut all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    all.sort_unstable();
    loop {
        let before = family.len();
        for (pid, parent) in &all {
            if family.contains(parent) && !family.contains(pid) {
                family.push(*pid);
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                if String::from_utf8_lossy(&line).contains(name) {
                    found.push(i32::try_from(*pid).expect("a process id"));
                }
            }
        }
        if family.len() == before {
            return found;
        }
    }
}

/// Waits until something holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Everything that two sandboxes of one template must not share. Modules are taken as they are: imported before the fork, or now.
const NUMBERS: &str = r#"
import json, os, random, secrets, sqlite3, ssl, tempfile, uuid, hashlib, socket
import multiprocessing.process
import numpy, pandas
before = os.getcwd()
print(json.dumps({
    "random": random.random(),
    "random.SystemRandom": random.SystemRandom().random(),
    "numpy": float(numpy.random.rand()),
    "numpy.default_rng": float(numpy.random.default_rng().random()),
    "numpy.RandomState": float(numpy.random.RandomState().rand()),
    "pandas.sample": pandas.Series(range(10**6)).sample(4).tolist(),
    "openssl": ssl.RAND_bytes(16).hex(),
    "urandom": os.urandom(16).hex(),
    "getrandom": os.getrandom(16).hex(),
    "secrets": secrets.token_hex(16),
    "sqlite": sqlite3.connect(":memory:").execute("select hex(randomblob(8))").fetchone()[0],
    "uuid1": str(uuid.uuid1()),
    "uuid4": str(uuid.uuid4()),
    "uuid.getnode": uuid.getnode(),
    "tempfile": os.path.basename(tempfile.mkdtemp()),
    "tempfile.name": next(tempfile._get_candidate_names()),
    "multiprocessing": bytes(multiprocessing.process.current_process().authkey).hex(),
}))
"#;

/// What a tenant leaves wherever it can (T163), after looking for what the one before left.
const MARKS: &str = r#"
import builtins, json, os, signal, sys, resource, threading, warnings
import numpy, pandas, tempfile
marks = {}
for folder in ("/mnt/data", "/tmp", "/home/sandbox", "/dev/shm"):
    for place, folders, files in os.walk(folder):
        marks[place] = [name for name in folders + files if "left" in name]
marks["environ"] = [name for name in os.environ if "LEFT" in name]
marks["modules"] = [name for name, module in list(sys.modules.items()) if "left" in name or "left" in getattr(module, "__dict__", {})]
marks["history"] = [source for source in In if source] [:-1] + [str(number) for number in Out]
marks["option"] = pandas.get_option("display.max_rows") == 7
marks["errors"] = numpy.geterr()["over"] == "ignore"
marks["handler"] = callable(signal.getsignal(signal.SIGUSR1))
marks["umask"] = os.umask(0o022) == 0o077
marks["cwd"] = os.getcwd() != "/mnt/data"
marks["threads"] = threading.active_count() > 1
marks["processes"] = sorted(os.listdir("/proc"), key=str) != ["1", str(os.getpid()), "self", "thread-self"]
marks["files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 99
marks["warnings"] = any("left" in str(entry) for entry in warnings.filters)
print(json.dumps(marks))
for folder in ("/mnt/data", "/tmp", "/home/sandbox", "/home/sandbox/.config", "/dev/shm"):
    os.makedirs(folder + "/left", exist_ok=True)
    open(folder + "/left/left", "w").write("left")
os.environ["LEFT"] = builtins.left = numpy.left = pandas.DataFrame.left = left = "left"
sys.modules["left"] = numpy
pandas.set_option("display.max_rows", 7)
numpy.seterr(over="ignore")
signal.signal(signal.SIGUSR1, lambda *_: None)
os.umask(0o077)
os.chdir("/tmp")
warnings.filterwarnings("ignore", "left")
resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))
threading.Thread(target=threading.Event().wait, daemon=True).start()
"#;

/// What the measurements say goes wrong in forked workers, beyond numbers; true where it did not.
const HAZARDS: &str = r#"
import ctypes, json, os, resource, threading, tempfile
import numpy
facts = {"hash": hash("x"), "object": id(object)}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(435, None, 0)
facts["clone3 answers ENOSYS"] = ctypes.get_errno() == 38
# A library that starts its threads after the fork must not hang.
blas = ctypes.CDLL(next(line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line))
name = next(name for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads") if hasattr(blas, name))
getattr(blas, name)(2)
facts["BLAS threads work"] = bool((numpy.ones((300, 300)) @ numpy.ones((300, 300)) == 300).all())
limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
started, gate = [], threading.Event()
try:
    for _ in range(limit + 8):
        started.append(threading.Thread(target=gate.wait))
        started[-1].start()
except RuntimeError:
    pass
facts["the process limit holds"] = len(started) <= limit
gate.set()
facts["the first process is not ours"] = os.getpid() != 1 and os.getppid() == 0
facts["matplotlib can write its settings"] = os.access(os.environ["MPLCONFIGDIR"], os.W_OK)
print(json.dumps(facts))
"#;

#[test]
fn a_hundred_sandboxes_of_one_template_share_no_numbers() {
    let (_turn, engine) = engine();
    // Everything that keeps a state of its own is there before the fork, and has been used.
    let used = "import numpy.random, random, sqlite3, ssl, uuid, tempfile, secrets, hashlib, multiprocessing.process\n\
        sqlite3.connect(':memory:').execute('select randomblob(8)').fetchone()\n\
        numpy.random.rand(); random.random(); ssl.RAND_bytes(8); uuid.uuid1(); uuid.uuid4(); uuid.getnode(); next(tempfile._get_candidate_names())\n\
        hashlib.sha256(b'x').hexdigest(); bytes(multiprocessing.process.current_process().authkey)";
    let imports = modules(&["numpy", "pandas", "ssl", "uuid", "tempfile", "multiprocessing.process"], used);
    let (pool, _lease) = pool(&engine, PoolSettings { ready: 8, imports, ..PoolSettings::default() });
    assert_eq!(pool.status().problems, Vec::<String>::new());
    let mut seen: HashSet<(String, String)> = HashSet::new();
    let mut shared: HashSet<String> = HashSet::new();
    let mut kept: Vec<Execution> = Vec::new();
    for _ in 0..100 {
        assert!(pool.wait_until_parked(1, PATIENCE));
        let mut taken = pool.take(&Limits::default()).expect("a sandbox");
        assert!(taken.parked && taken.is_forked());
        let mut run = |code: &str| taken.run(&request(code, Limits::default()), &mut Silent, &Control::default()).expect("an execution");
        let marks = run(MARKS);
        for (place, left) in printed(&marks).as_object().expect("an object") {
            assert!(left == &Json::Bool(false) || left.as_array().is_some_and(Vec::is_empty), "{place}: {left}");
        }
        // The rest of this tenant's time, with few descriptors and all its marks around.
        let execution = run(NUMBERS);
        let mut facts = printed(&run(HAZARDS));
        let facts = facts.as_object_mut().expect("an object");
        shared.insert(format!("{:?} {:?}", facts.remove("hash"), facts.remove("object")));
        assert!(facts.values().all(|fact| fact == &Json::Bool(true)), "{facts:?}");
        for (source, number) in printed(&execution).as_object().expect("an object") {
            assert!(seen.insert((source.clone(), number.to_string())), "{source} gave {number} twice");
        }
        kept.push(execution);
    }
    let status = pool.status();
    assert!(status.forks >= 100 && status.generations == 1, "all of one template: {status:?}");
    let ids: HashSet<&str> = kept.iter().map(|execution| execution.id.as_str()).collect();
    assert_eq!(ids.len(), 100);
    // Shared by construction, as SECURITY.md says; if that ever changes, so must it.
    assert_eq!(shared.len(), 1, "hash seed and layout of one template's process: {shared:?}");
}

/// What a sandbox is made of, as code inside sees it.
const SELF: &str = r#"
import json, os, sys, gc, signal, threading, resource
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "argv": sys.argv, "flags": str(sys.flags), "executable": sys.executable,
    "prefix": sys.prefix, "user": [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()],
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:5], "threads": threading.active_count(),
    "status": {name: status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Threads", "Groups")},
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_") and name not in ("RLIMIT_DATA", "RLIMIT_CORE")},
    "umask": os.umask(0), "signals": [str(signal.getsignal(number)) for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM)],
    "gc": [gc.isenabled(), gc.get_threshold()], "files": sorted(os.listdir("/mnt/data") + os.listdir("/tmp") + os.listdir("/dev/shm")),
    "home": sorted(os.listdir("/home/sandbox")), "host": os.uname().nodename, "main": sorted(vars(sys.modules["__main__"])),
    "In": In, "Out": {str(key): repr(value) for key, value in Out.items()}, "oom": open("/proc/self/oom_score_adj").read(),
    "mounts": sorted(line.split()[4] for line in open("/proc/self/mountinfo")), "root": sorted(os.listdir("/")),
    "namespaces": [os.readlink("/proc/self/ns/" + name) == os.readlink("/proc/1/ns/" + name) if os.access("/proc/1/ns/" + name, os.R_OK) else None for name in ("pid", "user", "mnt", "net", "ipc", "uts", "cgroup")],
}))
"#;

#[test]
fn forked_and_exec_d_workers_look_alike() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, PoolSettings { ready: 1, ..PoolSettings::default() });
    assert!(pool.wait_until_parked(1, PATIENCE), "{:?}", pool.status());
    let mut taken = pool.take(&Limits::default()).expect("a sandbox");
    assert!(taken.parked);
    let forked = printed(&taken.run(&request(SELF, Limits::default()), &mut Silent, &Control::default()).expect("an execution"));
    let (observer, control, progress) = (&mut Silent, &Control::default(), &mut |_: Progress<'_>| {});
    let request = Box::new(request(SELF, Limits::default()));
    let Ok(Reply::Execution(execution)) = engine.dispatch(Command::Run { request, observer, control, progress }) else { panic!("an execution") };
    let executed = printed(&execution);
    for (name, value) in executed.as_object().expect("an object") {
        assert_eq!(&forked[name], value, "{name}");
    }
}

#[test]
fn a_parked_sandbox_is_handed_out_once_and_nothing_stays() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(3));
    let mut sessions = HashSet::new();
    for _ in 0..6 {
        assert!(pool.wait_until_parked(1, PATIENCE));
        let execution = run(
            &pool,
            "import os; print(os.path.exists('/mnt/data/left'), os.path.exists('/tmp/left')); open('/mnt/data/left', 'w'); open('/tmp/left', 'w'); left = 1",
        );
        assert_eq!((execution.outcome, execution.stdout.as_str()), (Outcome::Completed, "False False\n"));
        assert!(sessions.insert(execution.session_id));
    }
    assert!(pool.wait_until_clean(PATIENCE) && pool.wait_until_parked(3, PATIENCE));
    assert_eq!(processes("belljar-init").len(), 3);
    drop(pool);
    eventually("every sandbox is gone", || processes("belljar-init").is_empty());
    eventually("the template's process is gone", || processes("--template").is_empty());
}

#[test]
fn limits_are_applied_at_hand_out_or_by_a_new_sandbox() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(1));
    let grouped = !matches!(engine.backend().expect("a backend").cgroups(), sandbox::cgroup::Version::None(_));
    let usual = Limits::default();
    let more_memory = Limits { memory_bytes: usual.memory_bytes * 2, ..usual };
    let cases = [
        (Limits { wall_seconds: 7, output_bytes: 1000, ..usual }, true),
        (more_memory, grouped),
        (Limits { memory_bytes: 100 << 20, cpus: 0.5, processes: 20, cpu_seconds: 3, ..usual }, grouped),
        (Limits { workspace_bytes: 1 << 20, ..usual }, false),
        (Limits { open_files: 100, ..usual }, false),
        (Limits { processes: 500, ..usual }, false),
    ];
    for (limits, parked) in cases {
        assert!(pool.wait_until_parked(1, PATIENCE), "{:?}", pool.status());
        let taken = pool.take(&limits).expect("a sandbox");
        assert_eq!(taken.parked, parked, "{limits:?}");
    }
    // And they hold.
    let hungry = "data = b'x' * (1 << 30); print(len(data))";
    assert!(pool.wait_until_parked(1, PATIENCE));
    assert_eq!(run(&pool, hungry).outcome, Outcome::MemoryLimit);
    let wide = Limits { memory_bytes: 2 << 30, ..usual };
    assert!(pool.wait_until_parked(1, PATIENCE));
    assert_eq!(pool.run(&request(hungry, wide), &mut Silent, &Control::default()).expect("an execution").outcome, Outcome::Completed);
    assert!(pool.wait_until_parked(1, PATIENCE));
    let short = Limits { cpu_seconds: 1, ..usual };
    assert_eq!(pool.run(&request("while True: pass", short), &mut Silent, &Control::default()).expect("an execution").outcome, Outcome::TimedOut);
    assert!(pool.wait_until_parked(1, PATIENCE));
    let small_workspace = Limits { workspace_bytes: 1 << 20, ..usual };
    let execution = pool.run(&request("open('f', 'wb').write(bytes(3 << 20))", small_workspace), &mut Silent, &Control::default()).expect("an execution");
    assert_ne!(execution.outcome, Outcome::Completed);
}

#[test]
fn a_template_that_dies_is_started_again_and_nothing_waits_for_it() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(2));
    assert!(pool.wait_until_parked(2, PATIENCE));
    let mut held = pool.take(&Limits::default()).expect("a sandbox");
    let victims = processes("--template")
        .into_iter()
        .filter(|pid| !fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains("NSpid") && nested(&status)));
    let victims: Vec<i32> = victims.collect();
    assert_eq!(victims.len(), 1, "one template's process");
    let killed = std::process::Command::new("kill").args(["-KILL", &victims[0].to_string()]).status().expect("kill");
    assert!(killed.success());
    // A worker outlives its template, and how it ends is still told.
    let execution = held.run(
        &request("import os, signal; print(1, flush=True); os.kill(os.getpid(), signal.SIGSEGV)", Limits::default()),
        &mut Silent,
        &Control::default(),
    );
    let execution = execution.expect("an execution");
    assert_eq!((execution.outcome, execution.stdout.as_str(), execution.state_lost), (Outcome::Killed, "1\n", true), "{execution:?}");
    assert_eq!(run(&pool, "print(2)").stdout, "2\n");
    eventually("a new template's process", || pool.status().generations == 2);
    assert!(pool.wait_until_parked(2, PATIENCE));
    assert_eq!(run(&pool, "print(3)").stdout, "3\n");
    assert_eq!(pool.status().problems, Vec::<String>::new());
}

#[test]
fn a_launcher_that_dies_is_replaced_and_everything_is_made_anew() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(1));
    assert!(pool.wait_until_parked(1, PATIENCE));
    let ends = || request("print(6 * 7)", Limits::default());
    // First the process inside the outer namespace, then the one outside.
    for (round, inner) in [(1, true), (2, false)] {
        let mut held = pool.take(&Limits::default()).expect("a sandbox");
        let launchers = processes("belljar-launcher");
        let victim = if inner { launchers.last() } else { launchers.first() }.expect("a launcher");
        assert!(std::process::Command::new("kill").args(["-KILL", &victim.to_string()]).status().expect("kill").success());
        // What it held is gone, and says so.
        // It may take a moment.
        let lost = held.run(&request("import time\ntime.sleep(60)", Limits::default()), &mut Silent, &Control::default());
        assert!(lost.is_err() || lost.is_ok_and(|execution| execution.outcome == Outcome::Killed));
        drop(held);
        eventually("another launcher", || {
            let came = pool.run(&ends(), &mut Silent, &Control::default());
            came.map_err(|error| assert_eq!(error.kind, engine::ErrorKind::Unavailable, "{error:?}")).is_ok_and(|execution| execution.stdout == "42\n")
        });
        eventually("another template's process", || pool.status().generations > round && pool.status().problems.is_empty());
        eventually("a forked sandbox", || {
            pool.wait_until_parked(1, PATIENCE) && pool.take(&Limits::default()).is_ok_and(|taken| taken.parked && taken.is_forked())
        });
    }
}

#[test]
fn many_with_few_descriptors_start_at_once() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(0));
    // As an ordinary user all of them are that user, whose descriptors that are on their way count together.
    let limits = Limits { open_files: 32, ..Limits::default() };
    let problems: Vec<String> = std::thread::scope(|scope| {
        let run = || pool.run(&request("print(1)", limits), &mut Silent, &Control::default());
        let running: Vec<_> = (0..32).map(|_| scope.spawn(run)).collect();
        let came = running.into_iter().map(|run| run.join().expect("a thread"));
        came.filter_map(|came| match came {
            Ok(execution) => (execution.stdout != "1\n").then(|| format!("{:?}", execution.error)),
            Err(error) => Some(format!("{error} {:?}", error.detail)),
        })
        .collect()
    });
    assert_eq!(problems, Vec::<String>::new());
    // What fails is a race that a quick machine wins; what it is about is init's own limit.
    let _taken = pool.take(&limits).expect("a sandbox");
    let inits = processes("belljar-init");
    let own =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default().lines().any(|line| line.starts_with("Max open files            32 "));
    assert!(!inits.is_empty() && !inits.iter().any(own), "init has the limit of the code");
    // The limit is there all the same, for who was forked and for commands.
    let many = "import os\nkept = []\ntry:\n    while True: kept.append(os.open('/dev/null', 0))\nexcept OSError as error: print(len(kept) < 32, error.errno)";
    let came = pool.run(&request(many, limits), &mut Silent, &Control::default()).expect("an execution");
    assert_eq!(came.stdout, "True 24\n", "{came:?}");
    let shell = RunRequest { language: Language::Shell, ..request("awk '/open files/ { print $4, $5 }' /proc/self/limits", limits) };
    assert_eq!(pool.run(&shell, &mut Silent, &Control::default()).expect("an execution").stdout, "32 32\n");
}

/// Whether a process lives in a process namespace below that of its launcher.
fn nested(status: &str) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).map_or(0, |line| line.split_ascii_whitespace().count());
    let own = fs::read_to_string("/proc/self/status").expect("status");
    let own = own.lines().find_map(|line| line.strip_prefix("NSpid:")).map_or(0, |line| line.split_ascii_whitespace().count());
    ids > own + 1
}

#[test]
fn templates_are_replaced_by_count_without_a_gap() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, PoolSettings { recycle_forks: 5, ..small(2) });
    for number in 0..30 {
        let execution = run(&pool, "import sys; print(len(sys.argv))");
        assert_eq!(execution.outcome, Outcome::Completed, "{number}: {execution:?}");
        if number % 5 == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    assert!(pool.status().generations > 2, "{:?}", pool.status());
    let (young, _lease) = self::pool(&engine, PoolSettings { recycle_age: Duration::from_millis(1500), ..small(1) });
    eventually("a second generation", || young.status().generations > 1);
    assert_eq!(run(&young, "print(1)").stdout, "1\n");
}

#[test]
fn what_a_template_cannot_import_is_named_and_the_rest_works() {
    let (_turn, engine) = engine();
    let unknown = PoolSettings { imports: Imports::Profile("everything".to_owned()), ..small(1) };
    let Err(error) = engine.pool("core", unknown, &mut |_| {}).map(|_| ()) else { panic!("there is no such profile") };
    assert!(error.message.contains("`everything`") && error.hint.as_deref().is_some_and(|hint| hint.contains("light")), "{error:?}");
    let thread = "import threading, time; threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()";
    let cases: [(Imports, &[&str]); 5] = [
        (modules(&["csv"], "import os, time\nif not os.fork():\n    time.sleep(1e6)"), &["<warm-up>", "process"]),
        (modules(&["nosuchmodule", "csv"], ""), &["`nosuchmodule`", "ModuleNotFoundError"]),
        (modules(&["csv"], thread), &["<warm-up>", "thread"]),
        (modules(&["csv"], "import csv; csv.kept = open('/opt/runtime/driver.py')"), &["<warm-up>", "/opt/runtime/driver.py"]),
        (modules(&["csv"], "bytearray(8 << 30)"), &["<warm-up>", "MemoryError"]),
    ];
    for (imports, words) in cases {
        let (pool, _lease) = pool(&engine, PoolSettings { imports, template_bytes: 1 << 30, ..small(1) });
        let problems = pool.status().problems.join("\n");
        assert!(words.iter().all(|word| problems.contains(word)), "{words:?} in {problems}");
        assert!(pool.wait_until_parked(1, PATIENCE));
        let execution = run(&pool, "import sys; print('csv' in sys.modules)");
        assert_eq!(execution.stdout, "True\n", "what could be imported is there: {execution:?}");
    }
}

#[test]
fn a_template_that_hangs_or_dies_is_named_and_service_goes_on_without_it() {
    let (_turn, engine) = engine();
    let cases: [(&str, &[&str]); 2] = [
        ("import time; time.sleep(1e6)", &["hangs", "<warm-up>", "sandboxes start without it"]),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", &["killed", "<warm-up>", "sandboxes start without it"]),
    ];
    for (warm_up, words) in cases {
        let (pool, _lease) = pool(&engine, PoolSettings { imports: modules(&["csv"], warm_up), import_patience: Duration::from_secs(2), ..small(1) });
        let problems = pool.status().problems.join("\n");
        assert!(words.iter().all(|word| problems.contains(word)), "{words:?} in {problems}");
        assert!(pool.wait_until_parked(1, PATIENCE));
        assert_eq!(run(&pool, "print(1)").stdout, "1\n");
    }
}

/// Packages register what runs at a fork: hooks that hang, start threads, or flood the launcher must cost nobody a session.
#[test]
fn hostile_hooks_at_a_fork_cost_time_and_nothing_else() {
    let (_turn, engine) = engine();
    let hooks = [
        "import os, time; os.register_at_fork(before=lambda: time.sleep(1e6))",
        "import os, threading; os.register_at_fork(after_in_child=lambda: threading.Thread(target=threading.Event().wait, daemon=True).start())",
        "import os; os.register_at_fork(after_in_child=lambda: os._exit(1))",
    ];
    for hook in &hooks {
        let (pool, _lease) = pool(&engine, PoolSettings { imports: modules(&["csv"], hook), ..small(0) });
        let (other, _lease) = self::pool(&engine, small(0));
        for _ in 0..2 {
            assert_eq!(run(&pool, "print(1)").stdout, "1\n", "{hook}");
            assert_eq!(run(&other, "print(2)").stdout, "2\n", "{hook}");
        }
        assert!(pool.wait_until_clean(PATIENCE), "{hook}");
    }
    eventually("nothing is left", || processes("belljar-init").is_empty() && processes("--template").is_empty());
}

/// A template that never stops talking does not keep the sandboxes of others waiting.
#[test]
fn a_chatty_template_is_heard_in_turns() {
    let (_turn, engine) = engine();
    let (other, _lease) = pool(&engine, small(0));
    let chatter = "import os, socket, time\nsocket_ = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 3)\nend = time.time() + 4\nwhile time.time() < end:\n    socket_.send(b'\\6x')\nsocket_.detach()";
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| pool(&engine, PoolSettings { imports: modules(&["csv"], chatter), ..small(0) }).0.status());
        let mut runs = 0;
        while !talking.is_finished() {
            assert_eq!(run(&other, "print(2)").stdout, "2\n");
            runs += 1;
        }
        assert!(runs > 1, "others ran meanwhile: {runs}");
        assert_eq!(talking.join().expect("a pool").problems, Vec::<String>::new());
    });
}

#[test]
fn no_memory_for_the_pool_is_told_and_runs_go_on() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, PoolSettings { reserve_bytes: 1 << 50, ..small(2) });
    eventually("the problem is told", || !pool.status().problems.is_empty());
    let problems = pool.status().problems.join("\n");
    assert!(problems.contains("no memory for one more") && problems.contains("`ready`"), "{problems}");
    assert_eq!(pool.status().parked, 0);
    assert_eq!(run(&pool, "print(1)").stdout, "1\n");
}

#[test]
fn a_lost_worker_is_forked_anew() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(1));
    assert!(pool.wait_until_parked(1, PATIENCE));
    let mut taken = pool.take(&Limits::default()).expect("a sandbox");
    let mut run = |code: &str| taken.run(&request(code, Limits::default()), &mut Silent, &Control::default()).expect("an execution");
    assert_eq!(run("x = 1; print(x)").stdout, "1\n");
    assert_eq!(run("import os; os._exit(3)").outcome, Outcome::Killed);
    // Without asking: by exec.
    assert_eq!(run("print('x' in globals())").stdout, "False\n");
    assert_eq!(run("import os; os._exit(3)").outcome, Outcome::Killed);
    taken.replace_worker().expect("a worker");
    let again = taken.run(&request("import os; print(os.getuid(), 'x' in globals(), os.listdir())", Limits::default()), &mut Silent, &Control::default());
    assert_eq!(again.expect("an execution").stdout, "1000 False []\n");
}

/// Interrupted before init has been told to begin, so that the interrupt follows at once, wherever the worker is by then.
fn interrupted_at_once(taken: &mut engine::Taken, code: &str) -> Execution {
    let control = Control::default();
    control.interrupt();
    let execution = taken.run(&request(code, Limits { wall_seconds: 30, ..Limits::default() }), &mut Silent, &control).expect("an execution");
    assert_eq!((execution.outcome, execution.state_lost), (Outcome::Interrupted, false), "{execution:?}");
    execution
}

#[test]
fn an_interrupt_right_behind_the_code_reaches_it() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(1));
    assert!(pool.wait_until_parked(1, PATIENCE));
    let mut taken = pool.take(&Limits::default()).expect("a sandbox");
    // More than a socket holds: it goes out in parts.
    let long = format!("while True: pass\n#{}", "x".repeat(1 << 20).get(..(1 << 20) - 100).unwrap_or_default());
    for attempt in 0..200 {
        let code = if attempt % 20 == 19 { &long } else { "while True: pass" };
        let execution = interrupted_at_once(&mut taken, code);
        assert_eq!(execution.error.map(|error| error.name).as_deref(), Some("KeyboardInterrupt"), "attempt {attempt}");
    }
    let after = taken.run(&request("print(1)", Limits::default()), &mut Silent, &Control::default()).expect("an execution");
    assert_eq!((after.outcome, after.stdout.as_str()), (Outcome::Completed, "1\n"), "an interrupt is for one execution");
}

#[test]
fn an_interrupt_waits_for_a_worker_that_starts() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(0));
    for _ in 0..20 {
        let mut taken = pool.take(&Limits::default()).expect("a sandbox");
        interrupted_at_once(&mut taken, "while True: pass");
        // Started by exec.
        let lost = taken.run(&request("import os; os._exit(3)", Limits::default()), &mut Silent, &Control::default()).expect("an execution");
        assert_eq!(lost.outcome, Outcome::Killed);
        interrupted_at_once(&mut taken, "while True: pass");
    }
}

#[test]
fn an_interrupt_right_behind_a_command_reaches_it() {
    let (_turn, engine) = engine();
    let (pool, _lease) = pool(&engine, small(1));
    let mut taken = pool.take(&Limits::default()).expect("a sandbox");
    for command in ["sleep 1000", "sleep 1000 & sleep 1000", "while true; do :; done"] {
        for _ in 0..40 {
            let control = Control::default();
            control.interrupt();
            let request = RunRequest { language: Language::Shell, ..request(command, Limits { wall_seconds: 30, ..Limits::default() }) };
            let execution = taken.run(&request, &mut Silent, &control).expect("an execution");
            assert_eq!(execution.outcome, Outcome::Interrupted, "{execution:?}");
            assert!(execution.execution_time_ms < 10_000, "{execution:?}");
        }
    }
}
