//! The frame as strangers and friends meet it: a real server on loopback, and bytes as they come from a socket.

mod bodies;
mod connections;
mod encrypted;
mod framing;
mod local;
mod strangers;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::routing::{get, post};
use engine::environment::Host;
use engine::record::Unrecorded;
use engine::{Controls, Engine, Settings as EngineSettings};
use store::{NewKey, Options, Role};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::listen::{Listener, serve_routes};
use crate::settings::DoorLimits;

/// Whatever takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// The key of development in these tests.
const KEY: &str = "bj_dev_0123456789abcdef";

/// State without pools: the frame runs no code.
fn app(settings: Settings) -> (Arc<App>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(std::iter::empty());
    let engine = Engine::new(EngineSettings { data: folder.path().to_owned(), host, controls: Controls::default() });
    let sessions = Sessions::start(&engine, Vec::new(), Arc::new(Unrecorded), &mut |_| {}).unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let start = Start { sessions, default_pool: "default".to_owned(), store, dev_key: Some(KEY.to_owned()), issuer: None, settings };
    (App::new(start), folder)
}

/// A key of the store with these roles.
fn key(app: &App, change: impl FnOnce(&mut NewKey)) -> (String, String) {
    let mut new = NewKey { name: "test".to_owned(), roles: vec![Role::Execute, Role::Observe], ..NewKey::default() };
    change(&mut new);
    let created = app.store.create_key(new, "test").unwrap();
    (created.info.id, created.key)
}

/// A server on loopback.
struct Served {
    app: Arc<App>,
    address: SocketAddr,
    stop: CancellationToken,
    /// Each permit lets one `/test/hold` answer.
    go: Arc<Semaphore>,
    /// Somebody has come to `/test/hold`, or an endless answer was given up.
    seen: Arc<Notify>,
    serving: tokio::task::JoinHandle<()>,
    folder: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Routes that do what real ones may do.
fn test_routes(go: &Arc<Semaphore>, seen: &Arc<Notify>) -> Router<Arc<App>> {
    let (held, come, given_up) = (Arc::clone(go), Arc::clone(seen), Arc::clone(seen));
    Router::new()
        .route("/test/panic", get(|| async { panic!("as asked") as &'static str }))
        .route("/test/echo", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/test/upload", post(|body: Bytes| async move { body.len().to_string() }).layer(from_fn(body::upload)))
        .route("/test/hold", get(move || hold(Arc::clone(&held), Arc::clone(&come))))
        .route("/test/endless", get(move || endless(Arc::clone(&given_up))))
}

async fn hold(go: Arc<Semaphore>, come: Arc<Notify>) -> &'static str {
    come.notify_one();
    go.acquire().await.unwrap().forget();
    "held"
}

async fn endless(given_up: Arc<Notify>) -> axum::body::Body {
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let tell = Tell(given_up);
    axum::body::Body::from_stream(futures_util::stream::repeat_with(move || {
        let _ = &tell;
        Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 64 * 1024]))
    }))
}

async fn served(limits: DoorLimits) -> Served {
    served_with(Settings { limits, ..Settings::default() }).await
}

async fn served_with(settings: Settings) -> Served {
    let (app, folder) = app(settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve_here(app, folder, vec![Listener::Tcp(listener, None)], address)
}

fn serve_here(app: Arc<App>, folder: TempDir, listeners: Vec<Listener>, address: SocketAddr) -> Served {
    let (go, seen, stop) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()), CancellationToken::new());
    let routes = behind_the_door(surfaces().merge(test_routes(&go, &seen)), Arc::clone(&app));
    let serving = tokio::spawn(serve_routes(Arc::clone(&app), routes, listeners, stop.clone()));
    Served { app, address, stop, go, seen, serving, folder }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own, and gives everything that comes until it is closed.
    async fn talk(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        rest(&mut stream).await
    }

    /// A request with the key of development, after which the connection is closed.
    async fn ask(&self, request_line: &str, headers: &str, body: &str) -> String {
        self.talk(request(request_line, headers, body)).await
    }
}

/// A request with the key of development, after which the connection is closed.
fn request(request_line: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{request_line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n{headers}{length}\r\n{body}")
}

/// Everything that comes until the connection is closed, in whatever way.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the connection is closed in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until this text has come.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(text) {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).await.unwrap();
            assert!(count > 0, "closed before {text:?}: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&some[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer comes in time");
    String::from_utf8_lossy(&all).into_owned()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it ends in time")
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_request_only() {
    let served = served(DoorLimits::default()).await;
    let answer = served.ask("GET /test/panic", "", "").await;
    assert!(status(&answer) == "500" && answer.contains(r#"{"error":{"code":"internal","#), "{answer}");
    assert!(!answer.contains("as asked"), "what it said is not for callers: {answer}");
    assert_eq!(status(&served.ask("GET /healthz", "", "").await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_request_id() {
    let served = served(DoorLimits::default()).await;
    assert!(served.ask("GET /healthz", "X-Request-Id: mine-1\r\n", "").await.contains("\r\nx-request-id: mine-1\r\n"));
    assert!(served.ask("GET /healthz", "X-Request-Id: not sane\r\n", "").await.contains("\r\nx-request-id: req_"));
    assert!(served.talk("GET /nothing HTTP/1.0\r\n\r\n").await.contains("\r\nx-request-id: req_"), "refused ones too");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_alive_and_not_ready_without_its_pool() {
    let served = served(DoorLimits::default()).await;
    let answer = served.talk("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(status(&answer) == "200" && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
    let answer = served.talk("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(status(&answer) == "503" && answer.ends_with(r#"{"status":"not ready"}"#), "{answer}");
    served.app.end();
    assert!(served.ask("GET /readyz", "", "").await.ends_with(r#"{"status":"ending"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_those_who_may_observe() {
    let served = served(DoorLimits::default()).await;
    let with = |key: String| served.talk(format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nx-ms-apikey: {key}\r\nConnection: close\r\n\r\n"));
    let (_, observer) = key(&served.app, |new| new.roles = vec![Role::Observe]);
    let (_, runner) = key(&served.app, |new| new.roles = vec![Role::Execute]);
    let answer = with(observer).await;
    assert!(status(&answer) == "200" && answer.contains("\nbelljar_requests_total{") && answer.contains("\nbelljar_process_resident_bytes "), "{answer}");
    let answer = with(runner).await;
    assert!(status(&answer) == "403" && answer.contains(r#""code":"denied""#), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_taken_while_it_serves() {
    let served = served(DoorLimits::default()).await;
    assert_eq!(status(&served.talk("GET /healthz HTTP/1.0\r\nHost: box.example\r\n\r\n").await), "421");
    served.app.set(Settings { hosts: vec!["box.example".to_owned()], ..Settings::default() });
    assert_eq!(status(&served.talk("GET /healthz HTTP/1.0\r\nHost: box.example\r\n\r\n").await), "200");
}
