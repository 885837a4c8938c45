//! Where a client gets a token for `/mcp`: the metadata of a protected resource (RFC 9728), which the protocol's authorization begins with. Only where
//! tokens of an issuer are taken.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::http::PATH;
use crate::app::App;
use crate::listen::Peer;
use crate::rest::is_plain_host;
use crate::settings::Settings;

/// Where it is asked for: of the server, and of the resource in particular.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
const WELL_KNOWN_MCP: &str = "/.well-known/oauth-protected-resource/mcp";

/// The routes.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route(WELL_KNOWN, get(show)).route(WELL_KNOWN_MCP, get(show))
}

/// Whether a request needs no key: who has none asks here where to get one.
pub(crate) fn is_open(app: &App, method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && matches!(path, WELL_KNOWN | WELL_KNOWN_MCP) && app.settings().jwt.is_some()
}

/// How who comes without a token is told where to ask; `None` where there is nothing to be told.
pub(crate) fn challenge(app: &App, request: &Request) -> Option<HeaderValue> {
    let settings = app.settings();
    let base = settings.jwt.as_ref().filter(|_| request.uri().path() == PATH).and_then(|_| base(request.headers(), request.extensions().get(), &settings))?;
    HeaderValue::from_str(&format!("Bearer resource_metadata=\"{base}{WELL_KNOWN_MCP}\"")).ok()
}

/// The address by which the caller knows this server.
fn base(headers: &HeaderMap, peer: Option<&Peer>, settings: &Settings) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok().filter(|host| is_plain_host(host))?;
    let is_secure = settings.behind_proxy.is_some() || matches!(peer, Some(Peer::Remote { is_encrypted: true, .. }));
    Some(format!("{}://{host}", if is_secure { "https" } else { "http" }))
}

async fn show(State(app): State<Arc<App>>, request: Request) -> Response {
    let settings = app.settings();
    let (Some(jwt), Some(base)) = (&settings.jwt, base(request.headers(), request.extensions().get(), &settings)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    Json(json!({
        "resource": format!("{base}{PATH}"),
        "resource_name": "Belljar",
        "authorization_servers": [jwt.issuer],
        "bearer_methods_supported": ["header"]
    }))
    .into_response()
}
