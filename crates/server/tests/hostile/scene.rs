//! A server with real sandboxes, two tenants, and what stands outside and must not be touched.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::environment::{Host, Progress};
use engine::record::Unrecorded;
use engine::session::{SessionPoolSettings, Sessions};
use engine::{Controls, Engine, Imports, Limits, PoolSettings};
use serde_json::{Value as Json, json};
use server::app::{App, Start};
use server::listen::{self, Listener};
use server::settings::Settings;
use store::{KeyLimits, NewKey, Options, Role, Store};
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Request};

/// Whose code and requests are hostile.
pub(crate) const MALLORY: &str = "mallory";
/// Who must not notice.
pub(crate) const ALICE: &str = "alice";
/// One that may have two sessions, and one execution at once.
pub(crate) const NARROW: &str = "narrow";

/// What a canary holds. Whoever reads this is outside.
pub(crate) const SECRET: &str = "canary-4f1c2a: of the host";

/// Whatever takes longer than this hangs. Nothing is measured with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server; ended when it is dropped.
pub(crate) struct Scene {
    pub(crate) address: SocketAddr,
    pub(crate) canary: Canary,
    keys: HashMap<&'static str, String>,
    sessions: Arc<Sessions>,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    _engine: Engine,
    _store: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A world-writable folder of the host with a file in it.
pub(crate) struct Canary {
    folder: tempfile::TempDir,
}

impl Canary {
    pub(crate) fn place() -> Self {
        let folder = tempfile::Builder::new().prefix("belljar-canary-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let canary = Self { folder };
        fs::write(canary.file(), SECRET).unwrap();
        fs::set_permissions(canary.file(), fs::Permissions::from_mode(0o666)).unwrap();
        canary
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("f")
    }

    #[track_caller]
    pub(crate) fn is_untouched(&self) {
        assert_eq!(fs::read_to_string(self.file()).unwrap(), SECRET, "the canary was written to");
        let names: BTreeSet<_> = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1, "the canary's folder holds {names:?}");
        let mode = fs::metadata(self.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o666, "the canary's mode was changed");
    }
}

/// One test at a time: what this process takes is looked at.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a server.
pub(crate) fn scene() -> Scene {
    scene_with(|_| {})
}

/// Starts a server whose pool is changed.
pub(crate) fn scene_with(change: impl FnOnce(&mut SessionPoolSettings)) -> Scene {
    let turn = turn();
    let data = std::env::var_os("BELLJAR_TEST_DATA").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("data"), PathBuf::from);
    let engine = Engine::new(engine::Settings { data, host: Host::new(std::env::vars_os()), controls: Controls::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let entered = runtime.enter();
    let mut pool = pool();
    change(&mut pool);
    let sessions = Sessions::start(&engine, vec![pool], Arc::new(Unrecorded), &mut |step: Progress<'_>| eprintln!("{step:?}")).expect("sessions");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let keys = [MALLORY, ALICE, NARROW].into_iter().map(|name| (name, key(&store, name))).collect();
    let (default_pool, settings) = ("default".to_owned(), Settings::default());
    let app = App::new(Start { sessions: Arc::clone(&sessions), default_pool, store, dev_key: None, issuer: None, settings });
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    runtime.spawn(listen::serve(app, vec![Listener::Tcp(listener, None)], stop.clone()));
    drop(entered);
    Scene { address, canary: Canary::place(), keys, sessions, stop, runtime: Some(runtime), _engine: engine, _store: folder, _turn: turn }
}

fn key(store: &Store, name: &str) -> String {
    let limits = if name == NARROW { KeyLimits { max_sessions: Some(2), max_executions: Some(1), ..KeyLimits::default() } } else { KeyLimits::default() };
    store.create_key(NewKey { name: name.to_owned(), roles: vec![Role::Execute], limits, ..NewKey::default() }, "test").unwrap().key
}

fn pool() -> SessionPoolSettings {
    let imports = Imports::Modules { modules: Vec::new(), warm_up: String::new() };
    let limits = Limits { workspace_bytes: 64 << 20, ..Limits::default() };
    SessionPoolSettings {
        name: "default".to_owned(),
        environment: "core".to_owned(),
        sandboxes: PoolSettings { ready: 1, imports, limits, ..PoolSettings::default() },
        max_sessions: 8,
        idle_timeout: Duration::from_secs(300),
        max_lifetime: Duration::from_secs(3600),
        allocation_wait: Duration::from_secs(10),
        create_on_use: true,
        region: None,
    }
}

impl Scene {
    /// A request with a caller's key; of one that has none, with its name.
    pub(crate) fn ask_as(&self, caller: &str, method: &str, target: &str) -> Request {
        let key = self.keys.get(caller).map_or(caller, String::as_str);
        Request::new(self.address, method, target).header("Authorization", &format!("Bearer {key}"))
    }

    /// A request of the hostile tenant.
    pub(crate) fn ask(&self, method: &str, target: &str) -> Request {
        self.ask_as(MALLORY, method, target)
    }

    pub(crate) fn key(&self, caller: &str) -> &str {
        &self.keys[caller]
    }

    /// Runs code of the hostile tenant; whatever came of it is an execution, and nothing else.
    #[track_caller]
    pub(crate) fn run(&self, session: &str, language: &str, code: &str) -> Json {
        let body = json!({"code": code, "language": language, "timeoutSeconds": 50});
        self.ask("POST", &format!("/v1/sessions/{session}/executions")).json(&body).send().expect(200).json()
    }

    /// Runs Python that has to come to its end.
    #[track_caller]
    pub(crate) fn python(&self, session: &str, code: &str) -> Json {
        let execution = self.run(session, "python", code);
        assert_eq!(execution["outcome"], "completed", "{}", execution["error"]);
        execution
    }

    /// Runs a command that has to come to its end.
    #[track_caller]
    pub(crate) fn shell(&self, session: &str, code: &str) -> Json {
        let execution = self.run(session, "shell", code);
        assert_eq!(execution["outcome"], "completed", "{} {}", execution["error"], execution["stderr"]);
        execution
    }

    pub(crate) fn file(&self, method: &str, session: &str, path: &str) -> Request {
        self.ask(method, &format!("/v1/sessions/{session}/files/{path}"))
    }

    pub(crate) fn tool(&self, session: &str, tool: &str, params: &Json) -> Answer {
        self.ask("POST", &format!("/v1/sessions/{session}/tools/{tool}")).json(params).send()
    }

    /// The other tenant's session goes on as if nothing were, and the service is well.
    #[track_caller]
    pub(crate) fn others_go_on(&self) {
        let body = json!({"code": "print(1)", "timeoutSeconds": 50});
        let execution = self.ask_as(ALICE, "POST", "/v1/sessions/other/executions").json(&body).send().expect(200).json();
        assert_eq!((&execution["outcome"], &execution["stdout"]), (&json!("completed"), &json!("1\n")), "{execution}");
        Request::new(self.address, "GET", "/healthz").send().expect(200);
        self.canary.is_untouched();
    }

    /// The session of the hostile tenant, however it was treated, runs again.
    #[track_caller]
    pub(crate) fn goes_on(&self, session: &str) {
        assert_eq!(self.python(session, "print(6 * 7)")["stdout"], "42\n");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(self.sessions.shutdown(Duration::ZERO));
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Memory of this process, in which the server is, in bytes.
pub(crate) fn resident() -> u64 {
    let pages: u64 = fs::read_to_string("/proc/self/statm").unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Descriptors of this process.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A control: whoever reads, writes or removes by path, and follows the links on it, reaches what is outside.
#[track_caller]
pub(crate) fn who_follows_links_is_lured() {
    let (outside, inside) = (Canary::place(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(outside.folder(), inside.path().join("folder")).unwrap();
    std::os::unix::fs::symlink(outside.file(), inside.path().join("file")).unwrap();
    assert_eq!(fs::read_to_string(inside.path().join("folder/f")).unwrap(), SECRET, "INVALID: it is not read");
    fs::write(inside.path().join("file"), "lured").unwrap();
    assert_eq!(fs::read_to_string(outside.file()).unwrap(), "lured", "INVALID: it is not written");
    fn remove(path: &Path) {
        // As somebody does who asks what lies behind a link.
        if fs::metadata(path).unwrap().is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| remove(&entry.unwrap().path()));
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    remove(&inside.path().join("folder"));
    assert!(!outside.file().exists(), "INVALID: it is not removed");
}

/// Whether it comes to be so.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let patience = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// No 5xx, and where it is a refusal one in a form that callers know.
#[track_caller]
pub(crate) fn is_typed(answer: &Answer, what: &str) {
    assert!((200..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    if answer.status >= 400 && !answer.body.is_empty() {
        let body = answer.json();
        assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string(), "{what}: {body}");
    }
}

/// Every byte percent-encoded.
pub(crate) fn encoded(name: &[u8]) -> String {
    name.iter().map(|byte| format!("%{byte:02X}")).collect()
}
