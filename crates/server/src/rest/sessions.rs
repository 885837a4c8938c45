//! Sessions: made, listed, looked up, ended.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::session::{Create, LimitsRequest};
use engine::{Error, ErrorKind};
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::Body;
use super::call::{Call, Links, Query, bad_id, is_plain_id};
use super::view::{SessionList, SessionView, schema};
use crate::error::ApiError;
use crate::json::Object;

/// What a session is to be. Everything may be left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CreateSessionRequest, example = json!({"id": "analysis-1", "limits": {"memoryBytes": 268_435_456}}))]
pub(crate) struct CreateBody {
    /// The id by which it will be addressed; a new one where none is given.
    #[schema(min_length = 4, max_length = 128, pattern = "^[A-Za-z0-9._:@-]{4,128}$")]
    id: Option<String>,
    /// The pool it comes from.
    pool: Option<String>,
    /// The environment it must have; chooses the pool where none is named.
    environment: Option<String>,
    /// Limits below those of the pool.
    #[schema(value_type = Option<schema::LimitsRequest>)]
    limits: Option<Object<LimitsRequest>>,
}

/// Create a session
///
/// Takes a sandbox from the pool. Variables, files and the working directory last until the session ends: by a request, when nobody has called it for the
/// pool's idle time, or at the pool's maximum age.
#[utoipa::path(
    post,
    path = "/v1/sessions",
    operation_id = "createSession",
    tag = "sessions",
    params(("pool" = Option<String>, Query, description = "The pool, where it is not the default one")),
    request_body = CreateBody,
    responses((status = 201, description = "The session", body = SessionView, headers(("Location" = String, description = "Where it is addressed"))))
)]
pub(crate) async fn create(call: Call, Body(body): Body<CreateBody, 65_536>) -> Result<Response, ApiError> {
    let query = call.query(&["pool"])?;
    let pool = choose(&call, &query, &body)?;
    if body.id.as_deref().is_some_and(|id| !is_plain_id(id)) {
        return Err(bad_id().into());
    }
    let limits = body.limits.unwrap_or_default().0;
    let opened = call.app.sessions.open(&call.identity.caller, &pool, body.id.as_deref(), Create::New, &limits).await?;
    let info = opened.session.info();
    let links = Links::new(&call.app, &pool, &info.id);
    let mut response = (StatusCode::CREATED, Json(SessionView::of(&info, &links))).into_response();
    if let Ok(location) = HeaderValue::from_str(&links.session()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The pool that is named, or the one with the environment that is named.
fn choose(call: &Call, query: &Query, body: &CreateBody) -> Result<String, Error> {
    let Some(environment) = &body.environment else { return call.pool(query, body.pool.as_deref()) };
    let has = |pool: &str| call.app.sessions.pool(pool).map(|pool| pool.settings.environment == *environment);
    if body.pool.is_some() || query.bytes("pool").is_some() {
        let pool = call.pool(query, body.pool.as_deref())?;
        if has(&pool)? {
            return Ok(pool);
        }
        let message = format!("the pool `{pool}` does not have the environment `{environment}`");
        return Err(Error::new(ErrorKind::InvalidRequest, message).hint("name the environment or the pool, not both"));
    }
    if call.identity.may_use(&call.app.default_pool).is_ok() && has(&call.app.default_pool)? {
        return Ok(call.app.default_pool.clone());
    }
    let pools = call.app.sessions.pools();
    let fits = pools.iter().find(|pool| pool.settings.environment == *environment && call.identity.may_use(&pool.settings.name).is_ok());
    let missing = || Error::new(ErrorKind::NotFound, format!("no pool has the environment `{environment}`")).hint("see `GET /v1/pools`");
    fits.map(|pool| pool.settings.name.clone()).ok_or_else(missing)
}

/// List sessions
///
/// The sessions of the caller, in one pool or in all that it may use.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    operation_id = "listSessions",
    tag = "sessions",
    params(("pool" = Option<String>, Query, description = "Only those of this pool")),
    responses((status = 200, description = "The sessions", body = SessionList))
)]
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let query = call.query(&["pool"])?;
    let pool = query.text("pool")?;
    call.identity.may_use(pool.as_deref().unwrap_or(&call.app.default_pool)).or_else(|error| match (&pool, error.kind) {
        // The default pool was not asked for: not being allowed there says nothing.
        (None, ErrorKind::NotFound) => Ok(()),
        _ => Err(error),
    })?;
    if let Some(pool) = &pool {
        call.app.sessions.pool(pool)?;
    }
    let sessions = call.app.sessions.list(&call.identity.caller, pool.as_deref());
    let mine = sessions.iter().filter(|info| call.identity.may_use(&info.pool).is_ok());
    let sessions = mine.map(|info| SessionView::of(info, &Links::new(&call.app, &info.pool, &info.id))).collect();
    Ok(Json(SessionList { sessions }).into_response())
}

/// Get a session
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}",
    operation_id = "getSession",
    tag = "sessions",
    params(("id" = String, Path, description = "The session's id"), ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")),
    responses((status = 200, description = "The session", body = SessionView))
)]
pub(crate) async fn show(call: Call) -> Result<Response, ApiError> {
    let place = call.session(&call.query(&["pool"])?)?;
    Ok(Json(SessionView::of(&place.session.info(), &place.links)).into_response())
}

/// End a session
///
/// What runs is killed, and everything in the session is destroyed.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{id}",
    operation_id = "deleteSession",
    tag = "sessions",
    params(("id" = String, Path, description = "The session's id"), ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")),
    responses((status = 204, description = "It is gone"))
)]
pub(crate) async fn delete(call: Call) -> Result<Response, ApiError> {
    let place = call.session(&call.query(&["pool"])?)?;
    call.app.sessions.close(&place.session).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}
