//! The managed-identity call: clients that insist on a credential of the cloud work unchanged with `IDENTITY_ENDPOINT` set to this path and
//! `IDENTITY_HEADER` to their key, which they get back in the form of a token.
//!
//! So nothing is handed out that its caller does not have already, and each keeps what is its own. The call of a virtual machine's
//! instance has no such header: it is not answered, since it would give a key to whoever asks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::Refusal;
use super::query::Query;
use crate::app::App;

/// Where `IDENTITY_ENDPOINT` points to.
pub(super) const PATH: &str = "/msi/token";
/// Clients ask again after this; the key itself may live longer or shorter.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// Answers whoever has passed the door with a key in that header.
pub(super) async fn token(State(app): State<Arc<App>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    answer(app.settings().msi_token, &headers, query.as_deref().unwrap_or_default(), SystemTime::now()).unwrap_or_else(IntoResponse::into_response)
}

fn answer(on: bool, headers: &HeaderMap, query: &str, now: SystemTime) -> Result<Response, Refusal> {
    if !on {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "ResourceNotFound", "there is nothing at this path"));
    }
    let key = headers.get("x-identity-header").and_then(|key| key.to_str().ok()).map(str::trim);
    let key = key.ok_or_else(|| Refusal::bad("the key must stand in the header `X-IDENTITY-HEADER`"))?;
    let resource = Query::new(query).text("resource").ok_or_else(|| Refusal::bad("the query needs `resource`"))?;
    let until = now.checked_add(VALID).and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let body = json!({"access_token": key, "expires_on": until.as_secs().to_string(), "resource": resource, "token_type": "Bearer"});
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn asked(on: bool, key: Option<&'static str>, query: &str) -> Result<Response, StatusCode> {
        let headers: HeaderMap = key.map(|key| (HeaderName::from_static("x-identity-header"), HeaderValue::from_static(key))).into_iter().collect();
        answer(on, &headers, query, SystemTime::UNIX_EPOCH).map_err(|refusal| refusal.status())
    }

    #[tokio::test]
    async fn a_caller_gets_its_own_key_in_the_form_of_a_token() {
        for (query, resource) in [
            ("api-version=2019-08-01&resource=https://dynamicsessions.io", "https://dynamicsessions.io"),
            ("resource=https%3A%2F%2Facasessions.io&api-version=2019-08-01", "https://acasessions.io"),
        ] {
            let response = asked(true, Some("bj_key"), query).unwrap();
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            let body: serde_json::Value = serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap();
            assert_eq!(body, json!({"access_token": "bj_key", "expires_on": "86400", "resource": resource, "token_type": "Bearer"}));
        }
    }

    #[test]
    fn there_is_no_answer_without_the_setting_or_the_header() {
        let query = "resource=https://dynamicsessions.io";
        assert_eq!(asked(false, Some("bj_key"), query).unwrap_err(), StatusCode::NOT_FOUND);
        assert_eq!(asked(true, None, query).unwrap_err(), StatusCode::BAD_REQUEST);
        assert_eq!(asked(true, Some("bj_key"), "api-version=2019-08-01").unwrap_err(), StatusCode::BAD_REQUEST);
    }
}
