//! The server that is measured, and a client of it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value as Json, json};

use super::super::Stop;

/// How long the server may take to be ready.
const START: Duration = Duration::from_secs(120);
/// How long it may take to end.
const END: Duration = Duration::from_secs(40);
/// The longest answer that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// `belljar serve` as a process of its own.
pub(super) struct Server {
    child: Child,
    url: String,
    key: String,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(super) fn start(data: &Path, environment: &str, ready: usize, sessions: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        let config = folder.path().join("belljar.toml");
        let sessions = sessions.saturating_add(64);
        let text = format!(
            "[server.limits]\nupload_bytes = 2147483648\n\
             [pools.default]\nenvironment = \"{environment}\"\nready = {ready}\nmax_sessions = {sessions}\n\
             [pools.large]\nenvironment = \"{environment}\"\nready = 0\nmax_sessions = 2\nlimits.workspace_bytes = 1342177280\n"
        );
        std::fs::write(&config, text)?;
        let mut bytes = [0_u8; 24];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(data)
            .env("BELLJAR_DEV_KEY", &key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a server")?;
        let lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        let (sender, heard) = std::sync::mpsc::channel();
        // Reads on, so that the server never waits for its log.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let mut server = Self { child, url: String::new(), key, _folder: folder };
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
        // Somebody has to read what it says later.
        std::thread::spawn(move || heard.into_iter().for_each(drop));
        Ok(server)
    }

    pub(super) fn client(&self) -> Client {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Client { agent: config.into(), url: self.url.clone(), key: format!("Bearer {}", self.key) }
    }

    /// Waits until so many sandboxes are parked.
    pub(super) fn until_parked(&self, client: &Client, wanted: u64, stop: &Stop) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            stop.check()?;
            let pools = client.get("/v1/pools")?;
            let parked = pools.pointer("/pools").and_then(Json::as_array).into_iter().flatten();
            let parked = parked.filter(|pool| pool.get("name").and_then(Json::as_str) == Some("default")).find_map(|pool| pool.pointer("/now/ready")?.as_u64());
            if parked.with_context(|| format!("the server tells no pools: {pools}"))? >= wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the server's pool does not fill");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Memory that its own process has.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<u64> {
        resident(self.child.id()).context("the server has ended")
    }

    /// Watches its memory until it is asked for the most.
    pub(super) fn watch(&self) -> Watch {
        let (pid, most, stop) = (self.child.id(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                seen.fetch_max(resident(pid).unwrap_or_default(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Watch { most, stop, thread }
    }

    /// Ends it in order.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.terminate();
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the server does not end")
    }

    fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // On the way of an error: what it started ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that was seen.
pub(super) struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(super) fn most(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.most.load(Ordering::Relaxed)
    }
}

fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// A caller with a connection of its own.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    key: String,
}

/// What an execution came to.
pub(super) struct Answer {
    body: Json,
    /// Parts of its time as the server tells them, in milliseconds.
    pub(super) parts: Vec<(String, f64)>,
}

impl Answer {
    pub(super) fn stdout(&self) -> anyhow::Result<&str> {
        self.completed()?;
        self.body.get("stdout").and_then(Json::as_str).context("an execution without stdout")
    }

    pub(super) fn completed(&self) -> anyhow::Result<()> {
        ensure!(self.body.get("outcome").and_then(Json::as_str) == Some("completed"), "a job of the bench did not come to its end: {}", self.body);
        Ok(())
    }

    pub(super) fn printed(&self, text: &str) -> anyhow::Result<()> {
        let stdout = self.stdout()?;
        ensure!(stdout == text, "a job of the bench printed {stdout:?}");
        Ok(())
    }
}

impl Client {
    /// Runs code in a session of the default pool, which is made where it is not there.
    pub(super) fn execute(&self, session: &str, code: &str) -> anyhow::Result<Answer> {
        self.execute_in("default", session, code)
    }

    pub(super) fn execute_in(&self, pool: &str, session: &str, code: &str) -> anyhow::Result<Answer> {
        let url = format!("{}/v1/sessions/{session}/executions?pool={pool}", self.url);
        let body = json!({"code": code}).to_string();
        let sent = self.agent.post(&url).header("authorization", &self.key).header("content-type", "application/json").send(body.as_bytes());
        let mut response = sent.context("the server does not answer")?;
        let timing = response.headers().get("server-timing").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let part = |part: &str| {
            let (name, duration) = part.trim().split_once(";dur=")?;
            Some((name.to_owned(), duration.parse().ok()?))
        };
        let parts = timing.split(',').filter_map(part).collect();
        let text = response.body_mut().read_to_string()?;
        ensure!(response.status().is_success(), "the server refuses a job of the bench: {text}");
        Ok(Answer { body: serde_json::from_str(&text).context("an answer that is no JSON")?, parts })
    }

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Json> {
        let mut response = self.agent.get(format!("{}{path}", self.url)).header("authorization", &self.key).call().context("the server does not answer")?;
        let text = response.body_mut().read_to_string()?;
        serde_json::from_str(&text).with_context(|| format!("no JSON from `{path}`: {text}"))
    }

    pub(super) fn delete(&self, session: &str) -> anyhow::Result<()> {
        self.delete_in("default", session)
    }

    pub(super) fn delete_in(&self, pool: &str, session: &str) -> anyhow::Result<()> {
        let url = format!("{}/v1/sessions/{session}?pool={pool}", self.url);
        let mut response = self.agent.delete(url).header("authorization", &self.key).call().context("the server does not answer")?;
        let text = response.body_mut().read_to_string()?;
        ensure!(response.status().is_success(), "a session is not ended: {text}");
        Ok(())
    }

    /// Sends so many bytes as one file.
    pub(super) fn upload(&self, pool: &str, session: &str, name: &str, bytes: u64) -> anyhow::Result<()> {
        let url = format!("{}/v1/sessions/{session}/files/{name}?pool={pool}", self.url);
        let mut body = std::io::repeat(b'x').take(bytes);
        let request = self.agent.put(url).header("authorization", &self.key).header("content-length", bytes.to_string());
        let mut response = request.send(ureq::SendBody::from_reader(&mut body)).context("the server does not take the file")?;
        let text = response.body_mut().read_to_string()?;
        ensure!(response.status().is_success(), "the file is not taken: {text}");
        Ok(())
    }

    /// Fetches a file, and says how long it was.
    pub(super) fn download(&self, pool: &str, session: &str, name: &str) -> anyhow::Result<u64> {
        let url = format!("{}/v1/sessions/{session}/files/{name}?pool={pool}", self.url);
        let mut response = self.agent.get(url).header("authorization", &self.key).call().context("the server does not answer")?;
        ensure!(response.status().is_success(), "the file is not given: {}", response.status());
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; 256 * 1024];
        let mut total = 0;
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(total),
                count => total += u64::try_from(count)?,
            }
        }
    }
}
