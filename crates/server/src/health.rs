//! Whether it lives, and whether it is ready: the only routes that answer strangers, with nothing but that.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::app::App;

/// The routes.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

/// Whether a request needs no key.
pub(crate) fn is_open(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && matches!(path, "/healthz" | "/readyz")
}

async fn alive() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let (code, status) = match (app.is_ending(), is_ready(&app)) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
        (false, true) => (StatusCode::OK, "ready"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (code, Json(json!({"status": status}))).into_response()
}

/// The default pool has a sandbox that waits; where it keeps none, its template works.
fn is_ready(app: &App) -> bool {
    app.sessions.pool(&app.default_pool).is_ok_and(|pool| match pool.settings.sandboxes.ready {
        0 => pool.sandboxes.report.is_some() && pool.sandboxes.problems.is_empty(),
        _ => pool.sandboxes.parked > 0,
    })
}
