//! What can go wrong with the store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An error of the store. Paths and causes in it are for the operator, not for callers of a server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A file or folder cannot be used at all.
    #[error("cannot {step} `{}`", path.display())]
    Place {
        /// What was tried, as a verb.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// A file or folder is there, but is not one that we trust.
    #[error("`{}` {reason}", path.display())]
    Distrusted {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Another process writes.
    #[error("the data folder `{}` is in use by {}", folder.display(), holder(*pid))]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// Who, where it could be read.
        pid: Option<u32>,
    },
    /// There is no database.
    #[error("there is no record in `{}`", folder.display())]
    NoRecord {
        /// The data folder.
        folder: PathBuf,
    },
    /// The file is something else.
    #[error("`{}` is not a database of Belljar", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file's schema is not one that this program can use.
    #[error("`{}` has schema version {found}, and this Belljar uses {known}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database refused.
    #[error("cannot {step}")]
    Database {
        /// What was tried, as a verb with its object.
        step: &'static str,
        /// Why not.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A key cannot be made like this.
    #[error("{0}")]
    InvalidKey(String),
    /// There is no key with this id.
    #[error("there is no key `{0}`")]
    NoSuchKey(String),
    /// A key is revoked from now on, but that is not durable.
    #[error("the key `{id}` is revoked until the next start only, since that cannot be written")]
    RevokedForNow {
        /// The key.
        id: String,
        /// Why not.
        #[source]
        source: Box<StoreError>,
    },
    /// The store was closed.
    #[error("the record is closed")]
    Closed,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Place { .. } => "check the folder's permissions, or name another one with `--data`".to_owned(),
            Self::Distrusted { hint, .. } => (*hint).to_owned(),
            Self::InUse { pid: Some(pid), .. } => format!("stop process {pid} first, or name another folder with `--data`"),
            Self::InUse { pid: None, .. } => "stop it first, or name another folder with `--data`".to_owned(),
            Self::NoRecord { .. } => "check `--data`; the record begins when `belljar serve` first starts".to_owned(),
            Self::Foreign { .. } => "name another folder with `--data`".to_owned(),
            Self::Schema { found, known, .. } if found > known => "use the newer Belljar that wrote it, or name another folder with `--data`".to_owned(),
            Self::Schema { .. } => "start `belljar serve` once: it brings the file up to date".to_owned(),
            Self::Database { source, .. } if is_full(source) => "free space on the disk of the data folder".to_owned(),
            Self::RevokedForNow { source, .. } => return source.hint(),
            Self::NoSuchKey(_) => "see `belljar keys list`".to_owned(),
            Self::Database { .. } | Self::InvalidKey(_) | Self::Closed => return None,
        })
    }

    pub(crate) fn place(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Place { step, path: path.to_owned(), source: Arc::new(error) }
    }

    pub(crate) fn database(step: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| Self::Database { step, source: Arc::new(error) }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
