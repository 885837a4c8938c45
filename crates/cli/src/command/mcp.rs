//! `belljar mcp`: tools for one agent, over standard input and output. Needs no server and no configuration.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine::environment::Progress;
use engine::record::Recorder;
use engine::session::Sessions;
use engine::{Error, ErrorKind};
use rustix::stdio;
use server::app::{App, Start};
use server::mcp::{Local, serve};
use server::record::StoreRecorder;
use server::settings::Settings;
use store::{Options, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::serve::logs;
use crate::config::{Configuration, LogFormat};
use crate::exit::usage;

/// Programs of this kind at once on one data folder.
const MAX_PROGRAMS: usize = 256;
/// How long code that runs may go on when the client is gone.
const GRACE: Duration = Duration::from_millis(200);

/// Serves one client until it leaves.
pub(crate) fn run(configuration: Configuration) -> anyhow::Result<ExitCode> {
    logs::start("warn", LogFormat::Text)?;
    let (input, output) = take_streams().context("cannot take standard input and output")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let served = runtime.block_on(serve_client(configuration, input, output));
    // A read of standard input cannot be called off.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// Standard input and output for the protocol alone: whatever else reads finds nothing, and whatever else is written goes to standard error.
fn take_streams() -> std::io::Result<(File, File)> {
    let own = |stream| -> std::io::Result<File> { Ok(File::from(rustix::io::fcntl_dupfd_cloexec(stream, 3)?)) };
    let (input, output) = (own(stdio::stdin())?, own(stdio::stdout())?);
    stdio::dup2_stdin(OwnedFd::from(File::open("/dev/null")?))?;
    stdio::dup2_stdout(stdio::stderr())?;
    Ok((input, output))
}

async fn serve_client(configuration: Configuration, input: File, output: File) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.cancel();
    });
    let (news, heard) = watch::channel("starting".to_owned());
    let (configuration, news) = (Arc::new(configuration), Arc::new(news));
    let begin = Box::new(move || -> futures_util::future::BoxFuture<'static, Result<Arc<App>, Error>> {
        let (configuration, news) = (Arc::clone(&configuration), Arc::clone(&news));
        Box::pin(async move {
            let begun = tokio::task::spawn_blocking(move || begin(&configuration, &news)).await;
            begun.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the start of the engine was lost")))
        })
    });
    let local = Local::new(begin, heard);
    let served = serve(Arc::clone(&local), tokio::fs::File::from_std(input), tokio::fs::File::from_std(output), stop).await;
    if let Some(app) = local.begun() {
        app.sessions.shutdown(GRACE).await;
        let store = Arc::clone(&app.store);
        if let Ok(lost @ 1..) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::error!(lost, "events could not be put on record");
        }
    }
    served.map_err(|error| usage(format!("the client does not speak MCP: {error}"), "start `belljar mcp` from an MCP client, which talks to it over pipes"))
}

/// Builds the environment where it is not there yet, and starts the default pool with a record of its own. Blocking.
fn begin(configuration: &Configuration, news: &watch::Sender<String>) -> Result<Arc<App>, Error> {
    let named = &configuration.server.default_pool;
    let missing = || Error::new(ErrorKind::NotFound, format!("there is no pool `{named}`"));
    let mut pool = configuration.server.pools.iter().find(|pool| pool.settings.name == *named).ok_or_else(missing)?.settings.clone();
    // One client seldom needs two new sessions at once.
    pool.sandboxes.ready = pool.sandboxes.ready.min(1);
    let store = open_store(&configuration.data.value)?;
    let recorder: Arc<dyn Recorder> = Arc::new(StoreRecorder(Arc::clone(&store)));
    let mut shown = super::progress::Shown::new();
    let mut tell = |event: Progress<'_>| {
        if let Some(text) = super::progress::words(&event) {
            news.send_replace(text);
        }
        shown.show(event);
    };
    let sessions = Sessions::start(&super::engine(configuration), vec![pool], recorder, &mut tell)?;
    news.send_replace("starting a sandbox".to_owned());
    Ok(App::new(Start { sessions, default_pool: named.clone(), store, dev_key: None, issuer: None, settings: Settings::default() }))
}

/// A record of our own, since only one program may write to one: the first of the folder's that nobody else has.
fn open_store(data: &Path) -> Result<Arc<Store>, Error> {
    let failed = |message: String, hint: &str| Error::new(ErrorKind::Unavailable, message).hint(hint);
    for number in 0..MAX_PROGRAMS {
        let folder = data.join("mcp").join(number.to_string());
        let Some(lock) = lock(&folder).map_err(|error| failed(format!("cannot lock `{}`: {error}", folder.display()), "check `--data`"))? else { continue };
        let options = Options { durability: store::Durability::Full };
        let opened = Store::open(&folder, options).map_err(|error| failed(error.to_string(), error.hint().as_deref().unwrap_or("check `--data`")))?;
        // Held as long as this program runs.
        std::mem::forget(lock);
        return Ok(opened);
    }
    Err(failed(format!("{MAX_PROGRAMS} programs use the data folder already"), "end some of them, or name another folder with `--data`"))
}

/// Takes a folder, unless another program has it.
fn lock(folder: &PathBuf) -> std::io::Result<Option<File>> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(folder.join("in-use"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}
