//! Real clients against a server that runs: those of Container Apps dynamic sessions, each with a script in `tests/clients`, and those of [`mcp`].

pub(crate) mod mcp;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use crate::ci::{check, say};
use crate::tied;

/// The key of the server's callers.
pub(crate) const KEY: &str = "a-key-for-the-clients-of-ci";
/// The client that speaks https only; it checks the certificate, too.
const HTTPS_ONLY: &str = "semantic_kernel_client.py";

/// Runs every script; the clients are installed into the data folder where they are not, or are others.
pub(crate) fn run(root: &Path, belljar: &Path, data: &Path) -> anyhow::Result<()> {
    let scripts = root.join("tests/clients");
    let python = installed(&scripts.join("requirements.txt"), &data.join("clients"))?;
    let mut names: Vec<String> = fs::read_dir(&scripts)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with("_client.py"));
    names.sort();
    ensure!(names.iter().any(|name| name == HTTPS_ONLY), "`{HTTPS_ONLY}` is missing in `{}`", scripts.display());
    let (https, http): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name == HTTPS_ONLY);
    for (names, secure) in [(http, false), (https, true)] {
        let server = Server::start(belljar, data, secure)?;
        for name in names {
            say(&format!("-- {name}"));
            let mut command = Command::new(&python);
            command.arg(scripts.join(&name)).env("BELLJAR_URL", &server.url).env("BELLJAR_KEY", KEY).env("PYTHONDONTWRITEBYTECODE", "1");
            if secure {
                command.env("SSL_CERT_FILE", data.join("tls/self-signed.pem"));
            }
            check(&mut command)?;
        }
    }
    Ok(())
}

/// The interpreter of a virtual environment with what is required.
pub(crate) fn installed(requirements: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
    let wanted = fs::read_to_string(requirements)?;
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    say(&format!("installing {}: once, and again where it changes", requirements.display()));
    check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    check(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements))?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

/// A server that runs until this is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start(belljar: &Path, data: &Path, secure: bool) -> anyhow::Result<Self> {
        let configuration = data.join("clients.toml");
        // Clients leave their sessions behind, several a second, and those that are at work must not have to wait for a place.
        let pool = "[pools.default]\nidle_timeout_seconds = 60\nmax_sessions = 300\n";
        fs::write(&configuration, format!("[server]\nmsi_token = true\ntls_self_signed = {secure}\n\n{pool}"))?;
        let mut command = tied::command(belljar);
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(configuration).arg("--data").arg(data).env("BELLJAR_DEV_KEY", KEY);
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut lines = BufReader::new(process.stderr.take().context("the server has no stderr")?).lines();
        let mut server = Self { process, url: String::new() };
        let mut said = String::new();
        while server.url.is_empty() {
            let line = lines.next().with_context(|| format!("the server has ended: {said}"))??;
            if let Some(url) = line.strip_prefix("listening: ") {
                url.clone_into(&mut server.url);
            }
            said = format!("{said}\n{line}");
        }
        // What it says is read to the end, so that it never waits for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Told to end, as an operator would: sandboxes end with it.
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
    }
}
