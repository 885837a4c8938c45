//! `belljar serve`, started for the transcripts: the default pool, and one for each set of limits that they declare.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::parse::Transcript;
use crate::support::{self, eventually};

const KEY: &str = "a-key-for-the-transcripts";
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(180);
/// What may stand in a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'/');

/// A server that runs; killed with this.
pub(crate) struct Server {
    child: Child,
    url: String,
    agent: ureq::Agent,
    /// Limits with the pool that has them.
    pools: Vec<Vec<String>>,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

impl Server {
    pub(crate) fn start(transcripts: &[Transcript]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // A data folder of its own, for an ordinary user too: environments need no right but to read.
        std::os::unix::fs::symlink(support::data().join("environments"), folder.path().join("environments")).unwrap();
        let mut pools: Vec<Vec<String>> = transcripts.iter().map(|transcript| transcript.limits.clone()).filter(|limits| !limits.is_empty()).collect();
        pools.sort();
        pools.dedup();
        let limited = pools
            .iter()
            .zip(1..)
            .map(|(limits, number)| format!("[pools.limited-{number}]\nready = 0\n[pools.limited-{number}.limits]\n{}\n", limits.join("\n")));
        let config: PathBuf = folder.path().join("belljar.toml");
        std::fs::write(&config, format!("[pools.default]\nready = 1\n{}", limited.collect::<String>())).unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new(support::binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path()).arg("--config").arg(config).env_clear();
        for name in ["PATH", "LLVM_PROFILE_FILE"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.env("HOME", folder.path()).env("BELLJAR_DEV_KEY", KEY);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        let url = || told().lines().find_map(|line| line.strip_prefix("listening: ").map(str::to_owned));
        let listening = eventually(|| url().is_some() || child.try_wait().unwrap().is_some());
        let url = url().unwrap_or_else(|| panic!("the server does not start ({listening}): {}", told()));
        let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into();
        Self { child, url, agent, pools, folder }
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    /// The pool with these limits.
    pub(crate) fn pool(&self, limits: &[String]) -> String {
        self.pools.iter().position(|pool| pool == limits).map_or_else(|| "default".to_owned(), |place| format!("limited-{}", place + 1))
    }

    pub(crate) fn ask(&self, method: &str, target: &str, body: Option<(&str, Vec<u8>)>) -> Answer {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{target}", self.url)).header("authorization", format!("Bearer {KEY}"));
        let answered = match body {
            None => self.agent.run(request.body(()).unwrap()),
            Some((media_type, bytes)) => self.agent.run(request.header("content-type", media_type).body(bytes).unwrap()),
        };
        let mut answer = answered.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
        let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec().unwrap();
        Answer { status: answer.status().as_u16(), body }
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, None)
    }

    pub(crate) fn delete(&self, target: &str) -> Answer {
        self.ask("DELETE", target, None)
    }

    pub(crate) fn post(&self, target: &str, body: &Json) -> Answer {
        self.ask("POST", target, Some(("application/json", body.to_string().into_bytes())))
    }
}

/// A path as it stands in a request.
pub(crate) fn encoded(path: &str) -> String {
    utf8_percent_encode(path, PLAIN).to_string()
}
