//! Who may call, and from where.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use store::KeyLimits;
use tower::ServiceExt;

use super::*;
use crate::listen::Peer;

const GOLDEN: &str = include_str!("../routes.golden.txt");

/// A request as it comes from an address.
fn asking(method: &str, path: &str, authorization: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer::Remote { address: "127.0.0.1:9".parse().unwrap(), loopback: Some([127, 0, 0, 1].into()), is_encrypted: false });
    request
}

/// A path with something in the place of each of its parameters.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "x123" } else { part }).collect::<Vec<_>>().join("/")
}

/// A refusal without what names this one request.
fn without_trace(body: &[u8]) -> String {
    let mut body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["error"].as_object_mut().unwrap().remove("traceId");
    body.to_string()
}

/// Whether strangers get an answer there.
fn is_open(method: &str, path: &str) -> bool {
    matches!(method, "GET" | "HEAD") && matches!(path, "/healthz" | "/readyz")
}

#[test]
fn routes_are_those_that_are_written_down() {
    let routes: String = routes().iter().map(|(method, path)| format!("{method} {path}\n")).collect();
    assert!(routes == GOLDEN, "if this is meant, write it into routes.golden.txt:\n{routes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_strangers_and_all_in_the_same_words() {
    // With as many wrong keys as it takes.
    let limits = DoorLimits { wrong_keys_per_minute: 0, ..DoorLimits::default() };
    let (app, _folder) = app(Settings { limits, ..Settings::default() });
    let (_, good) = key(&app, |_| {});
    let (revoked_id, revoked) = key(&app, |_| {});
    app.store.revoke_key(&revoked_id, "test").unwrap();
    let (_, expired) = key(&app, |new| new.expires_in = Some(Duration::from_millis(1)));
    while app.store.verify(&expired).is_some() {
        std::thread::yield_now();
    }
    let mut other = good.clone();
    other.replace_range(good.len() - 4.., "AAAA");
    let bad = ["", "Bearer", "Bearer ", "Bearer x", "Bearer bj_", "Bearer a.b.c", "Basic eDp5", "bearer\tx", "Negotiate x"].map(str::to_owned);
    let bad: Vec<String> = bad.into_iter().chain([&revoked, &expired, &other].map(|key| format!("Bearer {key}"))).collect();
    let routes = routes();
    assert!(routes.len() >= 6, "{routes:?}");
    let router = router(app);
    let mut bodies = std::collections::BTreeMap::new();
    for (method, path) in routes.iter().map(|(method, path)| (method.as_str(), filled(path))).filter(|(method, path)| !is_open(method, path)) {
        for authorization in std::iter::once(None).chain(bad.iter().map(|text| Some(text.as_str()))) {
            let answer = router.clone().oneshot(asking(method, &path, authorization)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path} {authorization:?}");
            assert!(answer.headers().contains_key(header::WWW_AUTHENTICATE), "{method} {path}");
            let body = to_bytes(answer.into_body(), 10_000).await.unwrap();
            if method != "HEAD" {
                bodies.entry(without_trace(&body)).or_insert_with(|| path.clone());
            }
        }
        // The control: with a good key it is something else, whatever it is.
        let answer = router.clone().oneshot(asking(method, &path, Some(&format!("Bearer {good}")))).await.unwrap();
        assert_ne!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    assert!(bodies.len() <= 3, "one for native routes, one for those of container apps, one for MCP: {bodies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_refuses_strangers_as_well() {
    let (app, _folder) = app(Settings::default());
    let router = router(app);
    for (method, path) in [("GET", "/nothing"), ("POST", "/healthz"), ("DELETE", "/readyz"), ("GET", "/healthz/"), ("GET", "/Healthz"), ("GET", "/")] {
        let answer = router.clone().oneshot(asking(method, path, None)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_comes_in_either_header_once() {
    let served = served(DoorLimits::default()).await;
    let (_, good) = key(&served.app, |_| {});
    let with = |headers: String| {
        let served = &served;
        async move {
            let answer = served.talk(format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")).await;
            status(&answer).to_owned()
        }
    };
    for headers in [
        format!("Authorization: Bearer {good}\r\n"),
        format!("authorization: bearer {good}\r\n"),
        format!("x-ms-apikey: {good}\r\n"),
        format!("x-ms-apikey: {KEY}\r\n"),
        format!("Authorization: Bearer other\r\nx-ms-apikey: {good}\r\n"),
    ] {
        assert_eq!(with(headers.clone()).await, "200", "{headers}");
    }
    for headers in [
        format!("Authorization: {good}\r\n"),
        format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {good}\r\n"),
        format!("x-ms-apikey: x{good}\r\n"),
        format!("x-identity-header: {good}\r\n"),
        format!("Authorization: Bearer {}\r\n", &KEY[..KEY.len() - 1]),
        format!("Authorization: Bearer {KEY}x\r\n"),
        format!("Cookie: key={good}\r\n"),
    ] {
        assert_eq!(with(headers.clone()).await, "401", "{headers}");
    }
    assert_eq!(status(&served.talk(format!("GET /metrics?key={good} HTTP/1.0\r\nHost: localhost\r\n\r\n")).await), "401", "never in an address");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_can_be_opened_with_a_password() {
    let (app, _folder) = app(Settings::default());
    let (_, good) = key(&app, |_| {});
    let router = router(app);
    let basic = |password: &str| format!("Basic {}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("any:{password}")));
    let ask = async |method: &str, path: &str, authorization: Option<String>| {
        let answer = router.clone().oneshot(asking(method, path, authorization.as_deref())).await.unwrap();
        let challenge = answer.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        (answer.status(), challenge)
    };
    for path in ["/docs", "/docs/x", "/openapi.json", "/openapi-2.json"] {
        let (status, challenge) = ask(Method::GET.as_str(), path, None).await;
        assert!(status == StatusCode::UNAUTHORIZED && challenge.starts_with("Basic "), "{path}: {status} {challenge}");
        assert_eq!(ask("GET", path, Some(basic("wrong"))).await.0, StatusCode::UNAUTHORIZED);
        assert_ne!(ask("GET", path, Some(basic(&good))).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    for (method, path) in [("POST", "/docs"), ("GET", "/metrics"), ("GET", "/docsx"), ("GET", "/openapi/v1/sessions.json")] {
        let (status, challenge) = ask(method, path, Some(basic(&good))).await;
        assert!(status == StatusCode::UNAUTHORIZED && challenge == "Bearer", "{method} {path}: {status} {challenge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_at_once_and_refusals_are_on_record() {
    let served = served(DoorLimits::default()).await;
    let (id, good) = key(&served.app, |_| {});
    let ask = || served.talk(format!("GET /metrics HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {good}\r\n\r\n"));
    assert_eq!(status(&ask().await), "200");
    served.app.store.revoke_key(&id, "test").unwrap();
    for _ in 0..5 {
        assert_eq!(status(&ask().await), "401");
    }
    served.app.store.flush().unwrap();
    let refusals = served.app.store.query(&store::Filter::default()).unwrap();
    let refusals: Vec<_> = refusals.iter().filter(|event| event.kind == "call_refused").collect();
    assert!((1..5).contains(&refusals.len()), "on record, and not each of them: {refusals:?}");
    assert!(!format!("{refusals:?}").contains(&good), "not with what was presented");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_sends_too_many_wrong_keys_is_refused_and_good_keys_pass() {
    let proxied = Settings { behind_proxy: Some("a test".to_owned()), ..Settings::default() };
    for (settings, throttled) in [(Settings::default(), true), (proxied, false)] {
        let limits = DoorLimits { wrong_keys_per_minute: 3, ..DoorLimits::default() };
        let served = served_with(Settings { limits, ..settings }).await;
        let (_, good) = key(&served.app, |_| {});
        let ask = |path: &str, key: Option<&str>| {
            let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
            served.talk(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{key}\r\n"))
        };
        for _ in 0..5 {
            assert_eq!(status(&ask("/metrics", None).await), "401", "who sends none tries none");
        }
        for _ in 0..3 {
            assert_eq!(status(&ask("/metrics", Some("bj_wrong")).await), "401");
        }
        for path in ["/metrics", "/session?api-version=2024-02-02-preview&identifier=none"] {
            for wrong in ["bj_wrong", "a.b.c"] {
                let answer = ask(path, Some(wrong)).await;
                if throttled {
                    assert!(status(&answer) == "429" && answer.to_ascii_lowercase().contains("\r\nretry-after: "), "{path} {wrong}: {answer}");
                } else {
                    assert_eq!(status(&answer), "401", "a proxy's address is everybody's");
                }
            }
        }
        for key in [good.as_str(), KEY] {
            assert_eq!(status(&ask("/metrics", Some(key)).await), "200", "nobody is locked out by others");
        }
        assert_eq!(status(&ask("/metrics", None).await), "401");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let served = served(DoorLimits::default()).await;
    let (_, few) = key(&served.app, |new| new.limits = KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() });
    let (_, bytes) = key(&served.app, |new| new.limits = KeyLimits { bytes_per_hour: Some(2000), ..KeyLimits::default() });
    let ask = |key: &str| served.talk(format!("GET /nothing HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"));
    assert_eq!((status(&ask(&few).await), status(&ask(&few).await)), ("404", "404"));
    let answer = ask(&few).await;
    assert!(status(&answer) == "429" && answer.contains("\r\nretry-after: ") && answer.contains(r#""code":"limit""#), "{answer}");
    let body = "x".repeat(2100);
    let echo = format!("POST /test/echo HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {bytes}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(status(&served.talk(&echo).await), "200", "how much it is turns out when it has passed");
    let answer = served.talk(&echo).await;
    assert!(status(&answer) == "429" && answer.contains("2000 bytes of the hour"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_pages_that_are_not_ours_are_refused() {
    let served = served(DoorLimits::default()).await;
    for (host, expected) in
        [("localhost", "200"), ("127.0.0.1:80", "200"), ("[::1]", "200"), ("evil.example", "421"), ("x@localhost", "421"), ("localhost.", "421")]
    {
        let answer = served.talk(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), expected, "{host}");
    }
    assert_eq!(status(&served.talk("GET /healthz HTTP/1.0\r\n\r\n").await), "421", "none at all");
    for (origin, expected) in [("http://localhost", "200"), ("null", "403"), ("http://evil.example", "403"), ("http://localhost.evil.example", "403")] {
        let answer = served.ask("POST /test/echo", &format!("Origin: {origin}\r\n"), "x").await;
        assert_eq!(status(&answer), expected, "{origin}");
        assert!(!answer.to_ascii_lowercase().contains("access-control-"), "{answer}");
    }
    let preflight = "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = served.ask("OPTIONS /test/echo", preflight, "").await;
    assert!(status(&answer) == "403" && !answer.to_ascii_lowercase().contains("access-control-"), "{answer}");
    assert_eq!(status(&served.ask("GET /healthz", "Origin: http://evil.example\r\n", "").await), "200", "what changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_is_told_where_to_get_one() {
    const PATH: &str = "/.well-known/oauth-protected-resource/mcp";
    let jwt = crate::settings::JwtSettings {
        issuer: "https://issuer.example".to_owned(),
        audiences: vec!["https://localhost/mcp".to_owned()],
        keys: crate::settings::JwksSource::File("keys.json".into()),
        role_claim: "roles".to_owned(),
        roles: Vec::new(),
        pools_claim: None,
    };
    let (app, _folder) = app(Settings { jwt: Some(jwt), ..Settings::default() });
    let (router, ask) = (router(Arc::clone(&app)), |method, path| asking(method, path, None));
    let refused = router.clone().oneshot(ask("POST", "/mcp")).await.unwrap();
    let challenge = format!("Bearer resource_metadata=\"http://localhost{PATH}\"");
    assert_eq!((refused.status(), refused.headers()[header::WWW_AUTHENTICATE].to_str().unwrap()), (StatusCode::UNAUTHORIZED, challenge.as_str()));
    let elsewhere = router.clone().oneshot(ask("GET", "/v1/sessions")).await.unwrap();
    assert_eq!(elsewhere.headers()[header::WWW_AUTHENTICATE], "Bearer");
    for path in [PATH, "/.well-known/oauth-protected-resource"] {
        let told = router.clone().oneshot(ask("GET", path)).await.unwrap();
        assert_eq!(told.status(), StatusCode::OK, "{path}");
        let told: serde_json::Value = serde_json::from_slice(&to_bytes(told.into_body(), 10_000).await.unwrap()).unwrap();
        assert_eq!((&told["resource"], &told["authorization_servers"][0]), (&"http://localhost/mcp".into(), &"https://issuer.example".into()));
    }
    let mut secure = ask("POST", "/mcp");
    secure.extensions_mut().insert(Peer::Remote { address: "127.0.0.1:9".parse().unwrap(), loopback: Some([127, 0, 0, 1].into()), is_encrypted: true });
    let refused = router.clone().oneshot(secure).await.unwrap();
    assert!(refused.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().contains("\"https://localhost/"), "{refused:?}");
    // Without an issuer there is nothing to be told, and strangers are refused as everywhere.
    app.set(Settings::default());
    assert_eq!(router.clone().oneshot(ask("GET", PATH)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(router.oneshot(ask("POST", "/mcp")).await.unwrap().headers()[header::WWW_AUTHENTICATE], "Bearer");
}
