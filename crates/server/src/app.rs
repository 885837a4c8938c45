//! What every handler can reach.

use std::sync::Arc;

use engine::session::Sessions;

/// The server's state, shared by all handlers.
pub struct App {
    /// Pools and sessions.
    pub sessions: Arc<Sessions>,
    /// The pool of requests that name none.
    pub default_pool: String,
}
