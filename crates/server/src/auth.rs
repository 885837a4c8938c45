//! Who calls: keys, tokens of an issuer, the user of this machine. Every refusal reads the same, whatever is wrong with the credential.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::session::Caller;
use engine::{Error, ErrorKind};
use store::{Event, EventKind, Role, Store};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::error::refusal;
use crate::identity::{Identity, Roles};
use crate::jwt::Issuer;
use crate::limit::{Allowance, Allowances};
use crate::listen::{Peer, Seat};
use crate::settings::{Settings, Share};
use crate::throttle::Throttle;
use crate::{health, mcp, metrics};

/// How a key begins.
pub const KEY_PREFIX: &str = "bj_";
/// Between two refusals that are put on record.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// A key that is good.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id: not secret.
    pub id: String,
    /// Whom it stands for.
    pub principal: String,
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

    /// Somebody was refused, and `others` since the last time that this was called. May return before it is on record.
    fn refused(&self, from: &str, others: u64);
}

impl Keys for Store {
    fn verify(&self, presented: &str) -> Option<Key> {
        let info = Store::verify(self, presented)?;
        let has = |role| info.roles.contains(&role);
        let count = |limit: Option<u32>| limit.and_then(|limit| usize::try_from(limit).ok());
        Some(Key {
            id: info.id.clone(),
            principal: info.principal.clone(),
            pools: info.pools.clone(),
            roles: Roles { execute: has(Role::Execute), observe: has(Role::Observe), admin: has(Role::Admin) },
            share: Share {
                max_sessions: count(info.limits.max_sessions),
                max_executions: count(info.limits.max_executions),
                requests_per_minute: info.limits.requests_per_minute,
                bytes_per_hour: info.limits.bytes_per_hour,
            },
        })
    }

    fn refused(&self, from: &str, others: u64) {
        let event = Event::new(EventKind::CallRefused).with("reason", "unauthenticated").with("peer", from).with("others", others);
        if let Err(error) = self.enqueue(event) {
            tracing::warn!(error = %error, "a refusal is not on record");
        }
    }
}

/// Who may call.
pub struct Auth {
    keys: Arc<dyn Keys>,
    dev_key: Option<String>,
    issuer: RwLock<Option<Arc<Issuer>>>,
    allowances: Allowances,
    throttle: Throttle,
    told: Mutex<(Option<Instant>, u64)>,
}

impl Auth {
    /// These keys, one for development that may do everything, and tokens of an issuer.
    #[must_use]
    pub fn new(keys: Arc<dyn Keys>, dev_key: Option<String>, issuer: Option<Arc<Issuer>>) -> Self {
        Self { keys, dev_key, issuer: RwLock::new(issuer), allowances: Allowances::default(), throttle: Throttle::default(), told: Mutex::default() }
    }

    /// Takes tokens of this issuer from now on, and of no other.
    pub fn set_issuer(&self, issuer: Option<Arc<Issuer>>) {
        *self.issuer.write().unwrap_or_else(PoisonError::into_inner) = issuer;
    }

    /// Who presents this. `wary`: only what a look into memory can tell.
    pub(crate) async fn identify(&self, presented: &str, share: &Share, wary: bool) -> Option<(Identity, Arc<Allowance>)> {
        if self.dev_key.as_ref().is_some_and(|key| bool::from(key.as_bytes().ct_eq(presented.as_bytes()))) {
            return Some((everything("dev", share), self.allowances.of("dev", *share)));
        }
        if presented.starts_with(KEY_PREFIX) {
            let key = self.keys.verify(presented)?;
            let own = key.share.or(share);
            let identity = Identity { caller: caller(&key.principal, &own), pools: key.pools, roles: key.roles };
            return Some((identity, self.allowances.of(&key.id, own)));
        }
        if wary {
            return None;
        }
        let issuer = self.issuer.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let claimed = issuer.verify(presented).await?;
        let identity = Identity { caller: caller(&claimed.principal, share), pools: claimed.pools, roles: claimed.roles };
        Some((identity, self.allowances.of(&claimed.principal, *share)))
    }

    /// Counts a refusal, and puts it on record: one in a second, with how many there were.
    fn refused(&self, peer: Option<&Peer>) {
        metrics::refused("unauthenticated");
        let others = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.0.is_some_and(|last| last.elapsed() < RECORD_PAUSE) {
                told.1 += 1;
                return;
            }
            told.0 = Some(Instant::now());
            std::mem::take(&mut told.1)
        };
        let from = match peer {
            Some(Peer::Remote { address, .. }) => address.ip().to_string(),
            _ => "-".to_owned(),
        };
        tracing::warn!(peer = from, others, "refused: no valid key");
        self.keys.refused(&from, others);
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
    if health::is_open(request.method(), path) || mcp::is_open(&app, request.method(), path) {
        return next.run(request).await;
    }
    let browsable = request.method() == Method::GET && is_document(path);
    let peer = request.extensions().get::<Peer>().copied();
    let mut wait = None;
    let found = match peer {
        // The kernel has said who it is.
        Some(Peer::Local { .. }) => Some((everything("local", &Share::default()), app.auth.allowances.of("local", Share::default()))),
        _ => {
            let settings = app.settings();
            let counted = counted(peer, &settings);
            wait = counted.and_then(|address| app.auth.throttle.wait(address, settings.limits.wrong_keys_per_minute, Instant::now()));
            let mut found = None;
            let credentials = presented(request.headers(), path, browsable);
            for credential in &credentials {
                if found.is_none() {
                    found = app.auth.identify(credential, &settings.share, wait.is_some()).await;
                }
            }
            match counted {
                Some(address) if found.is_none() && !credentials.is_empty() => app.auth.throttle.count(address, Instant::now()),
                // Who sends none tries none.
                _ => wait = wait.filter(|_| !credentials.is_empty()),
            }
            found
        }
    };
    let Some((identity, allowance)) = found else {
        app.auth.refused(peer.as_ref());
        return match wait {
            Some(wait) => too_many(request.uri().path(), wait),
            None => unauthenticated(request.uri().path(), browsable, mcp::challenge(&app, &request)),
        };
    };
    if let Some(seat) = request.extensions().get::<Arc<Seat>>() {
        seat.know();
    }
    request.extensions_mut().insert(identity.clone());
    request.extensions_mut().insert(Arc::clone(&allowance));
    let mut response = next.run(request).await;
    // For the log, and for counting what is answered.
    response.extensions_mut().insert(identity);
    response.extensions_mut().insert(allowance);
    response
}

/// The address by which wrong keys are counted, where they are. A proxy's is everybody's.
fn counted(peer: Option<Peer>, settings: &Settings) -> Option<IpAddr> {
    match peer {
        Some(Peer::Remote { address, .. }) if settings.behind_proxy.is_none() => Some(address.ip()),
        _ => None,
    }
}

fn too_many(path: &str, wait: Duration) -> Response {
    metrics::refused("wrong_keys");
    let mut error = Error::new(ErrorKind::Limit, "too many wrong keys came from this address").hint("wait, and send a valid key");
    error.retry_after = Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
    refusal(path, error)
}

/// `challenge`: how to authenticate, where a key is not the only way.
fn unauthenticated(path: &str, browsable: bool, challenge: Option<HeaderValue>) -> Response {
    let error = Error::new(ErrorKind::Unauthenticated, "a valid key is needed").hint("send `Authorization: Bearer <key>`");
    let mut response = refusal(path, error);
    let challenge = if browsable { Some(HeaderValue::from_static("Basic realm=\"belljar\", charset=\"UTF-8\"")) } else { challenge };
    if let Some(challenge) = challenge {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// What a browser may open with a password.
fn is_document(path: &str) -> bool {
    path == "/docs" || path.starts_with("/docs/") || path.strip_prefix("/openapi").is_some_and(|rest| rest.ends_with(".json") && !rest.contains('/'))
}

/// What was presented. A header that stands there twice presents nothing.
fn presented(headers: &HeaderMap, path: &str, browsable: bool) -> Vec<String> {
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
    // The protocol of managed identities has a header of its own.
    let plain = [Some("x-ms-apikey"), (path == "/msi/token").then_some("x-identity-header")];
    let plain = plain.into_iter().flatten().filter_map(one).map(str::to_owned);
    authorization.into_iter().chain(plain).filter(|credential| !credential.is_empty()).collect()
}
