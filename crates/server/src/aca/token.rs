//! The managed-identity call, answered with a key that the operator has set: clients that insist on a credential of the cloud then work
//! unchanged. Off unless it is configured, and for this machine only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::error::Refusal;
use crate::app::App;
use crate::listen::Peer;

/// Where `IDENTITY_ENDPOINT` points to.
pub(super) const APP_SERVICE: &str = "/msi/token";
/// Where clients look below `AZURE_POD_IDENTITY_AUTHORITY_HOST`.
pub(super) const INSTANCE: &str = "/metadata/identity/oauth2/token";
/// Clients ask again after this; the key itself may live longer or shorter.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// What the managed-identity call hands out, and to whom.
#[derive(Clone, PartialEq, Eq)]
pub struct MsiToken {
    /// The key that callers get.
    pub token: String,
    /// What they must say in `X-IDENTITY-HEADER`.
    pub header: String,
    /// Answer the form without that header, too: then every program of this machine gets the key.
    pub instance: bool,
}

impl std::fmt::Debug for MsiToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MsiToken").field("instance", &self.instance).finish_non_exhaustive()
    }
}

pub(super) async fn app_service(State(app): State<Arc<App>>, peer: Option<Extension<Peer>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let settings = app.settings();
    let asked = headers.get("x-identity-header").map(|value| value.as_bytes());
    let allowed = |msi: &&MsiToken| !msi.header.is_empty() && asked.is_some_and(|asked| bool::from(asked.ct_eq(msi.header.as_bytes())));
    answer(settings.msi_token.as_ref(), allowed, peer.map(|Extension(peer)| peer), (&headers, query.as_deref()))
}

pub(super) async fn instance(State(app): State<Arc<App>>, peer: Option<Extension<Peer>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let settings = app.settings();
    // By this header the call cannot come from a page in a browser.
    let asked = headers.get("metadata").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let msi = settings.msi_token.as_ref().filter(|msi| msi.instance);
    answer(msi, |_| asked, peer.map(|Extension(peer)| peer), (&headers, query.as_deref()))
}

fn answer(msi: Option<&MsiToken>, allowed: impl Fn(&&MsiToken) -> bool, peer: Option<Peer>, (headers, query): (&HeaderMap, Option<&str>)) -> Response {
    let Some(msi) = msi else { return Refusal::new(StatusCode::NOT_FOUND, "ResourceNotFound", "there is nothing at this path").into_response() };
    if !is_of_this_machine(peer, headers) || !allowed(&msi) {
        return Refusal::new(StatusCode::FORBIDDEN, "Forbidden", "this is for programs of this machine that know the identity header").into_response();
    }
    let resource = query.and_then(|query| super::Query::new(query).text("resource"));
    let Some(resource) = resource else { return Refusal::bad("the query needs `resource`").into_response() };
    let until = SystemTime::now().checked_add(VALID).and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let body = json!({
        "access_token": msi.token,
        "expires_on": until.as_secs().to_string(),
        "expires_in": VALID.as_secs().to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Whether the caller is on this machine, and not somebody for whom a proxy of this machine asks.
fn is_of_this_machine(peer: Option<Peer>, headers: &HeaderMap) -> bool {
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    let near = match peer {
        Some(Peer::Remote { address, loopback, .. }) => loopback && is_loopback(address.ip()),
        Some(Peer::Local { .. }) => true,
        None => false,
    };
    near && !forwarded
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn msi(instance: bool) -> MsiToken {
        MsiToken { token: "bj_key".to_owned(), header: "secret".to_owned(), instance }
    }

    fn peer(address: &str, loopback: bool) -> Option<Peer> {
        Some(Peer::Remote { address: address.parse().unwrap(), loopback, tls: false })
    }

    async fn body(response: Response) -> serde_json::Value {
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_key_is_handed_out_in_the_form_of_a_token() {
        let query = Some("api-version=2019-08-01&resource=https%3A%2F%2Facasessions.io");
        let response = answer(Some(&msi(false)), |_| true, peer("127.0.0.1:5", true), (&HeaderMap::new(), query));
        assert_eq!(response.status(), StatusCode::OK);
        let body = body(response).await;
        assert_eq!((&body["access_token"], &body["resource"], &body["token_type"]), (&json!("bj_key"), &json!("https://acasessions.io"), &json!("Bearer")));
        let until = body["expires_on"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(until > SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    }

    #[test]
    fn nobody_else_gets_it() {
        let near = peer("[::1]:5", true);
        let forwarded = HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("10.0.0.1"))]);
        let none = HeaderMap::new();
        let query = Some("resource=x");
        let status = |msi: Option<&MsiToken>, allowed: bool, peer, headers: &HeaderMap, query| answer(msi, |_| allowed, peer, (headers, query)).status();
        let on = msi(false);
        assert_eq!(status(Some(&on), true, near, &none, query), StatusCode::OK);
        assert_eq!(status(None, true, near, &none, query), StatusCode::NOT_FOUND);
        assert_eq!(status(Some(&on), false, near, &none, query), StatusCode::FORBIDDEN);
        assert_eq!(status(Some(&on), true, peer("10.0.0.1:5", true), &none, query), StatusCode::FORBIDDEN);
        assert_eq!(status(Some(&on), true, peer("127.0.0.1:5", false), &none, query), StatusCode::FORBIDDEN);
        assert_eq!(status(Some(&on), true, None, &none, query), StatusCode::FORBIDDEN);
        assert_eq!(status(Some(&on), true, near, &forwarded, query), StatusCode::FORBIDDEN);
        assert_eq!(status(Some(&on), true, near, &none, None), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn the_key_is_not_in_what_is_printed_of_it() {
        assert!(!format!("{:?}", msi(true)).contains("bj_key") && !format!("{:?}", msi(true)).contains("secret"));
    }
}
