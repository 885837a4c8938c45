//! Tokens of an issuer: signed with one of its keys, meant for us, and in their time. Only signatures that nobody else can make count.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value as Json;

use crate::identity::Roles;
use crate::settings::{JwksSource, JwtSettings};

/// Signatures that are accepted.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 30;
/// The longest token.
const MAX_TOKEN: usize = 16 * 1024;
/// The largest set of keys, and how long fetching it may take.
const MAX_KEYS_BYTES: u64 = 256 * 1024;
const FETCH_PATIENCE: Duration = Duration::from_secs(5);
/// A key that is not known makes us look again, but not before this.
const FETCH_PAUSE: Duration = Duration::from_secs(30);

/// Why an issuer's tokens cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The file of keys cannot be read.
    #[error("cannot read the issuer's keys `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The keys cannot be fetched.
    #[error("cannot fetch the issuer's keys from `{url}`: {reason}")]
    Fetch {
        /// Where from.
        url: String,
        /// Why.
        reason: String,
    },
    /// What was read is no set of keys.
    #[error("the issuer's keys cannot be used: {0}")]
    Keys(String),
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) principal: String,
    pub(crate) roles: Roles,
    pub(crate) pools: Option<Vec<String>>,
}

type Keys = Vec<(Option<String>, Option<Algorithm>, DecodingKey)>;

/// An issuer.
pub struct Issuer {
    settings: JwtSettings,
    keys: RwLock<Arc<Keys>>,
    fetched: Mutex<Instant>,
    fetching: tokio::sync::Mutex<()>,
}

impl Issuer {
    /// Reads or fetches an issuer's keys. Blocking.
    ///
    /// # Errors
    /// They are not to be had.
    pub fn load(settings: JwtSettings) -> Result<Arc<Self>, JwtError> {
        let keys = RwLock::new(Arc::new(read(&settings.keys)?));
        Ok(Arc::new(Self { settings, keys, fetched: Mutex::new(Instant::now()), fetching: tokio::sync::Mutex::new(()) }))
    }

    /// What a token says, if it is good.
    pub(crate) async fn verify(self: &Arc<Self>, token: &str) -> Option<Claimed> {
        let header = decode_header(token).ok().filter(|_| token.len() <= MAX_TOKEN)?;
        // Whatever `crit` names has to be understood, and none of it is.
        if !ALGORITHMS.contains(&header.alg) || header.crit.is_some() {
            return None;
        }
        let mut key = self.key(header.kid.as_deref(), header.alg);
        if key.is_none() && header.kid.is_some() {
            self.look_again().await;
            key = self.key(header.kid.as_deref(), header.alg);
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&self.settings.audiences);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = decode::<HashMap<String, Json>>(token, &key?, &validation).ok()?.claims;
        self.claimed(&claims)
    }

    /// The key of a token's header; without a key id only where there is no choice.
    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let fits = |own: &Option<Algorithm>, key: &DecodingKey| key.family() == algorithm.family() && own.is_none_or(|own| own == algorithm);
        let mut fitting = keys.iter().filter(|(own_id, own, key)| (id.is_none() || own_id.as_deref() == id) && fits(own, key));
        let first = fitting.next()?;
        fitting.next().is_none().then(|| first.2.clone())
    }

    /// Reads the keys anew, if that was not done just now.
    async fn look_again(self: &Arc<Self>) {
        let _turn = self.fetching.lock().await;
        {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            if fetched.elapsed() < FETCH_PAUSE {
                return;
            }
            *fetched = Instant::now();
        }
        let source = self.settings.keys.clone();
        match tokio::task::spawn_blocking(move || read(&source)).await {
            Ok(Ok(keys)) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys),
            Ok(Err(error)) => tracing::warn!(error = %error, "the issuer's keys are as they were"),
            Err(_) => tracing::error!("reading the issuer's keys panicked"),
        }
    }

    fn claimed(&self, claims: &HashMap<String, Json>) -> Option<Claimed> {
        let subject = claims.get("sub").and_then(Json::as_str).filter(|subject| !subject.is_empty())?;
        let named = words(claims, &self.settings.role_claim);
        let given = |role: &str| match self.settings.roles.as_slice() {
            [] => named.iter().any(|name| name == role),
            mapping => mapping.iter().any(|(value, given)| given == role && named.contains(value)),
        };
        Some(Claimed {
            principal: format!("{}|{subject}", self.settings.issuer),
            roles: Roles { execute: given("execute"), observe: given("observe"), admin: given("admin") },
            pools: self.settings.pools_claim.as_ref().map(|claim| words(claims, claim)),
        })
    }
}

/// A claim's words: a text divided by spaces, or a list. A dot leads into a claim where none has the whole name.
fn words(claims: &HashMap<String, Json>, name: &str) -> Vec<String> {
    let inner = || {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
    };
    match claims.get(name).or_else(inner) {
        Some(Json::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Json::Array(list)) => list.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn read(source: &JwksSource) -> Result<Keys, JwtError> {
    let text = match source {
        JwksSource::File(path) => std::fs::read_to_string(path).map_err(|source| JwtError::File { path: path.clone(), source })?,
        JwksSource::Url(url, roots) => fetch(url, roots.as_ref())?,
    };
    let set: JwkSet = serde_json::from_str(&text).map_err(|error| JwtError::Keys(format!("they are no JSON Web Key Set: {error}")))?;
    let keys: Keys = set.keys.iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err(JwtError::Keys("none of them is a public key for signatures".to_owned()));
    }
    Ok(keys)
}

/// A key that only its owner can sign with.
fn usable(jwk: &Jwk) -> Option<(Option<String>, Option<Algorithm>, DecodingKey)> {
    let for_signatures = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
    if !for_signatures || matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        Some(named) => Some(named.to_string().parse::<Algorithm>().ok().filter(|algorithm| ALGORITHMS.contains(algorithm))?),
        None => None,
    };
    Some((jwk.common.key_id.clone(), algorithm, DecodingKey::from_jwk(jwk).ok()?))
}

fn fetch(url: &str, roots: Option<&PathBuf>) -> Result<String, JwtError> {
    let failed = |reason: String| JwtError::Fetch { url: url.to_owned(), reason };
    let mut tls = ureq::tls::TlsConfig::builder();
    if let Some(path) = roots {
        let pem = std::fs::read(path).map_err(|source| JwtError::File { path: path.clone(), source })?;
        let certificates = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<_> = certificates.collect();
        tls = tls.root_certs(ureq::tls::RootCerts::new_with_certs(&certificates));
    }
    let config = ureq::Agent::config_builder().https_only(true).max_redirects(0).max_redirects_will_error(true);
    let agent = config.timeout_global(Some(FETCH_PATIENCE)).tls_config(tls.build()).build().new_agent();
    let mut response = agent.get(url).call().map_err(|error| failed(error.to_string()))?;
    // A place to go to instead is not gone to.
    if response.status() != 200 {
        return Err(failed(format!("it answers {}", response.status())));
    }
    response.body_mut().with_config().limit(MAX_KEYS_BYTES).read_to_string().map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests;
