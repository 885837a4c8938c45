//! What can go wrong with an environment, said so that the reader knows what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// Why an environment could not be built, found or removed.
///
/// Messages may name paths of the host: they are for whoever runs `belljar env`, not for callers of a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// The name breaks the rule for names.
    #[error("`{name}` is not a name for an environment")]
    InvalidName {
        /// What was given.
        name: String,
    },
    /// Neither built in nor made by the user before.
    #[error("there is no environment `{name}`")]
    Unknown {
        /// The environment asked for.
        name: String,
    },
    /// A requirements file was given for one of ours.
    #[error("`{name}` is built in; its packages are fixed by its lock")]
    BuiltIn {
        /// The environment asked for.
        name: String,
    },
    /// A sandbox uses it.
    #[error("environment `{name}` is in use")]
    InUse {
        /// The environment asked for.
        name: String,
    },
    /// Somebody else could put programs there that we would run.
    #[error("`{}` belongs to another user, or others may write to it", .path.display())]
    Untrusted {
        /// The data folder, or one above it.
        path: PathBuf,
    },
    /// No candidate passed. One line per candidate: its path and why it was refused.
    #[error("no usable Python was found{}", listed(.tried))]
    NoInterpreter {
        /// Each candidate with the reason why it was refused.
        tried: Vec<(PathBuf, String)>,
    },
    /// uv was neither found nor could be installed.
    #[error("uv was not found and could not be installed: {reason}")]
    NoUv {
        /// What stood in the way.
        reason: String,
    },
    /// The package index could not be reached.
    #[error("the packages of `{name}` cannot be downloaded: {reason} (full output in `{}`)", .log.display())]
    NoNetwork {
        /// The environment being built, or `uv`.
        name: String,
        /// The innermost cause that the tool gave.
        reason: String,
        /// The file with everything the tool said.
        log: PathBuf,
    },
    /// No set of wheels satisfies the requirements.
    #[error("the requirements of `{name}` cannot be met: {reason} (full output in `{}`)", .log.display())]
    Unsatisfiable {
        /// The environment being built.
        name: String,
        /// What the resolver found.
        reason: String,
        /// The file with everything the tool said.
        log: PathBuf,
    },
    /// A downloaded file is not the one of the lock.
    #[error("a package of `{name}` is not the one in its lock: {reason} (full output in `{}`)", .log.display())]
    HashMismatch {
        /// The environment being built.
        name: String,
        /// Which package.
        reason: String,
        /// The file with everything the tool said.
        log: PathBuf,
    },
    /// The disk is full.
    #[error("no space left on the disk of `{}`", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The data folder cannot be written.
    #[error("`{}` cannot be written by this user", .path.display())]
    NotWritable {
        /// What was being written.
        path: PathBuf,
    },
    /// A tool ended with an error of another kind.
    #[error("{step} failed for `{name}`: {reason} (full output in `{}`)", .log.display())]
    Tool {
        /// What was being done.
        step: String,
        /// The environment being built.
        name: String,
        /// The tool's own words.
        reason: String,
        /// The file with everything the tool said.
        log: PathBuf,
    },
    /// The caller's finishing hook failed.
    #[error("environment `{name}` could not be finished: {reason}")]
    Finish {
        /// The environment being built.
        name: String,
        /// The hook's own words.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl EnvironmentError {
    /// What the user can do about it: one imperative line, or nothing where the message says it all.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::InvalidName { .. } => "use 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter or digit".to_owned(),
            Self::Unknown { name } => {
                format!("see `belljar env list`, or make it: `belljar env build {name} --requirements FILE`")
            }
            Self::BuiltIn { .. } => "choose another name for your own requirements".to_owned(),
            Self::InUse { .. } => "end the sessions that use it, then try again".to_owned(),
            Self::Untrusted { .. } => "choose a data folder that only you or root can write to, all the way down, with `--data`".to_owned(),
            Self::NoInterpreter { .. } => "install Python 3.12 (3.11 and 3.13 also serve), or name one with `--python PATH`".to_owned(),
            Self::NoUv { .. } => "install uv, or a Python with pip, and try again".to_owned(),
            Self::NoNetwork { .. } => "check the network; behind a mirror or proxy set `UV_DEFAULT_INDEX`, `HTTPS_PROXY` or `SSL_CERT_FILE`".to_owned(),
            Self::Unsatisfiable { .. } => "change the requirements; only packages with ready-made wheels can be installed".to_owned(),
            Self::HashMismatch { .. } => "check the package index or mirror in use; nothing was installed".to_owned(),
            Self::DiskFull { .. } => "free some space (`core` needs about 2 GB), or choose another `--data` folder".to_owned(),
            Self::NotWritable { .. } => "run the build as the owner of the data folder, or choose another one with `--data`".to_owned(),
            Self::Tool { .. } | Self::Finish { .. } | Self::Io { .. } => return None,
        })
    }

    /// The error for a failed file operation; a full disk and a missing permission have their own variants.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if action != "read" => Self::NotWritable { path },
            _ => Self::Io { action, path, source },
        }
    }
}

fn listed(tried: &[(PathBuf, String)]) -> String {
    let lines = tried.iter().map(|(path, reason)| format!("\n  `{}`: {reason}", path.display()));
    if tried.is_empty() { "; none was there to try".to_owned() } else { format!(":{}", lines.collect::<String>()) }
}
