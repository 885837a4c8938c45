//! The protocol over standard input and output: one client, whose program started this one. The engine begins while the client says hello, and
//! whoever needs it earlier waits for it, and hears how far it is.

use std::io;
use std::sync::Arc;

use engine::Error;
use engine::session::Caller;
use futures_util::future::BoxFuture;
use rmcp::service::{QuitReason, serve_server_with_ct};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use super::lines::Lines;
use super::server::Server;
use crate::app::App;
use crate::identity::{Identity, Roles};

/// Starts the engine.
pub type Begin = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<App>, Error>> + Send + Sync>;

/// What stands behind a connection over standard input and output.
pub struct Local {
    app: OnceCell<Arc<App>>,
    begin: Begin,
    news: watch::Receiver<String>,
}

impl Local {
    /// `begin` starts the engine when it is first needed, and again where that failed; `news` says what it is doing.
    #[must_use]
    pub fn new(begin: Begin, news: watch::Receiver<String>) -> Arc<Self> {
        Arc::new(Self { app: OnceCell::new(), begin, news })
    }

    /// The engine, once it has begun.
    ///
    /// # Errors
    /// It could not begin.
    pub async fn app(&self) -> Result<Arc<App>, Error> {
        self.app.get_or_try_init(|| (self.begin)()).await.cloned()
    }

    /// The engine, where it has begun.
    #[must_use]
    pub fn begun(&self) -> Option<Arc<App>> {
        self.app.get().cloned()
    }

    /// What is being done.
    pub(super) fn news(&self) -> String {
        self.news.borrow().clone()
    }
}

/// Who calls: the user whose program started this one.
pub(super) fn identity() -> Identity {
    Identity {
        caller: Caller { principal: "local".into(), max_sessions: None, max_executions: None },
        pools: None,
        roles: Roles { execute: true, ..Roles::default() },
    }
}

/// Serves one client until its input ends, or `stop` is cancelled.
///
/// # Errors
/// The client spoke no MCP, or cannot be heard any more.
pub async fn serve(
    local: Arc<Local>,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    let early = Arc::clone(&local);
    // Where this fails, the call that needs it says why.
    tokio::spawn(async move { drop(early.app().await) });
    let serving = serve_server_with_ct(Server::local(local), Lines::new(input, output), stop.clone()).await;
    let running = match serving {
        Ok(running) => running,
        Err(_) if stop.is_cancelled() => return Ok(()),
        // It left before it said hello.
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(io::Error::other(error.to_string())),
    };
    match running.waiting().await {
        Ok(QuitReason::Closed | QuitReason::Cancelled) => Ok(()),
        Ok(reason) => Err(io::Error::other(format!("the connection broke off: {reason:?}"))),
        Err(error) => Err(io::Error::other(error)),
    }
}
