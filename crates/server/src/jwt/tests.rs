//! Tokens that are really signed, by keys of all kinds.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::tls::{Tls, self_signed};

/// Signs nothing but the tokens of these tests.
const RSA: &str = include_str!("test-rsa.pem");
const RSA_MODULUS: &str = include_str!("test-rsa.modulus.txt");

/// A private key, and its public half as the issuer shows it.
struct Signer {
    algorithm: Algorithm,
    id: &'static str,
    key: EncodingKey,
    shown: Json,
}

fn elliptic(id: &'static str) -> Signer {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    let encode = |bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let shown = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": encode(x), "y": encode(y)});
    Signer { algorithm: Algorithm::ES256, id, key: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap(), shown }
}

fn edwards(id: &'static str) -> Signer {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let shown = json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": BASE64_URL_SAFE_NO_PAD.encode(pair.public_key_raw())});
    Signer { algorithm: Algorithm::EdDSA, id, key: EncodingKey::from_ed_der(pair.serialized_der()), shown }
}

fn rsa(id: &'static str) -> Signer {
    let shown = json!({"kty": "RSA", "kid": id, "n": RSA_MODULUS.trim(), "e": "AQAB"});
    Signer { algorithm: Algorithm::RS256, id, key: EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(), shown }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Json {
    json!({"iss": "https://login.example", "aud": "belljar", "sub": "someone", "exp": now() + 300, "roles": ["Executor", "other"]})
}

/// Signs claims after a change of them.
fn token(signer: &Signer, change: impl FnOnce(&mut Json)) -> String {
    let mut claims = claims();
    change(&mut claims);
    let header = Header { kid: Some(signer.id.to_owned()), ..Header::new(signer.algorithm) };
    encode(&header, &claims, &signer.key).unwrap()
}

fn shown(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.shown.clone()).collect::<Vec<_>>()}).to_string()
}

fn settings(keys: JwksSource) -> JwtSettings {
    JwtSettings {
        issuer: "https://login.example".to_owned(),
        audiences: vec!["belljar".to_owned(), "https://dynamicsessions.io".to_owned()],
        keys,
        role_claim: "roles".to_owned(),
        roles: vec![("Executor".to_owned(), "execute".to_owned()), ("Auditor".to_owned(), "observe".to_owned())],
        pools_claim: None,
    }
}

fn issuer(signers: &[&Signer], change: impl FnOnce(&mut JwtSettings)) -> (Arc<Issuer>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, shown(signers)).unwrap();
    let mut settings = settings(JwksSource::File(path));
    change(&mut settings);
    (Issuer::load(settings).unwrap(), folder)
}

/// As if the keys had been read long ago.
fn age(issuer: &Issuer) {
    *issuer.fetched.lock().unwrap() -= FETCH_PAUSE;
}

#[tokio::test]
async fn good_tokens_of_every_kind_of_key_are_taken() {
    let signers = [elliptic("a"), edwards("b"), rsa("c")];
    let (issuer, _folder) = issuer(&signers.each_ref(), |_| {});
    for signer in &signers {
        let claimed = issuer.verify(&token(signer, |_| {})).await.unwrap();
        assert_eq!(claimed.principal, "https://login.example|someone");
        assert_eq!(claimed.roles, Roles { execute: true, ..Roles::default() });
        assert_eq!(claimed.pools, None);
    }
    let several = token(&signers[0], |claims| claims["aud"] = json!(["other", "https://dynamicsessions.io"]));
    assert!(issuer.verify(&several).await.is_some(), "one of several audiences");
    let late = token(&signers[0], |claims| claims["exp"] = json!(now() - LEEWAY / 2));
    assert!(issuer.verify(&late).await.is_some(), "clocks may be a little apart");
}

#[tokio::test]
async fn tokens_that_say_something_else_are_refused() {
    let signer = elliptic("a");
    let (issuer, _folder) = issuer(&[&signer], |_| {});
    type Change = fn(&mut Json);
    let changes: [(&str, Change); 12] = [
        ("another audience", |claims| claims["aud"] = json!("other")),
        ("no audience", |claims| drop(claims.as_object_mut().unwrap().remove("aud"))),
        ("another issuer", |claims| claims["iss"] = json!("https://login.example.evil")),
        ("no issuer", |claims| drop(claims.as_object_mut().unwrap().remove("iss"))),
        ("expired", |claims| claims["exp"] = json!(now() - 2 * LEEWAY)),
        ("no end", |claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
        ("not yet", |claims| claims["nbf"] = json!(now() + 2 * LEEWAY)),
        ("nobody", |claims| drop(claims.as_object_mut().unwrap().remove("sub"))),
        ("an empty name", |claims| claims["sub"] = json!("")),
        ("a number for a name", |claims| claims["sub"] = json!(5)),
        ("an end that is none", |claims| claims["exp"] = json!("tomorrow")),
        ("an audience that is none", |claims| claims["aud"] = json!({"a": "belljar"})),
    ];
    for (name, change) in changes {
        assert_eq!(issuer.verify(&token(&signer, change)).await, None, "{name}");
    }
    assert!(issuer.verify(&token(&signer, |_| {})).await.is_some(), "the control");
}

#[tokio::test]
async fn signatures_that_prove_nothing_are_refused() {
    let (good, other, ring) = (rsa("a"), elliptic("a"), elliptic("b"));
    let (issuer, _folder) = issuer(&[&good, &ring], |_| {});
    let genuine = token(&good, |_| {});
    let [header, body, signature]: [&str; 3] = genuine.split('.').collect::<Vec<_>>().try_into().unwrap();
    let encode = |json: Json| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let admin = encode(json!({"iss": "https://login.example", "aud": "belljar", "sub": "root", "exp": now() + 300}));
    // The public key as the secret of a symmetric signature.
    let confused = |secret: &[u8]| {
        let header = Header { kid: Some("a".to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let with = |header: Json| format!("{}.{body}.{signature}", encode(header));
    for (name, token) in [
        ("no algorithm", format!("{}.{body}.", encode(json!({"alg": "none", "kid": "a"})))),
        ("No algorithm", format!("{}.{body}.", encode(json!({"alg": "None", "kid": "a"})))),
        ("no signature", format!("{header}.{body}.")),
        ("another body", format!("{header}.{admin}.{signature}")),
        ("the modulus as a secret", confused(RSA_MODULUS.trim().as_bytes())),
        ("the key's text as a secret", confused(good.shown.to_string().as_bytes())),
        ("another's signature under this name", token(&other, |_| {})),
        ("another algorithm of the same key", with(json!({"alg": "PS256", "kid": "a"}))),
        ("another key's name", with(json!({"alg": "RS256", "kid": "b"}))),
        ("an unknown name", with(json!({"alg": "RS256", "kid": "zzz"}))),
        ("something critical", with(json!({"alg": "RS256", "kid": "a", "crit": ["exp"]}))),
        ("a key that it brings along", with(json!({"alg": "ES256", "jwk": other.shown}))),
        ("nothing", String::new()),
        ("two dots", "..".to_owned()),
        ("too long", format!("{header}.{}.{signature}", "A".repeat(MAX_TOKEN))),
    ] {
        assert_eq!(issuer.verify(&token).await, None, "{name}");
    }
    assert!(issuer.verify(&genuine).await.is_some(), "the control");
}

#[tokio::test]
async fn a_token_without_a_keys_name_needs_a_key_without_choice() {
    let (one, two, three) = (elliptic("a"), edwards("b"), elliptic("c"));
    let nameless = |signer: &Signer| encode(&Header::new(signer.algorithm), &claims(), &signer.key).unwrap();
    let (single, _folder) = issuer(&[&one, &two], |_| {});
    assert!(single.verify(&nameless(&one)).await.is_some() && single.verify(&nameless(&two)).await.is_some());
    let (several, _folder) = issuer(&[&one, &three], |_| {});
    assert_eq!(several.verify(&nameless(&one)).await, None);
}

#[tokio::test]
async fn roles_and_pools_come_from_claims() {
    let signer = elliptic("a");
    let ask = async |change: fn(&mut JwtSettings), claim: Json| {
        let (issuer, _folder) = issuer(&[&signer], change);
        let token = token(&signer, |claims| claims.as_object_mut().unwrap().extend(claim.as_object().unwrap().clone()));
        issuer.verify(&token).await.unwrap()
    };
    let none = ask(|_| {}, json!({"roles": "execute"})).await;
    assert_eq!(none.roles, Roles::default(), "with a mapping, only what it names");
    let plain = ask(|settings| settings.roles.clear(), json!({"roles": "execute admin"})).await;
    assert_eq!(plain.roles, Roles { execute: true, admin: true, observe: false });
    let nested = ask(|settings| settings.role_claim = "realm.roles".to_owned(), json!({"realm": {"roles": ["Auditor"]}})).await;
    assert_eq!(nested.roles, Roles { observe: true, ..Roles::default() });
    let pools = ask(|settings| settings.pools_claim = Some("pools".to_owned()), json!({"pools": ["one", "two"]})).await;
    assert_eq!(pools.pools, Some(vec!["one".to_owned(), "two".to_owned()]));
    let unnamed = ask(|settings| settings.pools_claim = Some("pools".to_owned()), json!({})).await;
    assert_eq!(unnamed.pools, Some(Vec::new()), "who names no pool gets none");
}

#[tokio::test]
async fn a_new_key_is_looked_for_but_not_all_the_time() {
    let (first, second) = (elliptic("a"), elliptic("b"));
    let (issuer, folder) = issuer(&[&first], |_| {});
    let path = folder.path().join("keys.json");
    std::fs::write(&path, shown(&[&second])).unwrap();
    let fresh = token(&second, |_| {});
    assert_eq!(issuer.verify(&fresh).await, None, "they have been read just now");
    age(&issuer);
    assert!(issuer.verify(&fresh).await.is_some());
    assert_eq!(issuer.verify(&token(&first, |_| {})).await, None, "the old key is gone");
    std::fs::write(&path, "broken").unwrap();
    age(&issuer);
    assert_eq!(issuer.verify(&token(&first, |_| {})).await, None);
    assert!(issuer.verify(&fresh).await.is_some(), "what cannot be read changes nothing");
}

#[test]
fn sets_without_a_usable_key_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let source = JwksSource::File(path.clone());
    let message = || read(&source).map(drop).unwrap_err().to_string();
    assert!(message().starts_with("cannot read the issuer's keys"));
    std::fs::write(&path, "[]").unwrap();
    assert!(message().contains("no JSON Web Key Set"));
    for key in [
        json!({"kty": "oct", "k": "AAAA", "alg": "HS256"}),
        json!({"kty": "RSA", "n": RSA_MODULUS.trim(), "e": "AQAB", "use": "enc"}),
        json!({"kty": "RSA", "n": RSA_MODULUS.trim(), "e": "AQAB", "alg": "RSA-OAEP"}),
        json!({"kty": "new"}),
    ] {
        std::fs::write(&path, json!({"keys": [key.clone()]}).to_string()).unwrap();
        assert!(message().contains("none of them is a public key for signatures"), "{key}");
    }
}

/// A server that gives this answer to everything.
async fn answering(folder: &std::path::Path, answer: String) -> (String, PathBuf) {
    let files = self_signed(folder, &[]).unwrap();
    let certificates = files.certificate.clone();
    let tls = Tls::open(files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, certificates)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_over_https_within_bounds() {
    let signer = elliptic("a");
    let folder = tempfile::tempdir().unwrap();
    let load = async |url: String, certificates: Option<PathBuf>| {
        tokio::task::spawn_blocking(move || Issuer::load(settings(JwksSource::Url(url, certificates)))).await.unwrap()
    };
    let (url, certificates) = answering(folder.path(), ok(&shown(&[&signer]))).await;
    let issuer = load(url.clone(), Some(certificates.clone())).await.unwrap();
    assert!(issuer.verify(&token(&signer, |_| {})).await.is_some());

    let refused = async |url: String, certificates: Option<PathBuf>| load(url, certificates).await.map(drop).unwrap_err().to_string();
    assert!(refused(url.clone(), None).await.starts_with("cannot fetch the issuer's keys"), "a certificate that nobody vouches for");
    assert!(refused(url.replace("https", "http"), Some(certificates.clone())).await.starts_with("cannot fetch the issuer's keys"), "plain http");
    assert!(refused(url.clone(), Some(folder.path().join("none"))).await.starts_with("cannot read the issuer's keys"), "no certificates");
    let moved = format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    for (name, answer) in
        [("moved", moved), ("missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()), ("too much", ok(&" ".repeat(300_000)))]
    {
        let (url, certificates) = answering(folder.path(), answer).await;
        assert!(refused(url, Some(certificates)).await.starts_with("cannot fetch the issuer's keys"), "{name}");
    }
}

/// A store without keys.
struct NoKeys;

impl crate::auth::Keys for NoKeys {
    fn verify(&self, _: &str) -> Option<crate::auth::Key> {
        None
    }

    fn refused(&self, _: &str, _: u64) {}
}

#[tokio::test]
async fn signatures_are_not_checked_for_an_address_of_many_wrong_keys() {
    let signer = edwards("one");
    let (issuer, _folder) = issuer(&[&signer], |_| {});
    let auth = crate::auth::Auth::new(Arc::new(NoKeys), None, Some(issuer));
    let (token, share) = (token(&signer, |_| {}), crate::settings::Share::default());
    assert!(auth.identify(&token, &share, false).await.is_some());
    assert!(auth.identify(&token, &share, true).await.is_none());
}
