//! A name for every request, in its answer and in every line of the log that is about it. No line has a body, a key or a query in it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::body::until_taken;
use crate::identity::Identity;
use crate::listen::{Peer, Seat};
use crate::metrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id; in its extensions.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "for the surfaces")]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Names a request, and puts it in the log.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let asking = request.extensions().get::<Arc<Seat>>().map(Seat::ask);
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_sane(id)).map_or_else(new_id, str::to_owned);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let peer = match request.extensions().get::<Peer>() {
        Some(Peer::Remote { address, .. }) => address.ip().to_string(),
        Some(Peer::Local { uid }) => format!("uid:{uid}"),
        None => String::new(),
    };
    request.extensions_mut().insert(RequestId(id.as_str().into()));
    let span = tracing::info_span!("request", request_id = %id, method = %method, route = route.unwrap_or("-"), peer);
    let mut response = next.run(request).instrument(span.clone()).await;
    metrics::answered(&method, route, response.status());
    span.in_scope(|| {
        let principal = response.extensions().get::<Identity>().map_or("-", |identity| &identity.caller.principal);
        tracing::info!(status = response.status().as_u16(), principal, duration_ms = begun.elapsed().as_secs_f64() * 1e3, "answered");
    });
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    until_taken(response, asking)
}

/// Whether an id of a caller's own can stand in a log.
fn is_sane(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte))
}

fn new_id() -> String {
    let mut random = [0; 16];
    // Without randomness ids are not unique; nothing rests on that.
    let _ = getrandom::fill(&mut random);
    random.iter().fold("req_".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_callers_are_taken_where_they_are_sane() {
        assert!(is_sane("a-b.c:1@x_2") && is_sane(&"x".repeat(128)));
        assert!(!is_sane("") && !is_sane("a b") && !is_sane("a\u{1b}[0m") && !is_sane(&"x".repeat(129)));
        assert!(is_sane(&new_id()) && new_id() != new_id());
    }
}
