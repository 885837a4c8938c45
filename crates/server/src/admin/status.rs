//! How everything is doing.

use std::time::SystemTime;

use axum::Json;
use axum::response::{IntoResponse, Response};
use engine::session::PoolNow;
use serde::Serialize;
use store::format_time;
use utoipa::ToSchema;

use super::may_observe;
use crate::error::ApiError;
use crate::rest::Call;

/// How the server is doing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServerStatus)]
pub(crate) struct StatusView {
    /// Of this program.
    version: &'static str,
    /// When the server was started.
    #[schema(format = DateTime)]
    started_at: String,
    /// It is about to end.
    ending: bool,
    /// The pools that the caller may use.
    pools: Vec<PoolView>,
    /// The record.
    record: RecordView,
    /// Keys.
    keys: KeysView,
}

/// How a pool is doing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PoolStatus)]
struct PoolView {
    /// Its name.
    name: String,
    /// Sandboxes that wait.
    #[schema(minimum = 0)]
    ready: usize,
    /// Sandboxes that are in use.
    #[schema(minimum = 0)]
    taken: usize,
    /// Sessions of all callers.
    #[schema(minimum = 0)]
    sessions: usize,
    /// Sessions in which something runs.
    #[schema(minimum = 0)]
    busy: usize,
    /// What went wrong last.
    problems: Vec<String>,
}

/// How the record is doing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordStatus)]
struct RecordView {
    /// Place of the last event that is durable.
    #[schema(minimum = 0)]
    last_seq: i64,
    /// Events that are not durable yet.
    #[schema(minimum = 0)]
    waiting: usize,
    /// Nothing can be put on record, so nothing runs; the log says why.
    failing: bool,
}

/// How many keys there are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyCounts)]
struct KeysView {
    /// Keys that hold.
    #[schema(minimum = 0)]
    valid: usize,
    /// Keys that were revoked or have expired.
    #[schema(minimum = 0)]
    ended: usize,
}

/// Show the server's status
///
/// For operators: pools, record, keys.
#[utoipa::path(
    get,
    path = "/v1/admin/status",
    operation_id = "showStatus",
    tag = "admin",
    responses((status = 200, description = "How it is doing", body = StatusView))
)]
pub(crate) async fn show(call: Call) -> Result<Response, ApiError> {
    call.query(&[])?;
    may_observe(&call.identity)?;
    let named = |name: &String| call.identity.pools.as_ref().is_none_or(|pools| pools.contains(name));
    let pools = call.app.sessions.pools().into_iter().filter(|pool| named(&pool.settings.name)).map(PoolView::from).collect();
    let record = call.app.store.status();
    let (keys, now) = (call.app.store.keys(), SystemTime::now());
    let valid = keys.iter().filter(|key| key.holds(now)).count();
    Ok(Json(StatusView {
        version: env!("CARGO_PKG_VERSION"),
        started_at: format_time(call.app.started_at),
        ending: call.app.is_ending(),
        pools,
        record: RecordView { last_seq: record.last_seq, waiting: record.waiting, failing: record.failing.is_some() },
        keys: KeysView { valid, ended: keys.len().saturating_sub(valid) },
    })
    .into_response())
}

impl From<PoolNow> for PoolView {
    fn from(pool: PoolNow) -> Self {
        Self {
            name: pool.settings.name,
            ready: pool.sandboxes.parked,
            taken: pool.sandboxes.taken,
            sessions: pool.sessions,
            busy: pool.busy,
            problems: pool.sandboxes.problems,
        }
    }
}
