//! API keys: made, listed, revoked.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use store::{KeyInfo, KeyLimits, NewKey, Role, format_time};
use utoipa::ToSchema;

use super::{may_manage, with_store};
use crate::error::ApiError;
use crate::json::Object;
use crate::rest::{Body, Call};

/// What a key lets its holder do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = KeyRole)]
enum RoleView {
    /// Sessions, executions and files.
    Execute,
    /// Metrics and the record.
    Observe,
    /// Keys.
    Admin,
}

impl From<RoleView> for Role {
    fn from(view: RoleView) -> Self {
        match view {
            RoleView::Execute => Self::Execute,
            RoleView::Observe => Self::Observe,
            RoleView::Admin => Self::Admin,
        }
    }
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        match role {
            Role::Execute => Self::Execute,
            Role::Observe => Self::Observe,
            Role::Admin => Self::Admin,
        }
    }
}

/// How much a key's holder may have; what is left out is as the server is configured.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = KeyLimits)]
struct LimitsView {
    /// Sessions at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    max_sessions: Option<u32>,
    /// Executions running or queued at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    max_executions: Option<u32>,
    /// Requests in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    requests_per_minute: Option<u32>,
    /// Bytes in an hour, up and down together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    bytes_per_hour: Option<u64>,
}

/// What a key is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CreateKeyRequest, example = json!({"name": "ci", "roles": ["execute"], "pools": ["default"], "expiresInSeconds": 2_592_000}))]
pub(crate) struct CreateBody {
    /// What its holder is called.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What it is good for; `execute` where nothing is said.
    #[schema(min_items = 1)]
    roles: Option<Vec<RoleView>>,
    /// Whom it stands for: keys of one principal share their sessions. Itself where nothing is said.
    #[schema(pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    principal: Option<String>,
    /// In these pools; in all where nothing is said.
    #[schema(min_items = 1, max_items = 100)]
    pools: Option<Vec<String>>,
    /// It expires after so many seconds; never where nothing is said.
    #[schema(minimum = 1, maximum = 3_162_240_000_u64)]
    expires_in_seconds: Option<u64>,
    /// How much its holder may have.
    #[schema(value_type = Option<LimitsView>)]
    limits: Option<Object<LimitsView>>,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Key)]
struct KeyView {
    /// Names it; no secret.
    id: String,
    /// What its holder is called.
    name: String,
    /// Whom it stands for.
    principal: String,
    /// What it is good for.
    roles: Vec<RoleView>,
    /// In these pools; null: in all.
    pools: Option<Vec<String>>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it expires; null: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it was revoked; null: it was not.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
    /// How much its holder may have.
    limits: LimitsView,
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedKey)]
pub(crate) struct CreatedView {
    /// What its holder presents. Shown this once, and kept nowhere.
    key: String,
    #[serde(flatten)]
    info: KeyView,
}

/// Keys.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyList)]
pub(crate) struct KeyList {
    /// All of them by the time they were made, those that have ended included.
    keys: Vec<KeyView>,
}

impl From<KeyInfo> for KeyView {
    fn from(info: KeyInfo) -> Self {
        let KeyLimits { max_sessions, max_executions, requests_per_minute, bytes_per_hour } = info.limits;
        Self {
            id: info.id,
            name: info.name,
            principal: info.principal,
            roles: info.roles.into_iter().map(RoleView::from).collect(),
            pools: info.pools,
            created_at: format_time(info.created_at),
            expires_at: info.expires_at.map(format_time),
            revoked_at: info.revoked_at.map(format_time),
            limits: LimitsView { max_sessions, max_executions, requests_per_minute, bytes_per_hour },
        }
    }
}

impl From<CreateBody> for NewKey {
    fn from(body: CreateBody) -> Self {
        let LimitsView { max_sessions, max_executions, requests_per_minute, bytes_per_hour } = body.limits.map(|limits| limits.0).unwrap_or_default();
        Self {
            name: body.name,
            principal: body.principal,
            roles: body.roles.map_or_else(|| vec![Role::Execute], |roles| roles.into_iter().map(Role::from).collect()),
            pools: body.pools,
            expires_in: body.expires_in_seconds.map(Duration::from_secs),
            limits: KeyLimits { max_sessions, max_executions, requests_per_minute, bytes_per_hour },
        }
    }
}

/// Create a key
///
/// The answer holds the secret, which is shown this once.
#[utoipa::path(
    post,
    path = "/v1/admin/keys",
    operation_id = "createKey",
    tag = "admin",
    request_body = CreateBody,
    responses((status = 201, description = "The key", body = CreatedView))
)]
pub(crate) async fn create(call: Call, Body(body): Body<CreateBody, 65_536>) -> Result<Response, ApiError> {
    call.query(&[])?;
    may_manage(&call.identity)?;
    let by = call.identity.caller.principal.to_string();
    let created = with_store(&call.app, move |store| store.create_key(body.into(), &by)).await?;
    let mut response = (StatusCode::CREATED, Json(CreatedView { key: created.key, info: created.info.into() })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// List keys
///
/// Without their secrets, which are kept nowhere.
#[utoipa::path(get, path = "/v1/admin/keys", operation_id = "listKeys", tag = "admin", responses((status = 200, description = "The keys", body = KeyList)))]
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    call.query(&[])?;
    may_manage(&call.identity)?;
    let keys = call.app.store.keys().into_iter().map(KeyView::from).collect();
    Ok(Json(KeyList { keys }).into_response())
}

/// Revoke a key
///
/// It is refused from now on. One that has ended already stays as it is, and that is no error.
#[utoipa::path(
    delete,
    path = "/v1/admin/keys/{id}",
    operation_id = "revokeKey",
    tag = "admin",
    params(("id" = String, Path, description = "The key's id")),
    responses((status = 204, description = "It is refused from now on"))
)]
pub(crate) async fn revoke(call: Call) -> Result<Response, ApiError> {
    call.query(&[])?;
    may_manage(&call.identity)?;
    let (id, by) = (call.part(3)?, call.identity.caller.principal.to_string());
    with_store(&call.app, move |store| store.revoke_key(&id, &by)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
