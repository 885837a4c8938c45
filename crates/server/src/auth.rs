//! Who calls: keys, tokens of an issuer, the user of this machine. Every refusal reads the same, whatever is wrong with the credential.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::session::Caller;
use engine::{Error, ErrorKind};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::error::refusal;
use crate::health;
use crate::identity::{Identity, Roles};
use crate::listen::Peer;
use crate::settings::Share;

/// How a key begins.
pub const KEY_PREFIX: &str = "bj_";

/// A key that is good.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id: not secret.
    pub id: String,
    /// Pools it may use; `None`: all.
    pub pools: Option<Vec<String>>,
    /// What it may do.
    pub roles: Roles,
    /// Its shares; what it does not name is as configured.
    pub share: Share,
}

/// Where keys are kept.
pub trait Keys: Send + Sync {
    /// The key that was presented, if it is good now. Takes no longer than a look into memory.
    fn verify(&self, presented: &str) -> Option<Key>;
}

/// No keys but the one of development.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKeys;

impl Keys for NoKeys {
    fn verify(&self, _: &str) -> Option<Key> {
        None
    }
}

/// Who may call.
pub struct Auth {
    keys: Box<dyn Keys>,
    dev_key: Option<String>,
}

impl Auth {
    /// These keys, and one for development that may do everything.
    #[must_use]
    pub fn new(keys: Box<dyn Keys>, dev_key: Option<String>) -> Self {
        Self { keys, dev_key }
    }

    /// Who presents this.
    fn identify(&self, presented: &str, share: &Share) -> Option<Identity> {
        if self.dev_key.as_ref().is_some_and(|key| bool::from(key.as_bytes().ct_eq(presented.as_bytes()))) {
            return Some(everything("dev", share));
        }
        if presented.starts_with(KEY_PREFIX) {
            let key = self.keys.verify(presented)?;
            let own = Share {
                max_sessions: key.share.max_sessions.or(share.max_sessions),
                max_executions: key.share.max_executions.or(share.max_executions),
                requests_per_minute: key.share.requests_per_minute.or(share.requests_per_minute),
                bytes_per_hour: key.share.bytes_per_hour.or(share.bytes_per_hour),
            };
            return Some(Identity { caller: caller(&format!("key:{}", key.id), &own), pools: key.pools, roles: key.roles });
        }
        None
    }
}

fn caller(principal: &str, share: &Share) -> Caller {
    Caller { principal: principal.into(), max_sessions: share.max_sessions, max_executions: share.max_executions }
}

/// Whoever may do everything.
fn everything(principal: &str, share: &Share) -> Identity {
    Identity { caller: caller(principal, share), pools: None, roles: Roles { execute: true, observe: true, admin: true } }
}

/// Lets requests pass that need no key, or come with a good one.
pub(crate) async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if health::is_open(request.method(), path) {
        return next.run(request).await;
    }
    let browsable = request.method() == Method::GET && is_document(path);
    let settings = app.settings();
    let local = request.extensions().get::<Peer>().is_some_and(|peer| matches!(peer, Peer::Local { .. }));
    let identity = if local {
        // The kernel has said who it is.
        Some(everything("local", &Share::default()))
    } else {
        let found = presented(request.headers(), browsable).into_iter().find_map(|credential| app.auth.identify(&credential, &settings.share));
        found
    };
    let Some(identity) = identity else {
        let error = Error::new(ErrorKind::Unauthenticated, "a valid key is needed").hint("send `Authorization: Bearer <key>`");
        let mut response = refusal(path, error);
        if browsable {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"belljar\", charset=\"UTF-8\""));
        }
        return response;
    };
    request.extensions_mut().insert(identity);
    next.run(request).await
}

/// What a browser may open with a password.
fn is_document(path: &str) -> bool {
    path == "/docs" || path.starts_with("/docs/") || (path.starts_with("/openapi") && path.ends_with(".json") && !path[1..].contains('/'))
}

/// What was presented. A header that stands there twice presents nothing.
fn presented(headers: &HeaderMap, browsable: bool) -> Vec<String> {
    let one = |name: &str| {
        let mut all = headers.get_all(name).iter();
        let first = all.next()?.to_str().ok()?;
        all.next().is_none().then(|| first.trim())
    };
    let authorization = one(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(rest.trim().to_owned());
        }
        let decoded = (browsable && scheme.eq_ignore_ascii_case("basic")).then(|| BASE64_STANDARD.decode(rest.trim()).ok()).flatten()?;
        String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
    });
    let plain = one("x-ms-apikey").map(str::to_owned);
    authorization.into_iter().chain(plain).filter(|credential| !credential.is_empty()).collect()
}
