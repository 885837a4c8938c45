//! A server with a pool of sandboxes, and keys for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::environment::{Host, Progress};
use engine::record::Unrecorded;
use engine::session::{SessionPoolSettings, Sessions};
use engine::{Controls, Engine, Imports, Limits, PoolSettings};
use server::app::{App, Start};
use server::listen::{self, Listener};
use server::settings::Settings;
use store::{CreatedKey, NewKey, Options, Role, Store};
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Request};

/// Names of the callers: two that may run code, one that may not, and one that may use the second pool only.
pub(crate) const ALICE: &str = "alice";
pub(crate) const BOB: &str = "bob";
pub(crate) const WATCHER: &str = "watcher";
pub(crate) const NARROW: &str = "narrow";

/// A server; ended when it is dropped.
pub(crate) struct Scene {
    pub(crate) address: SocketAddr,
    pub(crate) keys: HashMap<&'static str, CreatedKey>,
    #[allow(dead_code, reason = "shared with the tests `mcp`, which revoke keys")]
    pub(crate) store: Arc<Store>,
    sessions: Arc<Sessions>,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    _engine: Engine,
    _folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// Starts a server with the pools `default` and `second`.
pub(crate) fn scene() -> Scene {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = std::env::var_os("BELLJAR_TEST_DATA").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("data"), PathBuf::from);
    let engine = Engine::new(engine::Settings { data, host: Host::new(std::env::vars_os()), controls: Controls::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let entered = runtime.enter();
    let pools = vec![pool("default", 6, true), pool("second", 1, false)];
    let sessions = Sessions::start(&engine, pools, Arc::new(Unrecorded), &mut |step: Progress<'_>| eprintln!("{step:?}")).expect("sessions");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let keys = [ALICE, BOB, WATCHER, NARROW].into_iter().map(|name| (name, key(&store, name))).collect();
    let (default_pool, settings) = ("default".to_owned(), Settings::default());
    let app = App::new(Start { sessions: Arc::clone(&sessions), default_pool, store: Arc::clone(&store), dev_key: None, issuer: None, settings });
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    runtime.spawn(listen::serve(app, vec![Listener::Tcp(listener, None)], stop.clone()));
    drop(entered);
    Scene { address, keys, store, sessions, stop, runtime: Some(runtime), _engine: engine, _folder: folder, _turn: turn }
}

fn key(store: &Store, name: &str) -> CreatedKey {
    let roles = vec![if name == WATCHER { Role::Observe } else { Role::Execute }];
    let pools = (name == NARROW).then(|| vec!["second".to_owned()]);
    store.create_key(NewKey { name: name.to_owned(), roles, pools, ..NewKey::default() }, "test").unwrap()
}

fn pool(name: &str, max_sessions: usize, create_on_use: bool) -> SessionPoolSettings {
    let imports = Imports::Modules { modules: Vec::new(), warm_up: String::new() };
    let limits = Limits { workspace_bytes: 32 << 20, ..Limits::default() };
    let sandboxes = PoolSettings { ready: usize::from(name == "default"), imports, limits, ..PoolSettings::default() };
    SessionPoolSettings {
        name: name.to_owned(),
        environment: "core".to_owned(),
        sandboxes,
        max_sessions,
        idle_timeout: Duration::from_secs(300),
        max_lifetime: Duration::from_secs(3600),
        allocation_wait: Duration::from_millis(300),
        create_on_use,
        region: Some("north".to_owned()),
    }
}

impl Scene {
    /// A request with Alice's key.
    pub(crate) fn ask(&self, method: &str, target: &str) -> Request {
        self.ask_as(ALICE, method, target)
    }

    /// A request with a caller's key; of one that has none, with its name.
    pub(crate) fn ask_as(&self, caller: &str, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target).header("Authorization", &format!("Bearer {}", self.key(caller)))
    }

    pub(crate) fn key<'a>(&'a self, caller: &'a str) -> &'a str {
        self.keys.get(caller).map_or(caller, |key| &key.key)
    }

    /// Runs Python code to its end.
    #[allow(dead_code, reason = "shared with the tests `mcp`, which run it otherwise")]
    pub(crate) fn python(&self, session: &str, code: &str) -> Answer {
        self.ask("POST", &format!("/v1/sessions/{session}/executions")).json(&serde_json::json!({"code": code})).send()
    }

    /// How many sessions there are, of all callers.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.pools().iter().map(|pool| pool.sessions).sum()
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
