//! The surface of Container Apps dynamic sessions, on real sandboxes: what clients send that cannot run here, byte by byte, and what they
//! read in the answers.
//!
//! `BELLJAR_TEST_DATA` names the folder with the environment `core`, which is built there when it is missing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test stops where its assumption ends")]
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test stops where its assumption ends")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::environment::{Host, Progress};
use engine::record::Unrecorded;
use engine::session::{SessionPoolSettings, Sessions};
use engine::{Controls, Engine, Imports, PoolSettings};
use serde_json::{Value as Json, json};
use server::app::{App, Start};
use server::listen::Listener;
use server::settings::Settings;
use tokio_util::sync::CancellationToken;

const KEY: &str = "a-key-for-these-tests";
const OLD: &str = "2024-02-02-preview";
const NEW: &str = "2025-10-02-preview";
/// The endpoints of one pool: bare, short, and that of a resource, as they are configured in clients.
const ENDPOINTS: [&str; 4] = ["", "/", "/pools/default", "/subscriptions/s-1/resourceGroups/g/sessionPools/default/"];

struct Scene {
    sessions: Arc<Sessions>,
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    stop: CancellationToken,
    _engine: Engine,
    _data: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

fn pool(name: &str, max_sessions: usize) -> SessionPoolSettings {
    SessionPoolSettings {
        name: name.to_owned(),
        environment: "core".to_owned(),
        sandboxes: PoolSettings { ready: 1, imports: Imports::Modules { modules: Vec::new(), warm_up: String::new() }, ..PoolSettings::default() },
        max_sessions,
        idle_timeout: Duration::from_secs(300),
        max_lifetime: Duration::from_secs(3600),
        allocation_wait: Duration::from_millis(200),
        create_on_use: true,
        region: None,
    }
}

fn scene(pools: Vec<SessionPoolSettings>, change: impl FnOnce(&mut Settings)) -> Scene {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = std::env::var_os("BELLJAR_TEST_DATA").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("data"), PathBuf::from);
    let engine = Engine::new(engine::Settings { data, host: Host::new(std::env::vars_os()), controls: Controls::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let sessions = {
        let _entered = runtime.enter();
        Sessions::start(&engine, pools, Arc::new(Unrecorded), &mut |step: Progress<'_>| eprintln!("{step:?}")).expect("sessions")
    };
    let mut settings = Settings::default();
    change(&mut settings);
    let own = tempfile::tempdir().unwrap();
    let store = store::Store::open(own.path(), store::Options::default()).unwrap();
    let app =
        App::new(Start { sessions: Arc::clone(&sessions), default_pool: "default".to_owned(), store, dev_key: Some(KEY.to_owned()), issuer: None, settings });
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    runtime.spawn(server::listen::serve(app, vec![Listener::Tcp(listener, None)], stop.clone()));
    Scene { sessions, runtime, address, stop, _engine: engine, _data: own, _turn: turn }
}

/// A server with one pool, as most tests need it.
fn plain() -> Scene {
    scene(vec![pool("default", 4)], |_| {})
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
        self.runtime.block_on(self.sessions.shutdown(Duration::ZERO));
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The status and the code of a refusal, which stands in two places.
    fn refusal(&self) -> (u16, &str) {
        let body = self.json();
        assert!(body["error"]["message"].is_string() && body["error"]["traceId"].is_string(), "{body}");
        assert_eq!(body["error"]["code"], self.headers["x-ms-error-code"]);
        (self.status, &self.headers["x-ms-error-code"])
    }
}

impl Scene {
    /// Sends these bytes, and reads one answer.
    fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A server that refuses may do so before it has everything.
        let _ = stream.write_all(bytes);
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        parse(&received)
    }

    /// The begin of a request with a key.
    fn head(&self, method: &str, target: &str) -> String {
        format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n", self.address)
    }

    fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!("{}Content-Length: {}\r\n{headers}\r\n", self.head(method, target), body.len());
        self.send(&[head.as_bytes(), body].concat())
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", b"")
    }

    fn delete(&self, target: &str) -> Answer {
        self.ask("DELETE", target, "", b"")
    }

    fn post(&self, target: &str, body: &Json) -> Answer {
        self.ask("POST", target, "Content-Type: application/json\r\n", body.to_string().as_bytes())
    }

    /// The properties of an execution in the old form.
    fn old(&self, session: &str, code: &str) -> Json {
        let body = json!({"properties": {"codeInputType": "inline", "executionType": "synchronous", "code": code}});
        let answer = self.post(&format!("/code/execute?api-version={OLD}&identifier={session}"), &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["properties"].clone()
    }

    /// The resource of an execution in the new form.
    fn flat(&self, session: &str, body: &Json) -> Json {
        let answer = self.post(&format!("/executions?api-version={NEW}&identifier={session}"), body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn upload(&self, target: &str, name: &str, content: &[u8]) -> Answer {
        let part = format!("--f00\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        let body = [part.as_bytes(), content, b"\r\n--f00--\r\n"].concat();
        self.ask("POST", target, "Content-Type: multipart/form-data; boundary=f00\r\n", &body)
    }

    /// Names in a listing of either form.
    fn names(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/files?{query}"));
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        let name = |file: &Json| file.get("properties").map_or(&file["name"], |old| &old["filename"]).as_str().unwrap().to_owned();
        answer.json()["value"].as_array().unwrap().iter().map(name).collect()
    }
}

fn parse(received: &[u8]) -> Answer {
    let split = received.windows(4).position(|window| window == b"\r\n\r\n");
    let split = split.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(received)));
    let head = String::from_utf8_lossy(&received[..split]).into_owned();
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: HashMap<String, String> = headers.collect();
    let body = &received[split + 4..];
    if status == 100 {
        return parse(body);
    }
    let chunked = headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked");
    Answer { status, headers, body: if chunked { unchunked(body) } else { body.to_vec() } }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
        if size == 0 {
            return whole;
        }
    }
}

#[test]
fn values_of_real_code_have_the_types_of_the_service() {
    let scene = plain();
    for (code, result) in [
        ("6*7", json!(42)),
        ("1/4", json!(0.25)),
        ("1 > 2", json!(false)),
        ("float('nan')", json!("nan")),
        ("'nan'", json!("nan")),
        ("None", json!("")),
        ("x = 1", json!("")),
        ("[1, 'a']", json!("[1, 'a']")),
        ("{'a': 1}", json!("{'a': 1}")),
        ("['a' * 40, 'b' * 40]", json!(format!("['{}',\n '{}']", "a".repeat(40), "b".repeat(40)))),
    ] {
        let properties = scene.old("typing", code);
        assert_eq!((&properties["status"], &properties["result"]), (&json!("Success"), &result), "{code}: {properties}");
        let whole = scene.flat("typing", &json!({"codeInputType": "Inline", "executionType": "Synchronous", "code": code}));
        assert_eq!((&whole["status"], &whole["result"]["executionResult"]), (&json!("Succeeded"), &result), "{code}: {whole}");
    }
    for (code, result) in [("42", json!("42")), ("'nan'", json!("'nan'")), ("None", Json::Null), ("True", json!("True"))] {
        let whole = scene.flat("typing", &json!({"code": code, "returnJupyterFormatExecutionResult": true}));
        assert_eq!(whole["result"]["executionResult"], result, "{code}: {whole}");
    }
    // Drawn, saved, and never shown by the code itself.
    let properties = scene.old("typing", "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('/mnt/data/a.png')\nplt.title('t')");
    assert_eq!((&properties["result"]["type"], &properties["result"]["format"]), (&json!("image"), &json!("png")), "{properties}");
    assert!(properties["result"]["base64_data"].as_str().unwrap().starts_with("iVBOR"));
}

#[test]
fn failing_code_is_a_success_of_the_call() {
    let scene = plain();
    let properties = scene.old("failing", "import sys\nprint('out')\nprint('err', file=sys.stderr)\n1/0");
    assert_eq!((&properties["status"], &properties["stdout"], &properties["result"]), (&json!("Failure"), &json!("out\n"), &json!("")));
    let stderr = properties["stderr"].as_str().unwrap();
    assert!(stderr.starts_with("err\n") && stderr.contains("ZeroDivisionError: division by zero") && !stderr.contains('\u{1b}'), "{stderr}");
    let whole = scene.flat("failing", &json!({"code": "1/0"}));
    assert_eq!((&whole["status"], &whole["error"]["error"]["code"]), (&json!("Failed"), &json!("ZeroDivisionError")));
    let late = scene.flat("failing", &json!({"code": "while True: pass", "timeoutInSeconds": 1}));
    assert_eq!(late["status"], "Failed", "{late}");
    // The session goes on.
    assert_eq!(scene.old("failing", "1+1")["result"], 2);
    let cut = scene.flat("failing", &json!({"code": "print('x' * 100)", "outputStreamsMaxLength": 10}));
    assert_eq!(cut["result"]["stdout"], "xxxxxxxxxx");
}

#[test]
fn every_endpoint_leads_to_the_same_session() {
    let scene = plain();
    let count = "n = globals().get('n', 0) + 1; n";
    for (number, endpoint) in ENDPOINTS.iter().enumerate() {
        for (path, body) in [
            ("code/execute", json!({"properties": {"code": count}})),
            ("code/execute", json!({"code": count})),
            ("executions", json!({"properties": {"code": count}, "identifier": "ignored"})),
            ("python/execute", json!({"properties": {"pythonCode": count}})),
        ] {
            let answer = scene.post(&format!("{endpoint}/{path}?identifier=same&api-version={OLD}"), &body);
            assert_eq!(answer.status, 200, "{endpoint} {path} {answer:?}");
        }
        assert_eq!(scene.old("same", "n")["result"], (number + 1) * 4, "{endpoint}");
    }
    let only_in_body = scene.post("/python/execute?api-version=1", &json!({"properties": {"identifier": "same", "pythonCode": "n"}})).json();
    assert_eq!((&only_in_body["result"], &only_in_body["status"]), (&json!(16), &json!("Success")));
    assert_eq!(only_in_body["properties"]["result"], 16);
    // Characters that some clients send as they are, and others encode.
    scene.old("a|b-c%26d", "n = 'odd'");
    assert_eq!(scene.old("a%7Cb-c%26d", "n")["result"], "odd");
}

#[test]
fn headers_tell_where_the_time_went() {
    let scene = plain();
    let target = format!("/executions?api-version={NEW}&identifier=timed");
    let (first, second) = (scene.post(&target, &json!({"code": "1"})), scene.post(&target, &json!({"code": "1"})));
    for name in ["overall-execution-time", "preparation-time", "execution-request-time", "execution-read-response-time", "total-execution-service-time"] {
        assert!(first.headers[&format!("x-ms-{name}")].parse::<u64>().is_ok(), "{first:?}");
    }
    for name in ["container-execution-duration", "allocation-time", "allocation-retries"] {
        assert!(first.headers[&format!("x-ms-{name}")].parse::<u64>().is_ok(), "{first:?}");
    }
    assert_eq!((first.headers["x-ms-new-allocation"].as_str(), second.headers["x-ms-new-allocation"].as_str()), ("true", "false"));
    assert_eq!(second.headers["x-ms-allocation-time"], "0");
    assert!(first.headers["x-ms-session-guid"] == second.headers["x-ms-session-guid"] && first.headers["operation-id"] != second.headers["operation-id"]);
    let named = scene.ask("POST", &target, "operation-id: mine\r\n", b"{\"code\":\"1\"}");
    assert_eq!(named.headers["operation-id"], "mine");
}

#[test]
fn an_empty_kernel_has_nothing_and_leaves_nothing() {
    let scene = plain();
    scene.old("empty", "x = 'kept'; open('/mnt/data/f', 'w').write('file')");
    let code = "y = 1; 'x' in globals(), open('/mnt/data/f').read()";
    let empty = scene.flat("empty", &json!({"code": code, "useEmptyKernel": true}));
    assert_eq!(empty["result"]["executionResult"], "(False, 'file')", "{empty}");
    assert_eq!(scene.old("empty", "x, 'y' in globals()")["result"], "('kept', False)");
}

/// Asks until it is over.
fn ended(scene: &Scene, location: &str) -> Json {
    for _ in 0..3000 {
        let now = scene.get(location).json();
        if now["status"] != "Running" && now["status"] != "NotStarted" {
            return now;
        }
    }
    panic!("no end at {location}");
}

#[test]
fn executions_can_be_asked_for_later() {
    let scene = plain();
    for endpoint in ENDPOINTS {
        // import time; time.sleep(0.2); 6*7
        let code = "aW1wb3J0IHRpbWU7IHRpbWUuc2xlZXAoMC4yKTsgNio3";
        let body = json!({"codeInputType": "InlineBase64", "executionType": "Asynchronous", "code": code, "timeoutInSeconds": 30});
        let answer = scene.post(&format!("{endpoint}/executions?api-version={NEW}&identifier=later-1"), &body);
        assert_eq!(answer.status, 202, "{answer:?}");
        let started = answer.json();
        assert_eq!((&started["status"], &started["executionType"], started.get("result")), (&json!("Running"), &json!("Asynchronous"), None));
        let (id, location) = (started["id"].as_str().unwrap(), &answer.headers["operation-location"]);
        assert!(location.contains(id) && location.starts_with(endpoint.trim_end_matches('/')) && answer.headers["operation-id"] == id, "{location}");
        let ended = ended(&scene, location);
        assert_eq!((&ended["status"], &ended["executionType"]), (&json!("Succeeded"), &json!("Asynchronous")));
        assert_eq!(ended["result"]["executionResult"], 42);
    }
    let body = json!({"properties": {"code": "1", "executionType": "asynchronous"}});
    let old = scene.post(&format!("/code/execute?api-version={OLD}&identifier=later-1"), &body);
    assert_eq!((old.status, &old.json()["properties"]["status"]), (202, &json!("Running")));
    let whole = scene.flat("later-1", &json!({"code": "'x'", "returnJupyterFormatExecutionResult": true}));
    let again = scene.get(&format!("/executions/{}?api-version={NEW}&identifier=later-1", whole["id"].as_str().unwrap()));
    assert_eq!(again.json(), whole);
    for (id, session) in [("exe_unknown", "later-1"), (whole["id"].as_str().unwrap(), "other-1"), ("..%2f..", "later-1")] {
        let missing = scene.get(&format!("/executions/{id}?api-version={NEW}&identifier={session}"));
        assert_eq!(missing.refusal(), (404, "ResourceNotFound"));
    }
}

#[test]
fn commands_of_shell_pools_run() {
    let scene = plain();
    scene.upload(&format!("/files?api-version={NEW}&identifier=shell-1"), "uploaded.txt", b"x");
    let all = scene.flat("shell-1", &json!({"shellCommand": "ls -a"}));
    assert_eq!((&all["status"], &all["result"]["stdout"]), (&json!("0"), &json!(".\n..\nuploaded.txt\n")), "{all}");
    assert!(all["result"].get("executionResult").is_none() && all["result"]["executionTimeInMilliseconds"].is_u64());
    let body = json!({"properties": {"codeInputType": "inline", "executionType": "synchronous", "shellCommand": "echo out; echo err >&2; exit 3"}});
    let tutorial = scene.flat("shell-1", &body);
    assert_eq!((&tutorial["result"]["stdout"], &tutorial["result"]["stderr"]), (&json!("out\n"), &json!("err\n")), "{tutorial}");
    assert_eq!(tutorial["status"], "3");
    let words = scene.flat("shell-1", &json!({"execCommandAndArgs": ["printf", "%s|", "a b", "$(id)", "it's", "*"]}));
    assert_eq!((&words["status"], &words["result"]["stdout"]), (&json!("0"), &json!("a b|$(id)|it's|*|")), "{words}");
    assert_eq!(scene.flat("shell-1", &json!({"execCommandAndArgs": ["no-such-program"]}))["status"], "127");
    let input = scene.flat("shell-1", &json!({"shellCommand": "wc -c; exit 5", "stdin": "it's\n"}));
    assert_eq!((&input["status"], &input["result"]["stdout"]), (&json!("5"), &json!("5\n")), "{input}");
}

#[test]
fn files_go_in_and_out_in_both_forms() {
    let scene = plain();
    let empty = scene.get(&format!("/files?api-version={OLD}&identifier=files-1"));
    assert_eq!((empty.status, &empty.json()["value"]), (200, &json!([])), "a session is made by asking for its files");
    let old = scene.upload(&format!("/files/upload?api-version={OLD}&identifier=files-1"), "/mnt/data/b b.txt", b"hello");
    let properties = &old.json()["value"][0]["properties"];
    assert_eq!((old.status, &properties["filename"], &properties["size"]), (200, &json!("b b.txt"), &json!(5)));
    let new = scene.upload(&format!("/files?path=sub/folder&api-version={NEW}&identifier=files-1"), "a.csv", b"1,2\n").json();
    assert_eq!((&new["name"], &new["directory"], &new["type"]), (&json!("a.csv"), &json!("/mnt/data/sub/folder"), &json!("file")), "{new}");
    assert_eq!(scene.old("files-1", "open('/mnt/data/b b.txt').read() + open('/mnt/data/sub/folder/a.csv').read()")["result"], "hello1,2\n");
    assert_eq!(scene.names(&format!("identifier=files-1&api-version={OLD}")), ["b b.txt"]);
    for root in ["", "&path=", "&path=/mnt/data", "&path=%2Fmnt%2Fdata%2F", "&path=/", "&path=."] {
        assert_eq!(scene.names(&format!("identifier=files-1&api-version={NEW}{root}")), ["b b.txt", "sub"], "{root}");
    }
    for folder in ["sub/folder", "/mnt/data/sub/folder/", "sub%2Ffolder"] {
        assert_eq!(scene.names(&format!("path={folder}&identifier=files-1&api-version={NEW}")), ["a.csv"]);
    }
    let mut all = scene.names(&format!("identifier=files-1&api-version={NEW}&recursive=true"));
    all.sort();
    assert_eq!(all, ["a.csv", "b b.txt", "folder", "sub"]);
    for path in [format!("b%20b.txt?api-version={OLD}&"), format!("b%20b.txt?path=/mnt/data&api-version={OLD}&")] {
        assert_eq!(scene.get(&format!("/files/{path}identifier=files-1")).json()["value"][0]["properties"]["filename"], "b b.txt");
    }
    assert_eq!(scene.get(&format!("/files/b%20b.txt?api-version={NEW}&identifier=files-1")).json()["contentType"], "text/plain; charset=utf-8");
    let removed = scene.delete(&format!("/files/b%20b.txt?api-version={OLD}&identifier=files-1"));
    assert_eq!((removed.status, removed.json()), (200, json!({"message": "file deleted successfully"})));
    assert_eq!(scene.delete(&format!("/files/a.csv?path=sub/folder&api-version={NEW}&identifier=files-1")).status, 204);
    for (method, path) in [("GET", "b%20b.txt"), ("DELETE", "b%20b.txt"), ("GET", "content/b%20b.txt"), ("GET", "a.csv/content"), ("GET", "sub/x/content")] {
        let missing = scene.ask(method, &format!("/files/{path}?api-version={NEW}&identifier=files-1"), "", b"");
        assert_eq!(missing.refusal(), (404, "ResourceNotFound"), "{method} {path}");
    }
}

#[test]
fn contents_of_files_are_given_in_both_forms() {
    let scene = plain();
    scene.old("content", "import os; os.makedirs('sub/folder'); open('sub/folder/a.csv', 'w').write('1,2\\n'); open('b b.txt', 'w').write('hello')");
    let old = ["files/content/b%20b.txt?", "files/content//mnt/data/b%20b.txt?", "python/downloadFile?filename=b%20b.txt&"];
    let new = ["files/b%20b.txt/content?", "files/b%20b.txt/content?path=/mnt/data&"];
    for target in old.iter().chain(&new) {
        let answer = scene.get(&format!("/{target}api-version={OLD}&identifier=content"));
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()), "{target}");
        assert_eq!((answer.headers["content-length"].as_str(), answer.headers["accept-ranges"].as_str()), ("5", "bytes"));
        let expected = if new.contains(target) { "application/octet-stream" } else { "text/plain; charset=utf-8" };
        assert_eq!(answer.headers["content-type"], expected);
        assert!(answer.headers.contains_key("last-modified"));
    }
    for target in ["content/sub/folder/a.csv?", "content/sub%2Ffolder%2Fa.csv?", "a.csv/content?path=sub/folder&", "sub%2Ffolder%2Fa.csv/content?"] {
        assert_eq!(scene.get(&format!("/files/{target}api-version={NEW}&identifier=content")).body, b"1,2\n", "{target}");
    }
    let target = format!("/files/b%20b.txt/content?api-version={NEW}&identifier=content");
    let part = scene.ask("GET", &target, "Range: bytes=1-3\r\n", b"");
    assert_eq!((part.status, part.body.as_slice(), part.headers["content-range"].as_str()), (206, b"ell".as_slice(), "bytes 1-3/5"));
    let beyond = scene.ask("GET", &target, "Range: bytes=5-\r\n", b"");
    assert_eq!((beyond.refusal(), beyond.headers["content-range"].as_str()), ((416, "InvalidRange"), "bytes */5"));
    let head = scene.ask("HEAD", &target, "", b"");
    assert_eq!((head.status, head.body.len(), head.headers["content-length"].as_str()), (200, 0, "5"));
}

#[test]
fn paths_do_not_leave_the_workspace() {
    let scene = plain();
    scene.old("paths", "import os; os.symlink('/etc/passwd', '/mnt/data/link'); os.mkfifo('/mnt/data/pipe')");
    for path in ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "a%2f..%2fb", "a%00b", "%2e%2e"] {
        for target in ["files/content/PATH?", "files/PATH/content?", "files/x/content?path=PATH&", "python/downloadFile?filename=PATH&", "files?path=PATH&"] {
            let answer = scene.get(&format!("/{}api-version={NEW}&identifier=paths", target.replace("PATH", path)));
            assert_eq!(answer.refusal(), (400, "InvalidRequest"), "{target} {path}");
        }
    }
    for name in ["../x", "/etc/x", "a/../../x", "..", "/mnt/data/../x", ""] {
        let answer = scene.upload(&format!("/files/upload?api-version={OLD}&identifier=paths"), name, b"x");
        assert_eq!(answer.refusal(), (400, "InvalidRequest"), "{name}");
    }
    for name in ["link", "pipe"] {
        assert_eq!(scene.get(&format!("/files/{name}/content?api-version={NEW}&identifier=paths")).refusal(), (409, "Conflict"), "{name}");
    }
    for name in ["-rf", "%22quoted%22", " leading", "Ünï🎈", "a;b", "100%25"] {
        assert_eq!(scene.upload(&format!("/files?api-version={NEW}&identifier=paths"), name, b"x").status, 200, "{name}");
    }
    let listed = scene.get(&format!("/files?api-version={NEW}&identifier=paths")).json();
    let find = |name: &str| listed["value"].as_array().unwrap().iter().find(|file| file["name"] == name).unwrap_or_else(|| panic!("{name} of {listed}"));
    for name in ["-rf", "\"quoted\"", " leading", "Ünï🎈", "a;b", "100%25"] {
        assert_eq!(find(name)["type"], "file");
    }
    assert_eq!((&find("pipe")["type"], &find("link")["type"]), (&json!("other"), &json!("other")));
}

#[test]
fn uploads_that_are_too_large_are_refused_and_leave_nothing() {
    let scene = scene(vec![pool("default", 4)], |settings| settings.limits.upload_bytes = 1 << 20);
    let target = format!("/files?api-version={NEW}&identifier=large");
    assert_eq!(scene.upload(&target, "fits", &vec![b'x'; 1 << 20]).status, 200);
    assert_eq!(scene.upload(&target, "announced", &vec![b'x'; 8 << 20]).refusal(), (413, "RequestEntityTooLarge"));
    assert_eq!(scene.upload(&target, "over", &vec![b'x'; (1 << 20) + 1]).refusal(), (413, "RequestEntityTooLarge"));
    // In chunks, nothing announced.
    let head = format!("{}Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=f00\r\n\r\n", scene.head("POST", &target));
    let mut body = head.into_bytes();
    let mut chunk = |bytes: &[u8]| body.extend([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
    chunk(b"--f00\r\nContent-Type: application/octet-stream\r\nContent-Disposition: form-data; name=\"file\"; filename=\"chunked\"\r\n\r\n");
    for _ in 0..40 {
        chunk(&[b'x'; 100_000]);
    }
    chunk(b"\r\n--f00--\r\n");
    body.extend(b"0\r\n\r\n");
    assert_eq!(scene.send(&body).refusal(), (413, "RequestEntityTooLarge"));
    // Who asks before sending is told at once.
    let asked = format!("{}Expect: 100-continue\r\nContent-Length: 99999999\r\n", scene.head("POST", &target));
    assert_eq!(scene.send(format!("{asked}Content-Type: multipart/form-data; boundary=f00\r\n\r\n").as_bytes()).refusal(), (413, "RequestEntityTooLarge"));
    assert_eq!(scene.names(&format!("identifier=large&api-version={NEW}")), ["fits"]);
}

#[test]
fn sessions_are_shown_listed_and_ended() {
    let scene = scene(vec![pool("default", 4), pool("other", 4)], |_| {});
    for session in ["first", "second"] {
        scene.old(session, "x = 1");
    }
    let shown = scene.get(&format!("/session?api-version={NEW}&identifier=first")).json();
    assert_eq!(shown["identifier"], "first");
    for name in ["createdAt", "lastAccessedAt", "expireAt"] {
        assert!(humantime::parse_rfc3339(shown[name].as_str().unwrap()).is_ok(), "{shown}");
    }
    assert!(shown["etag"].as_str().unwrap().starts_with("ses_"));
    let list = |pool: &str, skip: &str| scene.get(&format!("/pools/{pool}/listSessions?api-version={NEW}{skip}")).json();
    let all = list("default", "");
    assert_eq!((&all["sessions"][0]["identifier"], &all["sessions"][1]["identifier"], &all["nextLink"]), (&json!("first"), &json!("second"), &Json::Null));
    assert_eq!(list("default", "&skip=1")["sessions"][0]["identifier"], "second");
    assert_eq!(list("other", "")["sessions"], json!([]));
    assert_eq!(scene.get(&format!("/session?api-version={NEW}&identifier=never")).refusal(), (404, "ResourceNotFound"), "asking makes no session");
    let stopped = scene.ask("POST", &format!("/.management/stopSession?api-version={NEW}&identifier=second"), "", b"");
    assert_eq!((stopped.status, String::from_utf8_lossy(&stopped.body).as_ref()), (200, "Session second in session pool default stopped."));
    assert!(stopped.headers["content-type"].starts_with("text/plain"));
    for _ in 0..2 {
        assert_eq!(scene.delete(&format!("/session?api-version={NEW}&identifier=first")).status, 204);
    }
    assert_eq!(list("default", "")["sessions"], json!([]));
    assert_eq!(scene.old("first", "globals().get('x')")["result"], "", "a new session");
    let metadata = scene.get(&format!("/metadata?api-version={NEW}")).json();
    let numpy = metadata["preInstalledPackages"].as_array().unwrap().iter().find(|package| package["name"] == "numpy").expect("numpy");
    assert_eq!(scene.old("first", "import numpy; numpy.__version__")["result"], numpy["version"]);
    assert_eq!(scene.old("first", "import platform; platform.python_version()")["result"], metadata["runtimes"][0]["version"]);
}

#[test]
fn refusals_are_worded_as_the_service_words_them() {
    let scene = scene(vec![pool("default", 1)], |_| {});
    let refused = |query: &str, body: &Json| {
        let answer = scene.post(&format!("/code/execute?{query}"), body);
        let (status, code) = answer.refusal();
        (status, code.to_owned())
    };
    let bad = (400, "InvalidRequest".to_owned());
    assert_eq!(refused("identifier=abcd", &json!({"code": "1"})), bad);
    assert_eq!(refused("api-version=1", &json!({"code": "1"})), bad);
    assert_eq!(refused("api-version=1&identifier=abc", &json!({"code": "1"})), bad);
    assert_eq!(refused("api-version=1&identifier=abcd", &json!({})), bad);
    assert_eq!(refused("api-version=1&identifier=abcd", &json!({"code": "1", "timeoutInSeconds": 221})), bad);
    assert_eq!(refused("api-version=1&identifier=abcd", &json!({"code": "x".repeat(9 << 20)})), (413, "RequestEntityTooLarge".to_owned()));
    assert_eq!(scene.post("/pools/none/code/execute?api-version=1&identifier=abcd", &json!({"code": "1"})).refusal(), (404, "ResourceNotFound"));
    assert_eq!(scene.get("/pools/default/nothing?api-version=1&identifier=abcd").refusal(), (404, "ResourceNotFound"));
    let wrong_method = scene.get("/code/execute?api-version=1&identifier=abcd");
    assert_eq!((wrong_method.refusal(), wrong_method.headers["allow"].as_str()), ((405, "MethodNotAllowed"), "POST"));
    for endpoint in ENDPOINTS {
        let stranger = format!("GET {endpoint}/files?api-version=1&identifier=abcd HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", scene.address);
        let answer = scene.send(stranger.as_bytes());
        assert_eq!((answer.refusal(), answer.headers["www-authenticate"].as_str()), ((401, "Unauthorized"), "Bearer"), "{endpoint}");
    }
    // One place, taken.
    scene.old("taken", "1");
    let full = scene.post("/code/execute?api-version=1&identifier=abcd", &json!({"code": "1"}));
    assert!(full.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    assert_eq!(full.refusal(), (404, "NoMoreSessions"));
    assert_eq!(scene.old("taken", "1")["result"], 1);
}

#[test]
fn a_key_comes_back_as_a_token_where_that_is_set() {
    let ask = |scene: &Scene, header: &str| {
        let target = "/msi/token?api-version=2019-08-01&resource=https://dynamicsessions.io";
        scene.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{header}\r\n", scene.address).as_bytes())
    };
    let off = plain();
    assert_eq!(ask(&off, &format!("X-IDENTITY-HEADER: {KEY}\r\n")).status, 404);
    drop(off);
    let on = scene(vec![pool("default", 1)], |settings| settings.msi_token = true);
    let token = ask(&on, &format!("X-IDENTITY-HEADER: {KEY}\r\n"));
    assert_eq!((token.status, &token.json()["access_token"], &token.json()["token_type"]), (200, &json!(KEY), &json!("Bearer")));
    assert_eq!(ask(&on, "X-IDENTITY-HEADER: wrong\r\n").status, 401);
    assert_eq!(ask(&on, "").status, 401);
}

/// Semantic Kernel for .NET, from its source: the bytes that its `HttpClient` makes of it.
#[test]
fn semantic_kernel_for_dotnet_is_understood() {
    let scene = plain();
    let prefix = "/subscriptions/s/resourceGroups/g/sessionPools/default/";
    let session = "1d2c3b4a-0000-4000-8000-abcdefabcdef";
    let query = format!("identifier={session}&api-version=2024-10-02-preview");
    let agent = "User-Agent: Semantic-Kernel/1.66.0.0 (Language=dotnet)\r\n";
    // Its own type of the answer has only texts.
    for (code, result) in [("6*7", "42"), ("True", "true"), ("'x'", "x"), ("None", ""), ("[1]", "[1]")] {
        let body = json!({"identifier": session, "codeInputType": "Inline", "executionType": "Synchronous", "timeoutInSeconds": 100, "pythonCode": code});
        let headers = format!("{agent}Content-Type: application/json; charset=utf-8\r\n");
        let answer = scene.ask("POST", &format!("{prefix}executions?{query}"), &headers, body.to_string().as_bytes());
        assert_eq!((answer.status, &answer.json()["result"]["executionResult"]), (200, &json!(result)), "{code}");
    }
    let part = "Content-Disposition: form-data; name=file; filename=test_file.txt; filename*=utf-8''test_file.txt";
    let body = format!("--9051914041544843365972754266\r\n{part}\r\n\r\nhello\r\n--9051914041544843365972754266--\r\n");
    let headers = format!("{agent}Content-Type: multipart/form-data; boundary=\"9051914041544843365972754266\"\r\n");
    let uploaded = scene.ask("POST", &format!("{prefix}files?{query}"), &headers, body.as_bytes()).json();
    assert_eq!((&uploaded["name"], &uploaded["sizeInBytes"]), (&json!("test_file.txt"), &json!(5)), "{uploaded}");
    assert_eq!((&uploaded["type"], &uploaded["contentType"]), (&json!("file"), &json!("text/plain; charset=utf-8")));
    assert!(humantime::parse_rfc3339(uploaded["lastModifiedAt"].as_str().unwrap()).is_ok());
    assert_eq!(scene.get(&format!("{prefix}files?{query}")).json()["value"], json!([uploaded]));
    assert_eq!(scene.get(&format!("{prefix}files/test_file.txt/content?{query}")).body, b"hello");
}

/// langchain4j, from its source.
#[test]
fn langchain4j_is_understood() {
    let scene = plain();
    let query = "identifier=4f9c1b9e-4c9e-4f55-8e0e-1b2c3d4e5f60&api-version=2024-02-02-preview";
    let agent = "User-Agent: langchain4j-azure-dynamic-sessions\r\nContent-Type: application/json\r\n";
    let body = br#"{"properties":{"codeInputType":"inline","code":"6*7","executionType":"synchronous"}}"#;
    let answer = scene.ask("POST", &format!("/pools/default/code/execute?{query}"), agent, body);
    assert_eq!((answer.status, &answer.json()["properties"]["result"]), (200, &json!(42)));
    let part = "Content-Disposition: form-data; name=\"file\"; filename=\"data.json\"\r\nContent-Type: application/json";
    let body = format!("------1732573200000\r\n{part}\r\n\r\n{{\"a\":1}}\r\n------1732573200000--\r\n");
    let headers = "Content-Type: multipart/form-data; boundary=----1732573200000\r\n";
    let uploaded = scene.ask("POST", &format!("/pools/default/files/upload?{query}"), headers, body.as_bytes()).json();
    let properties = &uploaded["value"][0]["properties"];
    assert_eq!((&properties["filename"], properties["size"].as_u64()), (&json!("data.json"), Some(7)));
    assert_eq!(scene.get(&format!("/pools/default/files/content/data.json?{query}")).body, b"{\"a\":1}");
    assert_eq!(scene.get(&format!("/pools/default/files?{query}")).json()["value"][0]["properties"]["filename"], "data.json");
}

/// Semantic Kernel for Python, after it has executed something: every body is said to be JSON.
#[test]
fn a_body_of_parts_that_is_said_to_be_json_is_understood() {
    let scene = plain();
    let part = "Content-Disposition: form-data; name=\"file\"; filename=\"/mnt/data/in.txt\"\r\nContent-Type: application/octet-stream";
    let body = format!("--d8a3c1f0e9b7a6d5\r\n{part}\r\n\r\nhello\r\n--d8a3c1f0e9b7a6d5--\r\n");
    let target = format!("/files/upload?identifier=mislabelled&api-version={OLD}");
    let uploaded = scene.ask("POST", &target, "Content-Type: application/json\r\n", body.as_bytes());
    assert_eq!((uploaded.status, &uploaded.json()["value"][0]["properties"]["filename"]), (200, &json!("in.txt")), "{uploaded:?}");
    let none = scene.ask("POST", &target, "Content-Type: application/json\r\n", b"{\"file\":\"x\"}");
    assert_eq!(none.refusal(), (400, "InvalidRequest"));
}

/// `az containerapp session code-interpreter`, from its source.
#[test]
fn the_command_line_of_azure_is_understood() {
    let scene = plain();
    let prefix = "/subscriptions/s/resourceGroups/g/sessionPools/default";
    let session = "identifier=testSession&api-version=2025-02-02-preview";
    let body = json!({"codeInputType": "Inline", "executionType": "Synchronous", "code": "print('hello')", "timeoutInSeconds": 60});
    let answer = scene.post(&format!("{prefix}/executions?{session}"), &body);
    assert_eq!((answer.status, &answer.json()["result"]["stdout"]), (200, &json!("hello\n")));
    let uploaded = scene.upload(&format!("{prefix}/files?path=/mnt/data/testDir&{session}"), "cert.txt", b"x");
    assert_eq!((uploaded.status, &uploaded.json()["name"]), (200, &json!("cert.txt")));
    let listed = scene.get(&format!("{prefix}/files?identifier=testSession&path=&api-version=2025-02-02-preview")).json();
    assert_eq!((&listed["value"][0]["name"], &listed["value"][0]["type"]), (&json!("testDir"), &json!("directory")));
    let shown = scene.get(&format!("{prefix}/files/cert.txt?path=/mnt/data/testDir&{session}"));
    assert_eq!((shown.status, &shown.json()["sizeInBytes"]), (200, &json!(1)));
    assert_eq!(scene.get(&format!("{prefix}/files/cert.txt/content?path=testDir&{session}")).body, b"x");
    let removed = scene.delete(&format!("{prefix}/files/cert.txt?path=testDir&{session}"));
    assert_eq!((removed.status, removed.body.len()), (204, 0));
}
