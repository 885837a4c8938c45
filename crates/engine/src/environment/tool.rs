//! The programs a build runs: uv, pip where uv has to be fetched, and how their complaints are understood.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::error::EnvironmentError;
use super::host::Host;
use super::interpreter::{self, Python};
use super::lock;

/// The oldest uv whose options and messages this module knows.
const OLDEST: (u32, u32) = (0, 8);

/// Where the output of the tools goes, and what holds the build's lock while they run.
pub(super) struct Running<'a> {
    /// The environment being built.
    pub(super) name: &'a str,
    pub(super) data: &'a Path,
    pub(super) log: PathBuf,
    pub(super) lock: &'a File,
}

/// How a program ended and what it said on stderr.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) said: String,
}

impl Running<'_> {
    /// Begins a new log.
    pub(super) fn begin(&self) -> Result<(), EnvironmentError> {
        File::create(&self.log).map(drop).map_err(|error| EnvironmentError::io("write", &self.log, error))
    }

    /// Runs a program to its end; each line of its stderr also goes to `line`.
    pub(super) fn run(&self, command: &mut Command, line: &mut dyn FnMut(&str)) -> Result<Ended, EnvironmentError> {
        let program = PathBuf::from(command.get_program());
        let failed = |error| EnvironmentError::io("run", &program, error);
        let mut log = self.append()?;
        // The program's stdin is the lock: should this process be killed, the lock is held until the program is gone too,
        // so that nobody else builds while it still writes.
        command.stdin(self.lock.try_clone().map_err(failed)?).stdout(self.append()?).stderr(Stdio::piped()).current_dir("/");
        let mut child = command.spawn().map_err(failed)?;
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            for text in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&text);
                // A log that cannot be written is no reason to stop reading: the program would block.
                let _ = writeln!(log, "{text}");
                said.push_str(&text);
                said.push('\n');
                line(&text);
            }
        }
        let status = child.wait().map_err(failed)?;
        Ok(Ended { status, said })
    }

    fn append(&self) -> Result<File, EnvironmentError> {
        let open = File::options().append(true).create(true).open(&self.log);
        open.map_err(|error| EnvironmentError::io("write", &self.log, error))
    }

    /// The error for a program that failed while doing `step`.
    pub(super) fn failure(&self, step: &str, said: &str) -> EnvironmentError {
        let (name, log) = (self.name.to_owned(), self.log.clone());
        let (cause, reason) = explain(said);
        match cause {
            Cause::Network => EnvironmentError::NoNetwork { name, reason, log },
            Cause::Unsatisfiable => EnvironmentError::Unsatisfiable { name, reason, log },
            Cause::Hash => EnvironmentError::HashMismatch { name, reason, log },
            Cause::DiskFull => EnvironmentError::DiskFull { path: self.data.to_owned() },
            Cause::Other => EnvironmentError::Tool { step: step.to_owned(), name, reason, log },
        }
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Cause {
    Network,
    Unsatisfiable,
    Hash,
    DiskFull,
    Other,
}

/// What marks each cause in the words of uv and pip; the first match wins.
const MARKS: &[(Cause, &[&str])] = &[
    (Cause::DiskFull, &["No space left on device", "Disk quota exceeded"]),
    (Cause::Hash, &["Hash mismatch", "THESE PACKAGES DO NOT MATCH THE HASHES", "Expected sha256"]),
    (
        Cause::Network,
        &[
            "error sending request",
            "dns error",
            "tcp connect error",
            "operation timed out",
            "network was disabled",
            "network is disabled",
            "HTTP status",
            "invalid peer certificate",
            "NewConnectionError",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "ProxyError",
            "SSLError",
        ],
    ),
    (Cause::Unsatisfiable, &["No solution found", "no usable wheels", "Couldn't parse requirement", "No matching distribution found"]),
];

/// The cause and the one line that tells most.
fn explain(said: &str) -> (Cause, String) {
    let mark = |(cause, marks): &(Cause, &[&str])| marks.iter().any(|mark| said.contains(mark)).then_some(*cause);
    let cause = MARKS.iter().find_map(mark).unwrap_or(Cause::Other);
    let causes: Vec<&str> = said.lines().filter_map(complaint).collect();
    let containing = |word: &str| causes.iter().find(|line| line.contains(word)).map(|line| (*line).to_owned());
    let chain = || match causes.as_slice() {
        [] => said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason").trim().to_owned(),
        [only] => (*only).to_owned(),
        [first, .., last] => format!("{first}: {last}"),
    };
    let reason = match cause {
        Cause::Unsatisfiable => containing("Because").unwrap_or_else(chain),
        Cause::Hash => containing("ash mismatch").unwrap_or_else(chain),
        Cause::Network if said.contains("network was disabled") || said.contains("network is disabled") => {
            "the network is switched off by `UV_OFFLINE`".to_owned()
        }
        _ => chain(),
    };
    (cause, reason.trim_end_matches(['.', ':']).to_owned())
}

/// The text of a line that belongs to an error, without what uv and pip put before it.
fn complaint(line: &str) -> Option<&str> {
    let line = line.trim();
    let prefixes = ["error: ", "cause: ", "Caused by: ", "× ", "├─▶ ", "╰─▶ ", "ERROR: "];
    prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)).map(str::trim)
}

/// A uv to run.
pub(super) struct Uv {
    program: PathBuf,
    variables: Vec<(OsString, OsString)>,
    cache: PathBuf,
}

impl Uv {
    /// A uv that never downloads an interpreter, keeps to wheels, and has its cache in Belljar's own folder.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("UV_PYTHON_DOWNLOADS", "never").env("UV_NO_PROGRESS", "1").env("UV_CACHE_DIR", &self.cache);
        command
    }

    /// The uv of the user's `PATH`, the one installed before, or one installed now by pip.
    pub(super) fn get(host: &Host, python: &Python, running: &Running<'_>) -> Result<Self, EnvironmentError> {
        let program = match found(host).or_else(|| installed(running.data)) {
            Some(program) => program,
            None => install(host, python, running)?,
        };
        let mut variables = host.for_tools();
        variables.extend(index_of_pip(host, python));
        Ok(Self { program, variables, cache: running.data.join("cache/uv") })
    }
}

/// A uv on `PATH` that is recent enough.
fn found(host: &Host) -> Option<PathBuf> {
    host.path().into_iter().map(|folder| folder.join("uv")).find(|program| {
        let output = Command::new(program).env_clear().arg("--version").stdin(Stdio::null()).output();
        output.is_ok_and(|output| version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|version| version >= OLDEST))
    })
}

/// `uv 0.13.8 (…)` as numbers.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("uv ")?.split('.');
    Some((numbers.next()?.trim().parse().ok()?, numbers.next()?.trim().parse().ok()?))
}

fn own_folder(data: &Path) -> PathBuf {
    let version = lock::pins(lock::UV).pop().map(|pin| pin.version).unwrap_or_default();
    data.join("tools").join(format!("uv-{version}"))
}

fn installed(data: &Path) -> Option<PathBuf> {
    let program = own_folder(data).join("bin/uv");
    program.is_file().then_some(program)
}

/// Installs uv with the pip of some interpreter, into a folder of our own: no root and no virtual environment needed.
fn install(host: &Host, python: &Python, running: &Running<'_>) -> Result<PathBuf, EnvironmentError> {
    let folder = own_folder(running.data);
    let tools = running.data.join("tools");
    fs::create_dir_all(&tools).map_err(|error| EnvironmentError::io("create", &tools, error))?;
    let staged = tempfile::Builder::new().prefix(".installing-").tempdir_in(&tools);
    let staged = staged.map_err(|error| EnvironmentError::io("create", &tools, error))?;
    let pinned = staged.path().join("uv.txt");
    fs::write(&pinned, lock::UV).map_err(|error| EnvironmentError::io("write", &pinned, error))?;
    let others = interpreter::candidates(host, None).into_iter().filter(|path| *path != python.executable());
    for interpreter in std::iter::once(python.executable()).chain(others) {
        let mut command = pip(host, &interpreter);
        command.args(["install", "--quiet", "--no-input", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
        command.arg("--target").arg(staged.path().join("uv")).arg("-r").arg(&pinned);
        let Ok(ended) = running.run(&mut command, &mut |_| {}) else {
            continue;
        };
        if ended.status.success() {
            return match fs::rename(staged.path().join("uv"), &folder) {
                Ok(()) => Ok(folder.join("bin/uv")),
                // Another build was faster.
                Err(error) => installed(running.data).ok_or_else(|| EnvironmentError::io("create", &folder, error)),
            };
        }
        if !lacks_pip(&ended.said) {
            return Err(running.failure("installing uv", &ended.said));
        }
    }
    Err(EnvironmentError::NoUv { reason: "no Python on this machine has pip".to_owned() })
}

/// pip is missing, or a pyenv shim has no such version.
fn lacks_pip(said: &str) -> bool {
    said.contains("No module named pip") || said.contains("command not found")
}

fn pip(host: &Host, interpreter: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.args(["-I", "-m", "pip"]).env_clear().envs(host.for_interpreters()).envs(host.for_tools());
    // A user's pip.conf may say `user = true`, which contradicts `--target`.
    command.env("PIP_USER", "0").env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_ROOT_USER_ACTION", "ignore");
    command
}

/// uv does not read pip's settings. Where the user configured a mirror for pip and nothing for uv, the mirror is meant.
fn index_of_pip(host: &Host, python: &Python) -> Vec<(OsString, OsString)> {
    let mut settings = Vec::new();
    if host.get("SSL_CERT_FILE").is_none()
        && let Some(certificates) = host.get("PIP_CERT")
    {
        settings.push(("SSL_CERT_FILE".into(), certificates.to_owned()));
    }
    let own = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_CONFIG_FILE", "UV_NO_INDEX"];
    if own.iter().any(|name| host.get(name).is_some()) || has_uv_settings(host) {
        return settings;
    }
    let asked = |key: &str| {
        let output = pip(host, &python.executable()).args(["config", "get", key]).stdin(Stdio::null()).output().ok()?;
        let value = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !value.is_empty()).then(|| OsString::from(value))
    };
    if let Some(index) = host.get("PIP_INDEX_URL").map(OsString::from).or_else(|| asked("global.index-url")) {
        settings.push(("UV_DEFAULT_INDEX".into(), index));
    }
    if let Some(extra) = host.get("PIP_EXTRA_INDEX_URL") {
        settings.push(("UV_INDEX".into(), extra.to_owned()));
    }
    settings
}

fn has_uv_settings(host: &Host) -> bool {
    let home = host.get("HOME").map(|home| Path::new(home).join(".config"));
    let user = host.get("XDG_CONFIG_HOME").map(PathBuf::from).or(home);
    user.into_iter().chain([PathBuf::from("/etc")]).any(|folder| folder.join("uv/uv.toml").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_uv_are_read() {
        assert_eq!(version("uv 0.13.8 (x86_64-unknown-linux-gnu)\n"), Some((0, 13)));
        assert_eq!(version("uv 1.0"), Some((1, 0)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn an_unreachable_index_is_told_by_its_first_and_last_cause() {
        let said = "error: Request failed after 1 retry in 1.6s\n  cause: Failed to fetch: x\n  cause: error sending request for url\n  \
            cause: Connection refused (os error 111)\n";
        let reason = "Request failed after 1 retry in 1.6s: Connection refused (os error 111)";
        assert_eq!(explain(said), (Cause::Network, reason.to_owned()));
        let older = "  × Failed to fetch: `x`\n  ├─▶ error sending request for url\n  ╰─▶ dns error\n";
        assert_eq!(explain(older), (Cause::Network, "Failed to fetch: `x`: dns error".to_owned()));
    }

    #[test]
    fn the_resolver_is_quoted() {
        let said = "error: No solution found when resolving dependencies\n  cause: Because there is no version of six==99 and you \
            require six==99, we can conclude that your requirements are unsatisfiable.\n";
        let (cause, reason) = explain(said);
        assert_eq!(cause, Cause::Unsatisfiable);
        assert!(reason.starts_with("Because there is no version of six==99") && reason.ends_with("unsatisfiable"), "{reason}");
    }

    #[test]
    fn a_wrong_hash_and_a_full_disk_are_told_apart() {
        let said = "error: Failed to download `six==1.17.0`\n  cause: Hash mismatch for `six==1.17.0`\n\n  Expected:\n";
        assert_eq!(explain(said), (Cause::Hash, "Hash mismatch for `six==1.17.0`".to_owned()));
        let said = "error: Failed to download `numpy`\n  cause: I/O\n  cause: failed to write: No space left on device (os error 28)\n";
        assert_eq!(explain(said).0, Cause::DiskFull);
    }

    #[test]
    fn a_switched_off_network_is_not_a_bad_requirement() {
        let said = "error: No solution found\n  cause: Because six was not found in the cache\n\nhint: Packages were unavailable \
            because the network was disabled.\n";
        assert_eq!(explain(said), (Cause::Network, "the network is switched off by `UV_OFFLINE`".to_owned()));
    }

    #[test]
    fn a_mirror_for_pip_is_a_mirror_for_uv_unless_uv_has_its_own() {
        let home = tempfile::tempdir().unwrap();
        let python = interpreter::choose(&Host::new(std::env::vars_os()), None, None).unwrap();
        let settings = |pairs: &[(&str, &str)]| {
            let always = [("HOME", home.path().to_str().unwrap()), ("PIP_INDEX_URL", "mirror"), ("SSL_CERT_FILE", "c")];
            let all = always.iter().chain(pairs).map(|(name, value)| (name.into(), value.into()));
            index_of_pip(&Host::new(all), &python)
        };
        if !Path::new("/etc/uv/uv.toml").exists() {
            assert_eq!(settings(&[]), [("UV_DEFAULT_INDEX".into(), "mirror".into())]);
        }
        assert_eq!(settings(&[("UV_DEFAULT_INDEX", "other")]), []);
        std::fs::create_dir_all(home.path().join(".config/uv")).unwrap();
        std::fs::write(home.path().join(".config/uv/uv.toml"), "").unwrap();
        assert_eq!(settings(&[]), []);
    }

    #[test]
    fn silence_is_said_to_be_silence() {
        assert_eq!(explain(""), (Cause::Other, "it gave no reason".to_owned()));
    }
}
