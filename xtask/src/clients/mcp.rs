//! Clients of the Model Context Protocol, over HTTP and stdio: official SDKs, others' clients, and the official conformance suite. Each has a script in
//! `tests/clients/mcp` or `tests/clients/mcp-node`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::{KEY, Server, installed};
use crate::ci::{check, say, within};

/// The scripts in Python, by what has to be installed for them.
const PYTHON: [(&str, &[&str]); 2] = [
    ("current", &["fastmcp_client.py", "openai_agents.py", "plain_json.py", "pool_form.py", "sdk_current.py"]),
    ("previous", &["langchain_adapters.py", "pool_form.py", "sdk_previous.py"]),
];
/// The scripts for Node.js.
const NODE: [&str; 3] = [SUITE, "sdk_current.mjs", "sdk_previous.mjs"];
/// The oldest Node.js that they run on.
const MIN_NODE: u32 = 20;
/// Gives some calls half a second only, so that it runs first, and alone.
const SUITE: &str = "conformance.mjs";
/// The others mostly wait, for progress of code that runs on: so many do at once.
const LANES: usize = 3;
/// Each takes about a minute.
const PATIENCE: Duration = Duration::from_secs(600);

/// A script, and what runs it.
struct Script {
    name: String,
    interpreter: PathBuf,
    path: PathBuf,
}

/// Runs every script; what they need is installed into the data folder where it is not, or is other.
pub(crate) fn run(root: &Path, belljar: &Path, data: &Path) -> anyhow::Result<()> {
    let folder = root.join("tests/clients/mcp");
    let mut scripts = match lacks_node() {
        None => node(&root.join("tests/clients/mcp-node"), data)?,
        Some(lack) => {
            say(&format!("NOT RUN, {lack}: {}", NODE.join(", ")));
            Vec::new()
        }
    };
    for (kind, names) in PYTHON {
        let interpreter = installed(&folder.join(format!("requirements-{kind}.txt")), &data.join(format!("clients-mcp-{kind}")))?;
        scripts.extend(names.iter().map(|name| Script { name: format!("{name} ({kind})"), interpreter: interpreter.clone(), path: folder.join(name) }));
    }
    all_are_run(&folder, "py", "__main__", &scripts)?;
    if scripts.iter().any(|script| script.name == SUITE) {
        all_are_run(&root.join("tests/clients/mcp-node"), "mjs", "\nawait ", &scripts)?;
    }
    let (first, rest): (Vec<_>, Vec<_>) = scripts.into_iter().partition(|script| script.name == SUITE);
    let place = Place { root, data, belljar, server: Server::start(belljar, data, false)?, logs: tempfile::tempdir()? };
    let mut failed = place.run(first, 1);
    failed.extend(place.run(rest, LANES));
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Where the scripts run, and on what.
struct Place<'a> {
    root: &'a Path,
    data: &'a Path,
    belljar: &'a Path,
    server: Server,
    logs: tempfile::TempDir,
}

impl Place<'_> {
    /// Runs scripts, so many at once; those that fail, with the reason.
    fn run(&self, scripts: Vec<Script>, lanes: usize) -> Vec<String> {
        let queue = Mutex::new(VecDeque::from(scripts));
        let failed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..lanes {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(script) = next else { break };
                        if let Err(error) = self.one(&script) {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}: {error:#}", script.name));
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(&self, script: &Script) -> anyhow::Result<()> {
        let started = Instant::now();
        let log = self.logs.path().join(&script.name);
        let output = File::create(&log)?;
        let mut command = Command::new(&script.interpreter);
        command.arg(&script.path).stdout(output.try_clone()?).stderr(output);
        command.env("BELLJAR_URL", &self.server.url).env("BELLJAR_KEY", KEY);
        command.env("BELLJAR_MCP_COMMAND", serde_json::json!([self.belljar, "mcp", "--data", self.data]).to_string());
        command.env("PYTHONPATH", self.root.join("tests/clients")).env("PYTHONDONTWRITEBYTECODE", "1");
        let done = within(PATIENCE, &mut command);
        // Together, so that lines of two do not mix.
        say(&format!("-- {} ({} s)\n{}", script.name, started.elapsed().as_secs(), fs::read_to_string(&log).unwrap_or_default().trim_end()));
        done
    }
}

/// What is missing to run scripts for Node.js.
fn lacks_node() -> Option<String> {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned())
    };
    let Some(node) = version("node") else { return Some("Node.js is missing".to_owned()) };
    let major = node.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or_default();
    if major < MIN_NODE {
        return Some(format!("Node.js is {node}, and {MIN_NODE} is needed"));
    }
    version("npm").is_none().then(|| "npm is missing".to_owned())
}

/// The scripts for Node.js, copied to where their packages are: nothing is installed among the sources.
fn node(scripts: &Path, data: &Path) -> anyhow::Result<Vec<Script>> {
    let folder = data.join("clients-mcp-node");
    let (lock, stamp) = (fs::read_to_string(scripts.join("package-lock.json"))?, folder.join("installed.json"));
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(scripts)?.flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    if !fs::read_to_string(&stamp).is_ok_and(|have| have == lock) {
        say(&format!("installing {}: once, and again where it changes", scripts.join("package-lock.json").display()));
        let mut command = Command::new("npm");
        command.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        check(&mut command).context("the clients on Node.js need `npm`")?;
        fs::write(stamp, lock)?;
    }
    Ok(NODE.iter().map(|name| Script { name: (*name).to_owned(), interpreter: "node".into(), path: folder.join(name) }).collect())
}

/// Whether every program among the files of a folder is one of the scripts: one that is forgotten here would never fail.
fn all_are_run(folder: &Path, extension: &str, mark: &str, scripts: &[Script]) -> anyhow::Result<()> {
    for path in fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|found| found == extension)) {
        let is_run = scripts.iter().any(|script| script.path.file_name() == path.file_name());
        if !is_run && fs::read_to_string(&path)?.contains(mark) {
            bail!("`{}` is not run: name it in xtask/src/clients/mcp.rs", path.display());
        }
    }
    Ok(())
}
