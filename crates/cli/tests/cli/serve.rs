//! `belljar serve`: how it starts, what it refuses, what it tells, how it ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::{self, eventually};

const KEY: &str = "0123456789abcdef";

/// A data folder of its own, so that servers of several tests can run side by side; the environments are those of all tests.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { folder }
    }

    /// With those of all tests, by one link: reading needs no more, and an ordinary user may not link files of others one by one.
    pub(crate) fn with_environments() -> Self {
        let place = Self::new();
        std::os::unix::fs::symlink(support::data().join("environments"), place.folder.path().join("environments")).unwrap();
        place
    }

    /// The folder, as `--data` wants it.
    pub(crate) fn data(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(support::binary());
        command.arg("serve").arg("--data").arg(self.folder.path()).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to its end, which comes at once: exit code and what it said.
    fn refused(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> (i32, String) {
        let mut command = self.command(arguments);
        change(&mut command);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn config(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("belljar.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn start(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Server {
        let log = self.folder.path().join("log");
        let mut command = self.command(&[&["--listen", "127.0.0.1:0"], arguments].concat());
        command.stderr(std::fs::File::create(&log).unwrap());
        change(&mut command);
        let mut server = Server { child: command.spawn().unwrap(), log };
        let listening = eventually(|| server.log().contains("serving") || server.child.try_wait().unwrap().is_some());
        assert!(listening && server.log().contains("\nlistening: ") || server.log().starts_with("listening: "), "{}", server.log());
        server
    }
}

/// A server that runs; killed with this.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What stands in the log behind this.
    fn told(&self, name: &str) -> String {
        self.log().lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {}", self.log())).to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> i32 {
        assert!(eventually(|| self.child.try_wait().unwrap().is_some()), "it ends: {}", self.log());
        self.child.wait().unwrap().code().unwrap()
    }

    pub(crate) fn ask(&self, request_line: &str, headers: &str, body: &str) -> (u16, String) {
        let address = self.told("listening: ").split_once("://").unwrap().1.to_owned();
        answer(TcpStream::connect(address).unwrap(), request_line, headers, body)
    }

    fn run(&self, key: &str, code: &str) -> Json {
        let body = serde_json::json!({"code": code}).to_string();
        let headers = format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n");
        let (status, text) = self.ask("POST /v1/sessions/abcd/executions", &headers, &body);
        assert_eq!(status, 200, "{text}\n{}", self.log());
        serde_json::from_str(&text).unwrap()
    }
}

pub(crate) fn answer(mut stream: impl Read + Write, request_line: &str, headers: &str, body: &str) -> (u16, String) {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(stream, "{request_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{length}\r\n{body}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn without_configuration_it_serves_and_prints_a_key() {
    let place = Place::with_environments();
    let mut server = place.start(&[], |_| {});
    let key = server.told("key: ");
    assert!(key.starts_with("bj_dev_") && key.len() > 40, "{key}");
    assert_eq!(server.ask("GET /healthz", "", ""), (200, r#"{"status":"ok"}"#.to_owned()));
    assert!(eventually(|| server.ask("GET /readyz", "", "").0 == 200), "{}", server.log());
    assert_eq!(server.ask("GET /v1/sessions", "", "").0, 401);
    assert_eq!(server.run(&key, "x = 6\nx * 7")["output"], 42);
    assert_eq!(server.run(&key, "print(x)")["stdout"], "6\n", "variables stay");

    // The user of this machine needs no key, and a second server on this folder is refused.
    let stream = UnixStream::connect(place.folder.path().join("server.sock")).unwrap();
    assert_eq!(answer(stream, "GET /metrics", "", "").0, 200);
    let (code, said) = place.refused(&["--listen", "127.0.0.1:0"], |_| {});
    assert!(code == 2 && said.contains("in use by"), "{code}: {said}");

    let said = server.log();
    assert!(!said.contains("x * 7") && !said.contains("Bearer"), "no code and no credential in the log: {said}");
    server.signal(Signal::TERM);
    assert_eq!(server.ended(), 0);
    assert!(!place.folder.path().join("server.sock").exists());
}

#[test]
fn what_runs_gets_to_end_and_a_second_signal_does_not_wait() {
    let place = Place::with_environments();
    let change = |command: &mut Command| {
        command.env("BELLJAR_DEV_KEY", KEY);
    };
    let mut server = place.start(&[], change);
    assert!(!server.log().contains(KEY), "a key that is given is not told again");
    let running = |server: &Server, code: &'static str| {
        let address = server.told("listening: http://");
        let asking = std::thread::spawn(move || {
            let headers = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
            let body = serde_json::json!({"code": code}).to_string();
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "POST /v1/run HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            text
        });
        let busy = || server.ask("GET /metrics", &format!("Authorization: Bearer {KEY}\r\n"), "").1.contains("state=\"busy\"} 1");
        assert!(eventually(busy), "it runs");
        asking
    };
    let asking = running(&server, "import time\ntime.sleep(2)\nprint('done')");
    server.signal(Signal::TERM);
    assert_eq!(server.ended(), 0);
    assert!(asking.join().unwrap().contains(r#""stdout":"done\n""#), "it got its answer: {}", server.log());

    let mut server = place.start(&[], change);
    let asking = running(&server, "import time\ntime.sleep(600)");
    let begun = Instant::now();
    server.signal(Signal::INT);
    assert!(eventually(|| server.log().contains("ending")));
    server.signal(Signal::INT);
    assert_eq!(server.ended(), 0);
    assert!(begun.elapsed() < Duration::from_secs(20), "the grace is 30 seconds: {:?}", begun.elapsed());
    drop(asking.join());
}

#[test]
fn off_loopback_it_needs_tls_keys_and_pools_that_are_meant_for_it() {
    let place = Place::new();
    let refused = |arguments: &[&str]| {
        let (code, said) = place.refused(arguments, |_| {});
        assert_eq!(code, 2, "{said}");
        said
    };
    let open = ["--listen", "0.0.0.0:0"];
    let said = refused(&open);
    assert!(said.contains("does not start without TLS") && said.contains("--behind-proxy"), "{said}");
    for more in [&["--tls-self-signed"][..], &["--behind-proxy", "edge"]] {
        let said = refused(&[&open, more].concat());
        assert!(said.contains("does not start without a key") && said.contains("belljar keys create"), "{said}");
    }
    assert!(refused(&["--behind-proxy", "edge", "--listen", "127.0.0.1:0"]).contains("behind a proxy, `belljar serve` does not start without a key"));
    let (code, said) = place.refused(&[&open[..], &["--tls-self-signed"]].concat(), |command| {
        command.env("BELLJAR_DEV_KEY", KEY);
    });
    assert!(code == 2 && said.contains("`BELLJAR_DEV_KEY` is not accepted off loopback"), "{said}");
    let keys = place.folder.path().join("keys.json");
    let jwk = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(&keys, jwk).unwrap();
    let jwt = format!("[auth.jwt]\nissuer = \"i\"\naudiences = \"a\"\njwks_file = {:?}\n", keys);
    let config = place.config(&jwt);
    let said = refused(&["--listen", "0.0.0.0:0", "--tls-self-signed", "--config", config.to_str().unwrap()]);
    assert!(said.contains("the pool `default` runs no code until it is enabled") && said.contains("`enabled = true` in `[pools.default]`"), "{said}");
}

#[test]
fn with_a_key_and_a_pool_that_is_enabled_it_serves_behind_a_proxy() {
    let place = Place::with_environments();
    let store = store::Store::open(place.folder.path(), store::Options::default()).unwrap();
    let new = store::NewKey { name: "one".to_owned(), roles: vec![store::Role::Execute], ..store::NewKey::default() };
    let key = store.create_key(new, "test").unwrap().key;
    drop(store);
    let config = place.config("[server]\nbehind_proxy = \"edge\"\nhosts = \"box.example\"\n[pools.default]\nenabled = true\nready = 0\n");
    let server = place.start(&["--config", config.to_str().unwrap()], |_| {});
    assert!(!server.log().contains("key: "), "no key of its own: {}", server.log());
    assert_eq!(server.run(&key, "2 + 3")["output"], 5);
    assert_eq!(server.ask("GET /metrics", &format!("Authorization: Bearer {key}\r\n"), "").0, 403, "it may run code and no more");
    assert!(eventually(|| server.ask("GET /readyz", "", "").0 == 200), "ready without anything that waits: {}", server.log());
    assert!(!server.log().contains(&key));
}

#[test]
fn what_cannot_be_is_refused_with_a_remedy() {
    let place = Place::new();
    let (code, said) = place.refused(&[], |command| {
        command.env("BELLJAR_DEV_KEY", "short");
    });
    assert!(code == 2 && said.contains("`BELLJAR_DEV_KEY` is no key") && !said.contains("short"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = place.refused(&["--listen", &taken.local_addr().unwrap().to_string()], |_| {});
    assert!(code == 2 && said.contains("cannot listen on 127.0.0.1:"), "{said}");
    let (code, said) = place.refused(&["--listen", "127.0.0.1:0", "--log-level", "belljar=loud"], |_| {});
    assert!(code == 2 && said.contains("is no level"), "{said}");
    let none = place.folder.path().join("none.pem");
    let none = none.to_str().unwrap();
    let (code, said) = place.refused(&["--listen", "127.0.0.1:0", "--tls-certificate", none, "--tls-key", none], |_| {});
    assert!(code == 2 && said.contains("cannot read the certificate"), "{said}");
    let config = place.config("[auth.jwt]\nissuer = \"i\"\naudiences = \"a\"\njwks_file = \"/none\"\n");
    let (code, said) = place.refused(&["--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()], |_| {});
    assert!(code == 2 && said.contains("cannot read the issuer's keys"), "{said}");
}

#[test]
fn settings_are_read_anew_and_bad_ones_are_not_taken() {
    let place = Place::with_environments();
    let config = place.config("[server]\nhosts = [\"one.example\"]\n[pools.default]\nready = 0\n");
    let server = place.start(&["--config", config.to_str().unwrap(), "--log-format", "json"], |_| {});
    let ask = |host: &str| {
        let address = server.told("listening: http://");
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /healthz HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text[9..12].to_owned()
    };
    assert_eq!((ask("one.example"), ask("two.example")), ("200".to_owned(), "421".to_owned()));
    place.config("[server]\nhosts = [\"two.example\"]\n[pools.default]\nready = 1\n");
    server.signal(Signal::HUP);
    assert!(eventually(|| ask("two.example") == "200"), "{}", server.log());
    assert_eq!(ask("one.example"), "421");
    assert!(eventually(|| server.log().contains("needs a restart")), "{}", server.log());
    place.config("[server]\nhosts = 5\n");
    server.signal(Signal::HUP);
    assert!(eventually(|| server.log().contains("the settings stay as they were")), "{}", server.log());
    assert_eq!(ask("two.example"), "200");
    let lines: Vec<Json> = server.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let answered = lines.iter().find(|line| line["message"] == "answered").unwrap();
    assert!(answered["span"]["request_id"].is_string() && answered["status"].is_u64() && answered["span"]["route"] == "/healthz", "{answered}");
}

#[test]
fn a_service_manager_hears_of_it() {
    let place = Place::with_environments();
    let path = place.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut bytes = [0; 100];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let mut server = place.start(&[], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(hear(), "READY=1");
    server.signal(Signal::TERM);
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(server.ended(), 0);
}

#[test]
fn the_units_and_the_images_files_name_what_there_is() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let unit = std::fs::read_to_string(packaging.join("belljar.service")).unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let place = Place::new();
    let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
    let output = Command::new(support::binary()).args(&arguments).arg("--help").env("HOME", place.folder.path()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
