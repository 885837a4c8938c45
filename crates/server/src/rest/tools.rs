//! The eight tools over HTTP.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::body::Body;
use super::call::{Call, Links};
use super::executions::SURFACE;
use crate::error::ApiError;
use crate::tools::{self, Scope};

/// The body, with a file as base64, may be this long.
const BODY_BYTES: usize = 64 * 1024 * 1024;

/// Calls a tool: one route for all, which the description shows one by one.
pub(crate) async fn call(call: Call, Body(params): Body<Map<String, Value>, BODY_BYTES>) -> Result<Response, ApiError> {
    let query = call.query(&["pool"])?;
    let pool = call.pool(&query, None)?;
    let (session, name) = (call.part(2)?, call.part(4)?);
    let links = Links::new(&call.app, &pool, &session);
    let scope = Scope { app: &call.app, identity: &call.identity, pool: &pool, session: &session, surface: SURFACE, links: &links, following: None };
    let result = tools::call(scope, &name, Value::Object(params)).await?;
    Ok(Json(result.answer()).into_response())
}
