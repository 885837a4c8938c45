//! Operators' routes over a store of their own, without a pool.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use engine::environment::Host;
use engine::record::Unrecorded;
use engine::session::{Caller, Sessions};
use engine::{Controls, Engine, Settings};
use http_body_util::BodyExt;
use serde_json::{Value as Json, json};
use store::{Event, EventKind, Options, Store};
use tower::ServiceExt;

use super::*;
use crate::app::Start;
use crate::identity::Roles;

const ADMIN: Roles = Roles { execute: false, observe: false, admin: true };
const OBSERVER: Roles = Roles { execute: false, observe: true, admin: false };
const EXECUTOR: Roles = Roles { execute: true, observe: false, admin: false };

struct Scene {
    app: Arc<App>,
    _home: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let engine = Engine::new(Settings { data: home.path().to_owned(), host: Host::new([]), controls: Controls::default() });
        let sessions = Sessions::start(&engine, Vec::new(), Arc::new(Unrecorded), &mut |_| {}).unwrap();
        let store = Store::open(home.path(), Options::default()).unwrap();
        let (default_pool, settings) = ("default".to_owned(), crate::settings::Settings::default());
        Self { app: App::new(Start { sessions, default_pool, store, dev_key: None, issuer: None, settings }), _home: home }
    }

    /// Asks as somebody with these roles and pools.
    async fn ask_as(&self, (roles, pools): (Roles, Option<&[&str]>), method: Method, path: &str, body: Option<Json>) -> (StatusCode, Json) {
        let caller = Caller { principal: "root@x".into(), max_sessions: None, max_executions: None };
        let identity = Identity { caller, pools: pools.map(|pools| pools.iter().map(|&pool| pool.to_owned()).collect()), roles };
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json").extension(identity);
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = router().with_state(Arc::clone(&self.app)).oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Json::Null))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Json>) -> (StatusCode, Json) {
        self.ask_as((ADMIN, None), method, path, body).await
    }
}

#[tokio::test]
async fn a_key_is_made_shown_once_listed_and_revoked() {
    let scene = Scene::new();
    let asked =
        json!({"name": "ci", "roles": ["observe", "execute"], "principal": "team", "pools": ["a"], "expiresInSeconds": 60, "limits": {"maxSessions": 2}});
    let (status, created) = scene.ask(Method::POST, "/v1/admin/keys", Some(asked)).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let (key, id) = (created["key"].as_str().unwrap().to_owned(), created["id"].as_str().unwrap().to_owned());
    assert_eq!(scene.app.store.verify(&key).unwrap().principal, "team");
    let (status, listed) = scene.ask(Method::GET, "/v1/admin/keys", None).await;
    assert_eq!(status, StatusCode::OK);
    let mut expected = created.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(listed, json!({"keys": [expected]}));
    let info: store::KeyInfo = serde_json::from_value(listed["keys"][0].clone()).unwrap();
    assert_eq!(serde_json::to_value(info).unwrap(), listed["keys"][0], "the store reads the form that is shown");
    for _ in 0..2 {
        assert_eq!(scene.ask(Method::DELETE, &format!("/v1/admin/keys/{id}"), None).await, (StatusCode::NO_CONTENT, Json::Null));
        assert!(scene.app.store.verify(&key).is_none());
    }
    let (_, audit) = scene.ask(Method::GET, "/v1/admin/audit", None).await;
    let seen: Vec<_> =
        audit["events"].as_array().unwrap().iter().map(|event| (event["kind"].as_str().unwrap(), event["principal"].as_str().unwrap())).collect();
    assert_eq!(seen, [("key_created", "root@x"), ("key_revoked", "root@x")]);
    assert!(!audit.to_string().contains(key.rsplit_once('_').unwrap().1), "the secret is on no record");
    let (_, brief) = scene.ask(Method::POST, "/v1/admin/keys", Some(json!({"name": "x"}))).await;
    assert_eq!((&brief["roles"], &brief["pools"], &brief["principal"]), (&json!(["execute"]), &Json::Null, &brief["id"]));
    let (_, status) = scene.ask(Method::GET, "/v1/admin/status", None).await;
    assert_eq!((&status["keys"], &status["record"]), (&json!({"valid": 1, "ended": 1}), &json!({"lastSeq": 3, "waiting": 0, "failing": false})));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let scene = Scene::new();
    for (body, part) in [
        (json!({}), "name"),
        (json!({"name": ""}), "1 to 100"),
        (json!({"name": "x", "role": "admin"}), "role"),
        (json!({"name": "x", "roles": ["root"]}), "roles"),
        (json!({"name": "x", "roles": []}), "at least one role"),
        (json!({"name": "x", "roles": ["admin"], "pools": ["a"]}), "all pools"),
        (json!({"name": "x", "expiresInSeconds": u64::MAX}), "expires"),
        (json!({"name": "x", "limits": {"maxSessions": 0}}), "at least 1"),
    ] {
        let (status, answer) = scene.ask(Method::POST, "/v1/admin/keys", Some(body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
    }
    for query in ["since=yesterday", "kind=everything", "limit=0", "limit=10001", "after=-1", "latest=maybe", "who=me"] {
        let (status, answer) = scene.ask(Method::GET, &format!("/v1/admin/audit?{query}"), None).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{query}");
    }
    let (status, answer) = scene.ask(Method::DELETE, "/v1/admin/keys/nobody", None).await;
    assert_eq!((status, answer["error"]["message"].as_str()), (StatusCode::NOT_FOUND, Some("there is no key `nobody`")));
}

#[tokio::test]
async fn each_route_wants_its_role() {
    let scene = Scene::new();
    let keys = [(Method::POST, "/v1/admin/keys"), (Method::GET, "/v1/admin/keys"), (Method::DELETE, "/v1/admin/keys/x")];
    for (method, path) in keys {
        let body = || (method == Method::POST).then(|| json!({"name": "x"}));
        for who in [(OBSERVER, None), (EXECUTOR, None), (ADMIN, Some(&["a"][..]))] {
            assert_eq!(scene.ask_as(who, method.clone(), path, body()).await.0, StatusCode::FORBIDDEN, "{method} {path}");
        }
    }
    assert!(scene.app.store.keys().is_empty());
    for path in ["/v1/admin/audit", "/v1/admin/status"] {
        assert_eq!(scene.ask_as((EXECUTOR, None), Method::GET, path, None).await.0, StatusCode::FORBIDDEN);
        for roles in [OBSERVER, ADMIN] {
            assert_eq!(scene.ask_as((roles, None), Method::GET, path, None).await.0, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn the_record_is_read_in_pages_and_only_where_one_may() {
    let scene = Scene::new();
    for number in 0..5 {
        let pool = Some(if number % 2 == 0 { "a" } else { "b" }.to_owned());
        scene.app.store.append(Event { pool, ..Event::new(EventKind::FileRead).by("alice").with("path", "x\n\u{1b}") }).unwrap();
    }
    scene.app.store.append(Event::new(EventKind::ServerStopped)).unwrap();
    let seqs = |answer: &Json| answer["events"].as_array().unwrap().iter().map(|event| event["seq"].as_i64().unwrap()).collect::<Vec<_>>();
    let (_, first) = scene.ask(Method::GET, "/v1/admin/audit?limit=4", None).await;
    assert_eq!((seqs(&first), &first["next"]), (vec![1, 2, 3, 4], &json!(4)));
    let (_, second) = scene.ask(Method::GET, "/v1/admin/audit?limit=4&after=4", None).await;
    assert_eq!((seqs(&second), &second["next"]), (vec![5, 6], &Json::Null));
    let (_, last) = scene.ask(Method::GET, "/v1/admin/audit?limit=2&latest=true", None).await;
    assert_eq!((seqs(&last), &last["next"]), (vec![5, 6], &Json::Null));
    let (_, kind) = scene.ask(Method::GET, "/v1/admin/audit?kind=file_read&principal=alice&since=2000-01-01T00:00:00Z", None).await;
    assert_eq!(seqs(&kind), [1, 2, 3, 4, 5]);
    let bound = (OBSERVER, Some(&["b"][..]));
    let (_, own) = scene.ask_as(bound, Method::GET, "/v1/admin/audit", None).await;
    assert_eq!(seqs(&own), [2, 4], "a caller bound to a pool sees what happened there");
    let (_, other) = scene.ask_as(bound, Method::GET, "/v1/admin/audit?pool=a", None).await;
    assert_eq!(seqs(&other), Vec::<i64>::new());
}

#[tokio::test]
async fn a_record_that_fails_is_told_without_its_place() {
    let scene = Scene::new();
    scene.app.store.close();
    let (status, answer) = scene.ask(Method::POST, "/v1/admin/keys", Some(json!({"name": "x"}))).await;
    assert_eq!((status, answer["error"]["message"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("the record cannot be used")));
    assert!(scene.app.store.keys().is_empty());
}
