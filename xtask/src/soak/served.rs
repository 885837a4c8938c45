//! Sessions over HTTP by the thousand, and the server killed under load: memory and descriptors stay where they were, and nothing is left running.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value as Json, json};

use super::process;
use super::random::Random;
use super::residue;
use crate::ci::say;
use crate::tied;

/// Callers at once.
const CALLERS: u64 = 6;
/// How long a server may take to be ready, and to be gone.
const START: Duration = Duration::from_secs(60);
const GONE: Duration = Duration::from_secs(15);
/// An answer that takes longer hangs.
const ANSWER: Duration = Duration::from_secs(60);
/// Sessions end by themselves after so long.
const IDLE_SECONDS: u64 = 2;
/// Growth of the server's memory, over the first tenth of the sessions, that is the allocator's own.
const SLACK_KIB: u64 = 48 * 1024;
pub(super) const KEY: &str = "a-key-for-the-soak-alone";

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Served {
    sessions: u64,
    took: Duration,
    ways: BTreeMap<&'static str, u64>,
    /// KiB and descriptors of the server: after the first tenth, and at the end.
    early: (u64, usize),
    late: (u64, usize),
    kills: u64,
    slowest_end: Duration,
    pub(super) problems: Vec<String>,
}

impl Served {
    /// In words.
    pub(super) fn text(&self) -> String {
        let ways: Vec<String> = self.ways.iter().map(|(way, count)| format!("{count} {way}")).collect();
        let ((early, files), (late, now)) = (self.early, self.late);
        format!(
            "served: {} sessions in {:.0} s ({}); the server's memory {early} -> {late} KiB, descriptors {files} -> {now}; \
             {} kills under load, everything gone after {:.2} s at most",
            self.sessions,
            self.took.as_secs_f64(),
            ways.join(", "),
            self.kills,
            self.slowest_end.as_secs_f64()
        )
    }
}

/// Both parts.
pub(super) fn run(belljar: &Path, data: &Path, (sessions, kills): (u64, u64), seed: u64) -> anyhow::Result<Served> {
    let mut served = Served::default();
    let mut random = Random::new(seed);
    if sessions > 0 {
        many(belljar, data, sessions, &mut random, &mut served)?;
    }
    for number in 0..kills {
        killed(belljar, data, &mut random, &mut served).with_context(|| format!("kill {number}"))?;
        served.kills += 1;
        if served.kills.is_multiple_of((kills / 10).max(1)) {
            say(&format!("{} kills of the server", served.kills));
        }
    }
    Ok(served)
}

/// The pool that most of it needs.
fn pools() -> String {
    format!("[pools.default]\nready = 4\nmax_sessions = 40\nallocation_wait_seconds = 30\nidle_timeout_seconds = {IDLE_SECONDS}\n")
}

/// `belljar serve` as a process of its own.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) url: String,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(super) fn start(belljar: &Path, data: &Path) -> anyhow::Result<Self> {
        Self::start_with(&pools(), belljar, data)
    }

    /// Starts it with these pools.
    pub(super) fn start_with(pools: &str, belljar: &Path, data: &Path) -> anyhow::Result<Self> {
        Self::launch(pools, |arguments| {
            let mut command = tied::command(belljar);
            command.args(arguments).arg(data);
            command
        })
    }

    /// Starts it by a command that gets its arguments, of which the last is `--data`.
    pub(super) fn start_by(command: impl FnOnce(&[std::ffi::OsString]) -> Command) -> anyhow::Result<Self> {
        Self::launch(&pools(), command)
    }

    fn launch(pools: &str, command: impl FnOnce(&[std::ffi::OsString]) -> Command) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("belljar.toml");
        fs::write(&config, pools)?;
        let words = ["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--config"].map(std::ffi::OsString::from);
        let arguments: Vec<_> = words.into_iter().chain([config.into_os_string(), "--data".into()]).collect();
        let mut command = command(&arguments);
        command.env("BELLJAR_DEV_KEY", KEY).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start the server")?;
        let (sender, heard) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let mut server = Self { child, url: String::new(), _folder: folder };
        let (deadline, mut said) = (Instant::now() + START, Vec::new());
        while server.url.is_empty() {
            let Ok(line) = heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                bail!("the server does not start: {}", said.join("; "));
            };
            match line.strip_prefix("listening: ") {
                Some(url) => server.url = url.to_owned(),
                None => said.push(line),
            }
        }
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// KiB and descriptors that it has.
    pub(super) fn size(&self) -> (u64, usize) {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid())).into_iter().flatten().count();
        (process::resident(self.pid()).unwrap_or_default(), descriptors)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A caller with a connection of its own.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    pub(super) fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER)).http_status_as_error(false).build();
        Self { agent: config.into(), url: url.to_owned() }
    }

    pub(super) fn post(&self, path: &str, body: &Json) -> anyhow::Result<(u16, Json)> {
        let request = self.agent.post(format!("{}{path}", self.url)).header("authorization", format!("Bearer {KEY}"));
        let mut response = request.header("content-type", "application/json").send(body.to_string().as_bytes())?;
        let text = response.body_mut().read_to_string()?;
        Ok((response.status().as_u16(), serde_json::from_str(&text).with_context(|| text.clone())?))
    }

    pub(super) fn execute(&self, id: &str, body: &Json) -> anyhow::Result<String> {
        let (status, answer) = self.post(&format!("/v1/sessions/{id}/executions"), body)?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(answer.get("outcome").and_then(Json::as_str).unwrap_or_default().to_owned())
    }

    fn put(&self, id: &str, bytes: &[u8]) -> anyhow::Result<u16> {
        let request = self.agent.put(format!("{}/v1/sessions/{id}/files/in.bin", self.url)).header("authorization", format!("Bearer {KEY}"));
        Ok(request.send(bytes)?.status().as_u16())
    }

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut response = self.agent.get(format!("{}{path}", self.url)).header("authorization", format!("Bearer {KEY}")).call()?;
        ensure!(response.status().is_success(), "{} from `{path}`", response.status());
        Ok(response.body_mut().read_to_vec()?)
    }

    pub(super) fn delete(&self, id: &str) -> anyhow::Result<()> {
        self.delete_in("default", id)
    }

    pub(super) fn delete_in(&self, pool: &str, id: &str) -> anyhow::Result<()> {
        let response = self.agent.delete(format!("{}/v1/sessions/{id}?pool={pool}", self.url)).header("authorization", format!("Bearer {KEY}")).call()?;
        ensure!(response.status().is_success() || response.status() == 404, "{} from the end of `{id}`", response.status());
        Ok(())
    }
}

/// Ways of a session's life, with how often each is taken.
const WAYS: &[(u64, &str)] = &[
    (40, "printed and ended"),
    (12, "with files"),
    (10, "failed and ended"),
    (10, "ended while it ran"),
    (8, "crashed and went on"),
    (10, "shell commands"),
    (10, "left to be idle"),
];

fn live(client: &Client, way: &str, id: &str) -> anyhow::Result<()> {
    let expect = |body: Json, wanted: &str| {
        let outcome = client.execute(id, &body)?;
        ensure!(outcome == wanted, "`{id}` {way}: {outcome} instead of {wanted}");
        anyhow::Ok(())
    };
    match way {
        "printed and ended" => expect(json!({"code": "print(1)"}), "completed")?,
        "with files" => {
            let bytes = vec![7_u8; 300_000];
            expect(json!({"code": "1"}), "completed")?;
            ensure!(client.put(id, &bytes)? == 201, "`{id}`: the file is not taken");
            expect(json!({"code": "open('out.bin', 'wb').write(open('in.bin', 'rb').read())"}), "completed")?;
            ensure!(client.get(&format!("/v1/sessions/{id}/files/out.bin"))? == bytes, "`{id}`: the file came back changed");
        }
        "failed and ended" => expect(json!({"code": "1/0"}), "raised")?,
        "ended while it ran" => {
            let body = json!({"code": "while True: pass", "codeInputType": "Inline", "executionType": "Asynchronous"});
            let (status, answer) = client.post(&format!("/executions?api-version=2024-10-02-preview&identifier={id}"), &body)?;
            ensure!(status == 202, "{status}: {answer}");
        }
        "crashed and went on" => {
            expect(json!({"code": "import os; os.abort()"}), "killed")?;
            expect(json!({"code": "print(1)"}), "completed")?;
        }
        "shell commands" => expect(json!({"language": "shell", "code": "sleep 100 & echo left behind"}), "completed")?,
        _ => return expect(json!({"code": "x = 1"}), "completed"),
    }
    client.delete(id)
}

/// One server, all sessions.
fn many(belljar: &Path, data: &Path, sessions: u64, random: &mut Random, served: &mut Served) -> anyhow::Result<()> {
    let server = Server::start(belljar, data)?;
    let (clock, done, problems) = (Instant::now(), AtomicU64::new(0), Mutex::new(Vec::new()));
    let ways: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let early = Mutex::new(None);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let mut random = Random::new(random.number());
            let (server, done, problems, ways, early) = (&server, &done, &problems, &ways, &early);
            scope.spawn(move || {
                let client = Client::new(&server.url);
                loop {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    if number >= sessions || problems.lock().unwrap_or_else(PoisonError::into_inner).len() >= super::ENOUGH {
                        return;
                    }
                    let way = random.weighted(WAYS).copied().unwrap_or("printed and ended");
                    if let Err(error) = live(&client, way, &format!("soak-{caller}-{number}")) {
                        problems.lock().unwrap_or_else(PoisonError::into_inner).push(format!("served: {error:#}"));
                    }
                    *ways.lock().unwrap_or_else(PoisonError::into_inner).entry(way).or_default() += 1;
                    if number == sessions / 10 {
                        *early.lock().unwrap_or_else(PoisonError::into_inner) = Some(server.size());
                    }
                    if number > 0 && number.is_multiple_of((sessions / 10).max(1)) {
                        say(&format!("{number} sessions in {:.0} s", clock.elapsed().as_secs_f64()));
                    }
                }
            });
        }
    });
    served.problems.append(&mut problems.into_inner().unwrap_or_else(PoisonError::into_inner));
    served.ways = ways.into_inner().unwrap_or_else(PoisonError::into_inner);
    (served.sessions, served.took) = (served.ways.values().sum(), clock.elapsed());
    // Idle sessions end, connections close.
    let client = Client::new(&server.url);
    let deadline = Instant::now() + Duration::from_secs(IDLE_SECONDS) + START;
    while !served_nothing(&client)? {
        ensure!(Instant::now() < deadline, "sessions that nobody calls do not end");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(client);
    std::thread::sleep(Duration::from_secs(1));
    served.early = early.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_default();
    served.late = server.size();
    let ((early, _), (late, descriptors)) = (served.early, served.late);
    if late > early + SLACK_KIB {
        served.problems.push(format!("served: the server's memory has grown from {early} to {late} KiB"));
    }
    // Parked sandboxes have a few each, and nothing else has.
    if descriptors > 120 {
        served.problems.push(format!("served: the server has {descriptors} descriptors with nothing to do"));
    }
    note_left(end(server)?, served);
    Ok(())
}

fn served_nothing(client: &Client) -> anyhow::Result<bool> {
    let pools: Json = serde_json::from_slice(&client.get("/v1/pools")?)?;
    let counts = pools.get("pools").and_then(Json::as_array).into_iter().flatten();
    Ok(counts.filter_map(|pool| pool.pointer("/now/sessions")?.as_u64()).sum::<u64>() == 0)
}

/// Ends a server in order; then tells as [`left`] does.
pub(super) fn end(mut server: Server) -> anyhow::Result<(Duration, Vec<String>)> {
    let pid = server.pid();
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    let deadline = Instant::now() + START;
    while server.child.try_wait()?.is_none() {
        ensure!(Instant::now() < deadline, "the server does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(left(pid))
}

/// One server that is killed while callers call it.
fn killed(belljar: &Path, data: &Path, random: &mut Random, served: &mut Served) -> anyhow::Result<()> {
    let mut server = Server::start(belljar, data)?;
    let stop = AtomicBool::new(false);
    let wait = Duration::from_millis(random.below(1500));
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let mut random = Random::new(random.number());
            let (url, stop) = (server.url.clone(), &stop);
            scope.spawn(move || {
                let client = Client::new(&url);
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed)
                        || live(&client, random.weighted(WAYS).copied().unwrap_or_default(), &format!("killed-{caller}-{number}")).is_err()
                    {
                        return;
                    }
                }
            });
        }
        std::thread::sleep(wait);
        let _ = server.child.kill();
        stop.store(true, Ordering::Relaxed);
    });
    let pid = server.pid();
    server.child.wait()?;
    note_left(left(pid), served);
    Ok(())
}

/// Notes what is left of a server that has ended.
fn note_left((took, left): (Duration, Vec<String>), served: &mut Served) {
    served.slowest_end = served.slowest_end.max(took);
    served.problems.extend(left.into_iter().map(|what| format!("served: `{what}` is left of a server that has ended")));
}

/// Waits until nothing is left of a server that has ended: how long that took, and what is there all the same.
pub(super) fn left(pid: u32) -> (Duration, Vec<String>) {
    let clock = Instant::now();
    let look = || {
        process::reap(&process::below(std::process::id()), None);
        let mut left: Vec<String> = process::below(std::process::id()).iter().map(|process| process::command(process.pid)).collect();
        // Groups are removed by the launcher's last act; what it could not remove, the next start does.
        left.extend(residue::groups(&format!("belljar-{pid}-")).iter().filter(|group| has_processes(group)).map(|group| group.display().to_string()));
        left
    };
    while !look().is_empty() && clock.elapsed() < GONE {
        std::thread::sleep(Duration::from_millis(10));
    }
    (clock.elapsed(), look())
}

fn has_processes(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|processes| !processes.trim().is_empty())
}
