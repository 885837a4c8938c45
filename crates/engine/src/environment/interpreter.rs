//! Which Python an environment is built on: the candidates in their order, and the questions each has to answer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::error::EnvironmentError;
use super::host::Host;

/// The Pythons that the locks resolve for, in the order of preference.
pub(super) const VERSIONS: &[&str] = &["3.12", "3.11", "3.13"];

const PROBE: &str = include_str!("probe.py");

/// Where the sandbox has the system's files, and so needs no copy of them.
const SYSTEM: &[&str] = &["/usr", "/lib", "/lib64"];

/// Where the loader looks without being told.
const LOADER: &[&str] = &["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// A Python that passed, as it describes itself. Always the base interpreter, never a virtual environment around it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Python {
    pub(super) prefix: PathBuf,
    exec_prefix: PathBuf,
    /// `3.12.1`
    pub(super) version: String,
    /// `3.12`
    pub(super) minor: String,
    /// `cpython-312-x86_64-linux-gnu`
    pub(super) abi: String,
    implementation: String,
    prerelease: bool,
    free_threaded: bool,
    debug: bool,
    pub(super) stdlib: PathBuf,
    pub(super) platstdlib: PathBuf,
    missing: Vec<String>,
    /// The shared libraries it had mapped with its standard modules imported.
    pub(super) libraries: Vec<PathBuf>,
}

impl Python {
    /// Its program.
    pub(super) fn executable(&self) -> PathBuf {
        self.prefix.join("bin").join(self.program())
    }

    /// `python3.12`
    pub(super) fn program(&self) -> String {
        format!("python{}", self.minor)
    }

    /// Whether the sandbox, which has the host's `/usr`, has it already.
    pub(super) fn is_system(&self) -> bool {
        self.prefix.starts_with("/usr")
    }

    /// The folders of the system in which its libraries lie and where the loader would not look by itself.
    pub(super) fn unusual_library_folders(&self) -> Vec<PathBuf> {
        let outside =
            |path: &&Path| !path.starts_with(&self.stdlib) && !path.starts_with(&self.platstdlib) && !LOADER.iter().any(|folder| path.starts_with(folder));
        let folders = self.libraries.iter().filter_map(|path| path.parent()).filter(outside);
        folders.map(Path::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The reason why no environment can stand on it.
    fn refusal(&self) -> Option<String> {
        if self.implementation != "cpython" {
            return Some(format!("is {}, not CPython", self.implementation));
        }
        if !VERSIONS.contains(&self.minor.as_str()) {
            return Some(format!("is Python {}; 3.11, 3.12 or 3.13 is needed", self.version));
        }
        if self.prerelease || self.free_threaded || self.debug {
            return Some("is a pre-release, debug or free-threaded build, for which packages have no wheels".to_owned());
        }
        if !self.missing.is_empty() {
            return Some(format!("lacks {}", self.missing.join(", ")));
        }
        if self.prefix != self.exec_prefix || !self.stdlib.starts_with(&self.prefix) || !self.platstdlib.starts_with(&self.prefix) {
            return Some("keeps its files in more than one place".to_owned());
        }
        if !self.executable().is_file() {
            return Some(format!("has no `{}`", self.executable().display()));
        }
        let inside = |path: &&PathBuf| !path.starts_with(&self.prefix) && !SYSTEM.iter().any(|folder| path.starts_with(folder));
        let foreign = self.libraries.iter().find(inside)?;
        Some(format!("needs `{}`, which lies neither in its own folder nor in the system's", foreign.display()))
    }
}

/// The first candidate that can carry an environment. A configured one is the only candidate.
pub(super) fn choose(host: &Host, configured: Option<&Path>, minor: Option<&str>) -> Result<Python, EnvironmentError> {
    let candidates = match configured {
        Some(path) => vec![path.to_owned()],
        None => candidates(host, minor),
    };
    let mut tried = Vec::new();
    for path in candidates {
        match probe(host, &path) {
            Ok(python) if minor.is_some_and(|minor| minor != python.minor) => {
                tried.push((path, format!("is Python {}", python.version)));
            }
            Ok(python) => return Ok(python),
            Err(reason) => tried.push((path, reason)),
        }
    }
    Err(EnvironmentError::NoInterpreter { tried })
}

/// Where a Python may be: for each version `PATH`, pyenv's folders, then the usual places.
pub(super) fn candidates(host: &Host, minor: Option<&str>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for version in VERSIONS.iter().filter(|version| minor.is_none_or(|minor| minor == **version)) {
        let program = format!("python{version}");
        let mut folders = host.path();
        folders.extend(pyenv_folders(host, version));
        folders.extend(["/usr/bin".into(), "/usr/local/bin".into()]);
        for path in folders.into_iter().map(|folder| folder.join(&program)) {
            if path.is_file() && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// The `bin` folders of pyenv's interpreters of this version, newest patch first.
fn pyenv_folders(host: &Host, version: &str) -> Vec<PathBuf> {
    let Some(entries) = host.pyenv_versions().and_then(|folder| std::fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let patch = entry.file_name().to_str()?.strip_prefix(version)?.strip_prefix('.')?.parse().ok()?;
            Some((patch, entry.path().join("bin")))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Asks a program what Python it is; the error is the reason why it is refused.
pub(super) fn probe(host: &Host, path: &Path) -> Result<Python, String> {
    let mut command = Command::new(path);
    command.env_clear().envs(host.for_interpreters());
    ask(command)
}

/// Asks the Python that `command` starts.
pub(super) fn ask(mut command: Command) -> Result<Python, String> {
    // Neither the user's variables (-I) nor the `.pth` files of its packages (-S) have a say, and nothing is written (-B).
    command.args(["-I", "-S", "-B", "-c", PROBE]).current_dir("/").stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("cannot be run ({error})"))?;
    let Ok(python) = serde_json::from_slice::<Python>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output");
        return Err(format!("does not answer as a Python ({})", last.trim()));
    };
    match python.refusal() {
        Some(reason) => Err(reason),
        None => Ok(python),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A script that answers the probe like a Python in `prefix` would.
    fn fake(prefix: &Path, minor: &str, changes: &[(&str, serde_json::Value)]) -> PathBuf {
        let mut answer = serde_json::json!({
            "prefix": prefix, "exec_prefix": prefix, "version": format!("{minor}.7"), "minor": minor,
            "abi": "cpython", "implementation": "cpython", "prerelease": false, "free_threaded": false, "debug": false,
            "stdlib": prefix.join("lib"), "platstdlib": prefix.join("lib"), "missing": [], "libraries": [],
        });
        for (name, value) in changes {
            answer[*name] = value.clone();
        }
        script(&prefix.join("bin"), &format!("python{minor}"), &format!("cat <<'END'\n{answer}\nEND"))
    }

    fn host(path: &[&Path], pyenv: &Path) -> Host {
        let path = std::env::join_paths(path.iter().chain([&Path::new("/usr/bin"), &Path::new("/bin")])).unwrap();
        Host::new([("PATH".into(), path), ("PYENV_ROOT".into(), pyenv.into())])
    }

    #[test]
    fn versions_come_before_places() {
        let root = tempfile::tempdir().unwrap();
        let on_path = fake(&root.path().join("a"), "3.11", &[]);
        let older = fake(&root.path().join("pyenv/versions/3.12.9"), "3.12", &[]);
        let newer = fake(&root.path().join("pyenv/versions/3.12.10"), "3.12", &[]);
        let host = host(&[on_path.parent().unwrap()], &root.path().join("pyenv"));
        let mut found = candidates(&host, None);
        found.retain(|path| path.starts_with(root.path()));
        assert_eq!(found, [newer.clone(), older, on_path]);
        assert_eq!(choose(&host, None, None).unwrap().executable(), newer);
    }

    #[test]
    fn a_shim_that_fails_is_skipped_and_named() {
        let root = tempfile::tempdir().unwrap();
        let shim = script(&root.path().join("shims"), "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127");
        let good = fake(&root.path().join("good"), "3.12", &[]);
        let host = host(&[shim.parent().unwrap(), good.parent().unwrap()], root.path());
        assert_eq!(choose(&host, None, Some("3.12")).unwrap().executable(), good);
        let message = choose(&host, Some(&shim), None).unwrap_err().to_string();
        assert!(message.contains("shims/python3.12`: does not answer as a Python (pyenv: python3.12"), "{message}");
    }

    #[test]
    fn each_shortcoming_has_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let cases: &[(&str, &str, serde_json::Value, &str)] = &[
            ("3.10", "debug", false.into(), "is Python 3.10.7; 3.11, 3.12 or 3.13 is needed"),
            ("3.12", "implementation", "pypy".into(), "is pypy, not CPython"),
            ("3.12", "free_threaded", true.into(), "free-threaded"),
            ("3.12", "missing", serde_json::json!(["lzma (No module named '_lzma')"]), "lacks lzma (No module named '_lzma')"),
            ("3.12", "libraries", serde_json::json!(["/home/x/lib/libssl.so.3"]), "needs `/home/x/lib/libssl.so.3`"),
            ("3.12", "exec_prefix", "/elsewhere".into(), "more than one place"),
        ];
        for (index, (minor, name, value, reason)) in cases.iter().enumerate() {
            let path = fake(&root.path().join(index.to_string()), minor, &[(name, value.clone())]);
            let said = probe(&Host::default(), &path).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }

    #[test]
    fn a_virtual_environment_answers_with_its_base() {
        let root = tempfile::tempdir().unwrap();
        let base = fake(&root.path().join("base"), "3.13", &[]);
        fs::create_dir_all(root.path().join("venv")).unwrap();
        let venv = root.path().join("venv/python");
        std::os::unix::fs::symlink(&base, &venv).unwrap();
        assert_eq!(choose(&Host::default(), Some(&venv), None).unwrap().executable(), base);
    }

    #[test]
    fn folders_the_loader_does_not_know_are_told() {
        let root = tempfile::tempdir().unwrap();
        let libraries = serde_json::json!(["/usr/lib/x/libz.so.1", "/usr/local/lib/libpython3.12.so.1.0"]);
        let path = fake(root.path(), "3.12", &[("libraries", libraries)]);
        let python = probe(&Host::default(), &path).unwrap();
        assert_eq!(python.unusual_library_folders(), [Path::new("/usr/local/lib")]);
    }
}
