//! `belljar serve`: sandboxes over HTTP, until it is told to end.

pub(super) mod logs;
mod notify;
mod rules;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use engine::record::Recorder;
use engine::session::Sessions;
use server::app::{App, Start};
use server::jwt::Issuer;
use server::listen::{Listener, serve as serve_on};
use server::metrics::Counted;
use server::record::StoreRecorder;
use server::tls::{Files, Tls, self_signed};
use store::{Event, EventKind, Options, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::{Global, Serve};
use crate::config::{self, Configuration, Durability, Names, Server, ServerSection};
use crate::exit::{UsageError, usage};
use crate::terminal;

/// Threads for work that blocks: each execution that runs has one.
const EXECUTIONS: usize = 4096;

/// How long connections get to end after everything that runs has ended.
const LAST_ANSWERS: std::time::Duration = std::time::Duration::from_secs(2);

/// What the flags say, as a section of the configuration.
pub(crate) fn flags(serve: &Serve) -> ServerSection {
    ServerSection {
        listen: (!serve.listen.is_empty()).then(|| Names::Many(serve.listen.clone())),
        tls_certificate: serve.tls_certificate.clone(),
        tls_key: serve.tls_key.clone(),
        tls_self_signed: serve.tls_self_signed.then_some(true),
        behind_proxy: serve.behind_proxy.clone(),
        log_format: serve.log_format,
        ..ServerSection::default()
    }
}

/// Serves.
pub(crate) fn run(serve: &Serve, global: &Global, configuration: Configuration) -> anyhow::Result<ExitCode> {
    logs::start(&serve.log_level, configuration.server.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(EXECUTIONS).enable_all().build().context("cannot start threads")?;
    let served = runtime.block_on(until_told(serve, global, configuration));
    // What is still stuck in a thread ends with the process.
    runtime.shutdown_background();
    served
}

fn on(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot wait for signals")
}

/// Signals to end.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Waits until the process is told to end.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn until_told(serve: &Serve, global: &Global, configuration: Configuration) -> anyhow::Result<ExitCode> {
    let mut ends = Ends::new()?;
    let mut reload = on(SignalKind::hangup())?;
    let starting = start(configuration);
    let mut running = tokio::select! {
        running = starting => running?,
        // Whatever is being built is left as it is: it is finished or swept away by the next start.
        () = ends.told() => return Ok(ExitCode::SUCCESS),
    };
    loop {
        tokio::select! {
            () = ends.told() => break,
            _ = reload.recv() => running.reload(serve, global).await,
            _ = &mut running.serving => anyhow::bail!("the server has ended by itself"),
        }
    }
    tokio::select! {
        () = running.end() => {}
        () = ends.told() => tracing::warn!("told to end a second time: what runs is ended at once"),
    }
    Ok(ExitCode::SUCCESS)
}

/// A server that serves.
struct Running {
    app: Arc<App>,
    configuration: Configuration,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

/// Does everything that has to be done before it serves.
async fn start(configuration: Configuration) -> anyhow::Result<Running> {
    let server = &configuration.server;
    let dev_key = config::dev_key()?;
    rules::before_keys(server)?;
    let store = open_store(&configuration).await?;
    let keys = store.keys().iter().any(|key| key.holds(SystemTime::now()));
    rules::check(server, keys, dev_key.as_deref())?;
    raise_descriptors();
    let tls = tls(&configuration)?;
    let mut listeners = Vec::new();
    for address in &server.listen {
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.map_err(|error| usage(format!("cannot listen on {address}: {error}"), "choose another address with --listen, or end what uses it"))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        listeners.push((format!("{scheme}://{}", listener.local_addr()?), Listener::Tcp(listener, tls.clone())));
    }
    let issuer = issuer(server).await?;
    let recorder: Arc<dyn Recorder> = Arc::new(Counted::new(StoreRecorder(Arc::clone(&store))));
    let sessions = sessions(&configuration, recorder).await?;
    let (dev_key, told) = rules::dev_key(server, dev_key, keys)?;
    let app =
        App::new(Start { sessions, default_pool: server.default_pool.clone(), store: Arc::clone(&store), dev_key, issuer, settings: server.settings.clone() });
    let socket = configuration.data.value.join("server.sock");
    let mut all = Vec::new();
    match Listener::unix(&socket) {
        Ok(listener) => all.push(listener),
        Err(error) => tracing::warn!(path = %socket.display(), error = %error, "no socket for this user's own calls"),
    }
    let urls: Vec<String> = listeners.iter().map(|(url, _)| url.clone()).collect();
    for (url, listener) in listeners {
        terminal::note(&format!("listening: {url}"));
        all.push(listener);
    }
    if let Some(key) = told {
        terminal::note(&format!("key: {key}"));
    }
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve_on(Arc::clone(&app), all, stop.clone()));
    let started = Event::new(EventKind::ServerStarted).with("version", env!("CARGO_PKG_VERSION")).with("listen", urls);
    store.enqueue(started)?;
    notify::say("READY=1");
    tracing::info!(pools = server.pools.len(), "serving");
    Ok(Running { app, configuration, tls, stop, serving })
}

impl Running {
    /// Ends in order: no new connections, time for what runs, then the end of all sandboxes.
    async fn end(&mut self) {
        notify::say("STOPPING=1");
        let grace = self.configuration.server.shutdown_grace;
        tracing::info!(grace_seconds = grace.as_secs(), "ending");
        self.app.end();
        self.stop.cancel();
        self.app.sessions.shutdown(grace).await;
        self.app.end_streams();
        if tokio::time::timeout(LAST_ANSWERS, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
        let store = Arc::clone(&self.app.store);
        // It is closed nowhere else.
        let _ = store.enqueue(Event::new(EventKind::ServerStopped));
        match tokio::task::spawn_blocking(move || store.close()).await {
            Ok(0) => {}
            Ok(lost) => tracing::error!(lost, "events could not be put on record"),
            Err(_) => tracing::error!("closing the store panicked"),
        }
    }

    /// Takes what can be taken while it runs; all of it, or nothing.
    async fn reload(&mut self, serve: &Serve, global: &Global) {
        match self.take_anew(serve, global).await {
            Ok(()) => tracing::info!("settings were read anew"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "the settings stay as they were"),
        }
    }

    async fn take_anew(&mut self, serve: &Serve, global: &Global) -> anyhow::Result<()> {
        let fresh = Configuration::read(global, &flags(serve))?;
        let issuer = issuer(&fresh.server).await?;
        if let Some(tls) = &self.tls {
            tls.reload()?;
        }
        for name in rules::needs_restart(&self.configuration, &fresh) {
            tracing::warn!(setting = name, "has changed, and needs a restart");
        }
        self.app.auth.set_issuer(issuer);
        self.app.set(fresh.server.settings.clone());
        self.configuration.server.shutdown_grace = fresh.server.shutdown_grace;
        Ok(())
    }
}

/// Opens record and keys; where that is refused, it is the operator's to change.
async fn open_store(configuration: &Configuration) -> anyhow::Result<Arc<Store>> {
    let durability = match configuration.server.durability {
        Durability::Full => store::Durability::Full,
        Durability::Normal => store::Durability::Normal,
    };
    let data = configuration.data.value.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&data, Options { durability })).await.context("opening the store")?;
    opened.map_err(|error| UsageError { hint: error.hint(), message: format!("{:#}", anyhow::Error::from(error)) }.into())
}

fn tls(configuration: &Configuration) -> anyhow::Result<Option<Arc<Tls>>> {
    let server = &configuration.server;
    let files = match &server.tls_files {
        Some((certificate, key)) => Files { certificate: certificate.clone(), key: key.clone() },
        None if server.tls_self_signed => {
            let names: Vec<String> = server.listen.iter().map(|address| address.ip().to_string()).chain(server.settings.hosts.iter().cloned()).collect();
            self_signed(&configuration.data.value.join("tls"), &names)?
        }
        None => return Ok(None),
    };
    let opened = Tls::open(files).map_err(|error| usage(error.to_string(), "check `tls_certificate` and `tls_key`"))?;
    Ok(Some(opened))
}

async fn issuer(server: &Server) -> anyhow::Result<Option<Arc<Issuer>>> {
    let Some(settings) = server.settings.jwt.clone() else { return Ok(None) };
    let loaded = tokio::task::spawn_blocking(move || Issuer::load(settings)).await.context("reading the issuer's keys")?;
    Ok(Some(loaded.map_err(|error| usage(error.to_string(), "check `[auth.jwt]`"))?))
}

/// Builds environments and starts pools, with progress on stderr.
async fn sessions(configuration: &Configuration, recorder: Arc<dyn Recorder>) -> anyhow::Result<Arc<Sessions>> {
    let engine = super::engine(configuration);
    let pools = configuration.server.pools.iter().filter(|pool| pool.enabled != Some(false)).map(|pool| pool.settings.clone()).collect();
    let starting = tokio::task::spawn_blocking(move || {
        let mut shown = super::progress::Shown::new();
        Sessions::start(&engine, pools, recorder, &mut |event| shown.show(event))
    });
    Ok(starting.await.context("starting the pools")??)
}

/// As many descriptors as this process may have: every connection and every sandbox takes some.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }) {
        tracing::warn!(error = %error, "the limit of descriptors stays as it is");
    }
}
