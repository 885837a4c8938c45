//! Sessions: a caller's lease of one sandbox, with its variables, its files, and its executions in their order.
//!
//! [`Sessions`] finds or makes a [`Session`] for a caller; everything else is asked of the session. Blocking work is done on threads that may
//! block; the rest waits without one, so that a session that nobody uses costs its sandbox and nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sandbox::Limits;
use serde_json::{Map, Value as Json};
use tokio::sync::watch;

use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::execution::{Execution, Language};
use crate::pool::{PoolSettings, PoolStatus};

mod files;
mod history;
mod lease;
mod service;
mod share;

pub use files::{Upload, Uploaded, parse_path};
pub use lease::Session;
pub use service::Sessions;

/// Seconds that an execution may ask for.
pub const TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 1..=900;

/// A pool of sessions, as it is declared.
#[derive(Debug, Clone)]
pub struct SessionPoolSettings {
    /// Its name.
    pub name: String,
    /// The environment of its sandboxes.
    pub environment: String,
    /// How sandboxes are made and parked; the limits are those of a session that asks for no others.
    pub sandboxes: PoolSettings,
    /// Sessions at once.
    pub max_sessions: usize,
    /// A session that nobody calls for so long ends.
    pub idle_timeout: Duration,
    /// A session ends at this age, whatever it does.
    pub max_lifetime: Duration,
    /// How long a caller waits for a free place before it is refused.
    pub allocation_wait: Duration,
    /// An unknown id makes a new session.
    pub create_on_use: bool,
    /// Where it says it is.
    pub region: Option<String>,
}

/// Who asks, and how much of everything may be theirs at once.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The principal: the part of a session's key that nobody can choose.
    pub principal: Arc<str>,
    /// Sessions at once, in all pools.
    pub max_sessions: Option<usize>,
    /// Executions running or queued at once.
    pub max_executions: Option<usize>,
}

/// What may happen to an id that names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// A session is made; one that exists is a conflict.
    New,
    /// A session is made, where the pool allows that.
    IfMissing,
}

/// Limits that a caller asks for, none above the pool's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names are those of `Limits`")]
pub struct LimitsRequest {
    pub wall_seconds: Option<u64>,
    pub cpu_seconds: Option<u64>,
    pub cpus: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub processes: Option<u64>,
    pub open_files: Option<u64>,
    pub workspace_bytes: Option<u64>,
    pub workspace_inodes: Option<u64>,
    pub tmp_bytes: Option<u64>,
    pub output_bytes: Option<u64>,
}

/// What a caller may know of a session.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// The id by which its caller addresses it.
    pub id: String,
    /// The pool.
    pub pool: String,
    /// Its own id, `ses_…`, never used twice.
    pub guid: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was called last.
    pub last_accessed_at: SystemTime,
    /// When it ends if nobody calls it.
    pub expires_at: SystemTime,
    /// Executions so far.
    pub executions: u64,
    /// Something runs.
    pub busy: bool,
    /// Its environment.
    pub environment: String,
    /// Its limits.
    pub limits: Limits,
}

/// A session that was found or made.
#[derive(Debug)]
pub struct Opened {
    /// The session.
    pub session: Arc<Session>,
    /// It was made just now.
    pub created: bool,
    /// How long making it took; zero where it was there.
    pub allocation: Duration,
}

/// What to run in a session.
#[derive(Debug, Clone)]
pub struct ExecuteRequest {
    /// In which language.
    pub language: Language,
    /// The code, UTF-8 for Python.
    pub code: Vec<u8>,
    /// The name that tracebacks show, e.g. `script.py`; `None`: one that counts the session's executions.
    pub filename: Option<String>,
    /// The variable `inputs`.
    pub inputs: Map<String, Json>,
    /// Python code sees none of the session's variables, and leaves it none.
    pub fresh: bool,
    /// Time by the clock on the wall; `None`: the session's.
    pub timeout: Option<Duration>,
    /// The surface it came through, for the record.
    pub surface: &'static str,
}

/// Where the time of an execution went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Waiting for executions before it.
    pub queued: Duration,
    /// Putting it on record.
    pub recorded: Duration,
    /// The code, and looking at what it left.
    pub ran: Duration,
    /// From the request to the end.
    pub total: Duration,
}

/// An execution that is over.
#[derive(Debug)]
pub struct Finished {
    /// What it came to.
    pub execution: Execution,
    /// Where the time went.
    pub timings: Timings,
}

/// How far an execution is.
#[derive(Debug, Clone)]
pub enum Progressed {
    /// It waits for others of its session.
    Queued,
    /// It runs.
    Running,
    /// It is over.
    Finished(Arc<Finished>),
    /// We could not do our part.
    Failed(Arc<Error>),
}

/// An execution on its way. Dropping this does not stop it.
#[derive(Debug)]
pub struct Started {
    /// `exe_…`
    pub id: String,
    progress: watch::Receiver<Progressed>,
}

impl Started {
    /// Waits for its end.
    ///
    /// # Errors
    /// Where we could not do our part.
    pub async fn finished(mut self) -> Result<Arc<Finished>, Arc<Error>> {
        let over = self.progress.wait_for(|progress| matches!(progress, Progressed::Finished(_) | Progressed::Failed(_))).await;
        match over.as_deref() {
            Ok(Progressed::Finished(finished)) => Ok(Arc::clone(finished)),
            Ok(Progressed::Failed(error)) => Err(Arc::clone(error)),
            _ => Err(Arc::new(Error::new(ErrorKind::Internal, "the execution was lost"))),
        }
    }
}

/// One of a session's executions.
#[derive(Debug, Clone)]
pub struct ExecutionEntry {
    /// `exe_…`
    pub id: String,
    /// When it was asked for.
    pub requested_at: SystemTime,
    /// How far it is.
    pub progress: Progressed,
}

/// A stream of an execution, to be read whole.
pub use sandbox::Stream;

/// What an entry of the workspace is.
pub use sandbox::workspace::Kind;

/// A file or folder of the workspace.
#[derive(Debug, Clone)]
pub struct FileEntry {
    /// Path within the workspace: bytes that the code chose.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// When it was changed last.
    pub modified: SystemTime,
    /// Guessed from the name.
    pub media_type: String,
}

/// Entries of a folder, sorted by path.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The entries.
    pub entries: Vec<FileEntry>,
    /// Something was left out: too many, too deep, or not readable.
    pub incomplete: bool,
}

/// A pool as it is now.
#[derive(Debug, Clone)]
pub struct PoolNow {
    /// As declared.
    pub settings: SessionPoolSettings,
    /// Its sandboxes.
    pub sandboxes: PoolStatus,
    /// Sessions now.
    pub sessions: usize,
    /// Sessions in which something runs.
    pub busy: usize,
    /// Its environment.
    pub environment: Environment,
}

/// An id for a session whose caller names none: `ses_…`, never given twice.
///
/// # Errors
/// `internal` where the system gives no random bytes.
pub fn new_session_id() -> Result<String, Error> {
    crate::run::new_id("ses")
}

/// What a caller hears of a session that has ended, or never was.
fn no_session(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no session `{id}`")).hint("it may have ended: begin a new one")
}

impl LimitsRequest {
    /// The limits of a pool with what is asked for in their place.
    ///
    /// # Errors
    /// `invalid_request` names what is 0 or above the pool's limit.
    pub fn over(&self, pool: &Limits) -> Result<Limits, Error> {
        let mut limits = *pool;
        let counts = [
            ("wallSeconds", self.wall_seconds, &mut limits.wall_seconds),
            ("cpuSeconds", self.cpu_seconds, &mut limits.cpu_seconds),
            ("memoryBytes", self.memory_bytes, &mut limits.memory_bytes),
            ("processes", self.processes, &mut limits.processes),
            ("openFiles", self.open_files, &mut limits.open_files),
            ("workspaceBytes", self.workspace_bytes, &mut limits.workspace_bytes),
            ("workspaceInodes", self.workspace_inodes, &mut limits.workspace_inodes),
            ("tmpBytes", self.tmp_bytes, &mut limits.tmp_bytes),
            ("outputBytes", self.output_bytes, &mut limits.output_bytes),
        ];
        for (name, asked, limit) in counts {
            if let Some(asked) = asked {
                if asked == 0 || asked > *limit {
                    return Err(out_of_range(name, &asked, limit));
                }
                *limit = asked;
            }
        }
        if let Some(cpus) = self.cpus {
            if !(0.01..=limits.cpus).contains(&cpus) {
                return Err(out_of_range("cpus", &cpus, &limits.cpus));
            }
            limits.cpus = cpus;
        }
        Ok(limits)
    }
}

fn out_of_range(name: &str, asked: &dyn std::fmt::Display, limit: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("the limit `{name}` is {asked}, and the pool allows up to {limit}")).hint("ask for less, or leave it out")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_request_widens_a_limit(asked in prop::collection::vec(prop::option::of(prop_oneof![0..4_u64, any::<u64>(), Just(u64::MAX)]), 9), cpus in prop::option::of(any::<f64>())) {
            let [wall_seconds, cpu_seconds, memory_bytes, processes, open_files, workspace_bytes, workspace_inodes, tmp_bytes, output_bytes] = asked.try_into().unwrap();
            let request = LimitsRequest { wall_seconds, cpu_seconds, cpus, memory_bytes, processes, open_files, workspace_bytes, workspace_inodes, tmp_bytes, output_bytes };
            let pool = Limits::default();
            if let Ok(limits) = request.over(&pool) {
                let counts = |limits: &Limits| [
                    limits.wall_seconds, limits.cpu_seconds, limits.memory_bytes, limits.processes, limits.open_files, limits.workspace_bytes,
                    limits.workspace_inodes, limits.tmp_bytes, limits.output_bytes,
                ];
                prop_assert!(counts(&limits).iter().zip(counts(&pool)).all(|(limit, most)| (1..=most).contains(limit)));
                prop_assert!((0.01..=pool.cpus).contains(&limits.cpus));
            }
        }
    }

    #[test]
    fn limits_are_narrowed_and_never_widened() {
        let pool = Limits::default();
        let narrow = LimitsRequest { memory_bytes: Some(1 << 20), cpus: Some(0.5), ..LimitsRequest::default() };
        let limits = narrow.over(&pool).unwrap();
        assert_eq!((limits.memory_bytes, limits.cpus, limits.processes), (1 << 20, 0.5, pool.processes));
        for (wide, name) in [
            (LimitsRequest { memory_bytes: Some(pool.memory_bytes + 1), ..LimitsRequest::default() }, "memoryBytes"),
            (LimitsRequest { processes: Some(0), ..LimitsRequest::default() }, "processes"),
            (LimitsRequest { cpus: Some(f64::NAN), ..LimitsRequest::default() }, "cpus"),
            (LimitsRequest { cpus: Some(2.0), ..LimitsRequest::default() }, "cpus"),
        ] {
            let error = wide.over(&pool).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidRequest && error.message.contains(name), "{error}");
        }
    }
}
