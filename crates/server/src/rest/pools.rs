//! Pools: what sessions can be made of.

use axum::Json;
use axum::response::{IntoResponse, Response};
use engine::Limits;
use engine::session::PoolNow;
use serde::Serialize;
use utoipa::ToSchema;

use super::call::Call;
use super::view::schema;
use crate::error::ApiError;

/// A pool of sessions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Pool)]
struct PoolView {
    /// Its name.
    name: String,
    /// It is used where none is named.
    is_default: bool,
    /// The environment of its sessions.
    environment: String,
    /// Where it says it is.
    #[schema(required)]
    region: Option<String>,
    /// Limits of a session that asks for no others; none may be higher.
    #[schema(value_type = schema::Limits)]
    limits: Limits,
    /// Sessions at once.
    #[schema(minimum = 0)]
    max_sessions: usize,
    /// A session that nobody calls for so long ends.
    #[schema(minimum = 0)]
    idle_timeout_seconds: u64,
    /// A session ends at this age.
    #[schema(minimum = 0)]
    max_lifetime_seconds: u64,
    /// An unknown id makes a new session.
    create_on_use: bool,
    /// Shell commands are allowed.
    shell: bool,
    /// Python code may start processes.
    process_spawning: bool,
    /// How it is doing, for those who may observe.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Now>,
}

/// How a pool is doing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PoolNow)]
struct Now {
    /// Sandboxes that wait.
    #[schema(minimum = 0)]
    ready: usize,
    /// Sessions of all callers.
    #[schema(minimum = 0)]
    sessions: usize,
    /// Sessions in which something runs.
    #[schema(minimum = 0)]
    busy: usize,
}

/// The pools.
#[derive(Serialize, ToSchema)]
#[schema(as = PoolList)]
pub(crate) struct PoolList {
    /// By name.
    pools: Vec<PoolView>,
}

/// List pools
///
/// The pools that the caller may use.
#[utoipa::path(get, path = "/v1/pools", operation_id = "listPools", tag = "pools", responses((status = 200, description = "The pools", body = PoolList)))]
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    call.query(&[])?;
    let roles = call.identity.roles;
    if !roles.execute && !roles.observe {
        call.identity.may_use(&call.app.default_pool)?;
    }
    let named = |name: &String| call.identity.pools.as_ref().is_none_or(|pools| pools.contains(name));
    let pools = call.app.sessions.pools().into_iter().filter(|pool| named(&pool.settings.name));
    Ok(Json(PoolList { pools: pools.map(|pool| view(pool, &call)).collect() }).into_response())
}

fn view(pool: PoolNow, call: &Call) -> PoolView {
    let settings = pool.settings;
    let now = Now { ready: pool.sandboxes.parked, sessions: pool.sessions, busy: pool.busy };
    PoolView {
        is_default: settings.name == call.app.default_pool,
        name: settings.name,
        environment: settings.environment,
        region: settings.region,
        limits: settings.sandboxes.limits,
        max_sessions: settings.max_sessions,
        idle_timeout_seconds: settings.idle_timeout.as_secs(),
        max_lifetime_seconds: settings.max_lifetime.as_secs(),
        create_on_use: settings.create_on_use,
        shell: settings.sandboxes.shell,
        process_spawning: settings.sandboxes.process_spawning,
        now: call.identity.roles.observe.then_some(now),
    }
}
