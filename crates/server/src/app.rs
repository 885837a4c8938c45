//! What every handler can reach, and the one place where the surfaces are put together.

mod inventory;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use engine::session::Sessions;
use engine::{Error, ErrorKind};
use store::Store;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::{self, Auth};
use crate::error::refusal;
use crate::jwt::Issuer;
use crate::settings::Settings;
use crate::{aca, admin, body, door, health, limit, mcp, metrics, rest, trace};

/// The server's state, shared by all handlers.
pub struct App {
    /// Pools and sessions.
    pub sessions: Arc<Sessions>,
    /// The pool of requests that name none.
    pub default_pool: String,
    /// The record and the keys.
    pub store: Arc<Store>,
    /// Who may call.
    pub auth: Auth,
    /// When it was started.
    pub started_at: SystemTime,
    pub(crate) shapes: aca::Shapes,
    pub(crate) mcp: mcp::Transport,
    /// Room for bodies that are held whole.
    pub(crate) bodies: Arc<Semaphore>,
    settings: RwLock<Arc<Settings>>,
    ending: AtomicBool,
}

/// What a server is started with.
pub struct Start {
    /// Pools and sessions.
    pub sessions: Arc<Sessions>,
    /// The pool of requests that name none.
    pub default_pool: String,
    /// The record and the keys.
    pub store: Arc<Store>,
    /// A key that may do everything.
    pub dev_key: Option<String>,
    /// An issuer whose tokens are taken.
    pub issuer: Option<Arc<Issuer>>,
    /// Everything else.
    pub settings: Settings,
}

impl App {
    /// A server's state.
    #[must_use]
    pub fn new(start: Start) -> Arc<Self> {
        let Start { sessions, default_pool, store, dev_key, issuer, settings } = start;
        let idle = sessions.pool(&default_pool).map(|pool| pool.settings.idle_timeout).unwrap_or_default();
        Arc::new(Self {
            mcp: mcp::Transport::new(idle),
            sessions,
            default_pool,
            auth: Auth::new(Arc::clone(&store) as _, dev_key, issuer),
            store,
            shapes: aca::Shapes::default(),
            bodies: Arc::new(Semaphore::new(usize::try_from(body::ROOM_UNITS).unwrap_or_default())),
            started_at: SystemTime::now(),
            settings: RwLock::new(Arc::new(settings)),
            ending: AtomicBool::new(false),
        })
    }

    /// The settings as they are now.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes new settings: for every request from now on.
    pub fn set(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// It is about to end: it is not ready any more.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Ends streams that would go on by themselves: everything that had to be said has been.
    pub fn end_streams(&self) {
        self.mcp.end();
    }

    /// Whether it is about to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// Every surface, behind everything that a request has to pass.
pub fn router(app: Arc<App>) -> Router {
    behind_the_door(surfaces(), app)
}

/// Routes behind everything that a request has to pass: from the last line to the first.
fn behind_the_door(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        // Bodies have limits of their own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&app), body::guard))
        .layer(from_fn_with_state(Arc::clone(&app), limit::check))
        .layer(from_fn_with_state(Arc::clone(&app), auth::authenticate))
        .layer(from_fn_with_state(Arc::clone(&app), door::check))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(trace::observe))
        .with_state(app)
}

/// The surfaces.
fn surfaces() -> Router<Arc<App>> {
    Router::new().merge(health::router()).merge(metrics::router()).merge(rest::router()).merge(mcp::router()).merge(admin::router()).merge(aca::router())
}

/// Every route that there is: its methods and its path, as they are mounted.
///
/// Read from what the router says of itself, since it keeps no list: a test holds what comes of it against what is written down.
#[must_use]
pub fn routes() -> Vec<(String, String)> {
    inventory::read(&format!("{:?}", surfaces()))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request's handler panicked");
    refusal("", Error::new(ErrorKind::Internal, "the request failed inside the server"))
}

async fn unknown(OriginalUri(uri): OriginalUri) -> Response {
    refusal(uri.path(), Error::new(ErrorKind::NotFound, "there is no such route").hint("see `GET /openapi.json`"))
}

async fn wrong_method(OriginalUri(uri): OriginalUri) -> Response {
    let error = Error::new(ErrorKind::InvalidRequest, "this route does not take this method").hint("see the header `Allow`");
    let mut response = refusal(uri.path(), error);
    *response.status_mut() = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

#[cfg(test)]
mod tests;
