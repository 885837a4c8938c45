//! What goes on record, and where: before it happens, and after.

use std::time::{Duration, SystemTime};

use crate::execution::{Language, Outcome};

/// An execution that is about to start.
#[derive(Debug, Clone)]
pub struct Intent {
    /// `exe_…`
    pub execution: String,
    /// Who asked.
    pub principal: String,
    /// The pool.
    pub pool: String,
    /// The session's id as its caller gave it.
    pub session: String,
    /// The session's own id, never used twice.
    pub session_guid: String,
    /// The surface it came through: `rest`, `aca`, `mcp`, `tool`, `run`.
    pub surface: &'static str,
    /// The language.
    pub language: Language,
    /// SHA-256 of the code, hexadecimal.
    pub code_sha256: String,
    /// Length of the code in bytes.
    pub code_bytes: u64,
    /// Limits in force, as JSON.
    pub limits: String,
    /// The backend that isolates it.
    pub isolation: &'static str,
    /// The environment's name.
    pub environment: String,
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub struct Concluded {
    /// `exe_…`
    pub execution: String,
    /// Who asked.
    pub principal: String,
    /// `None`: we could not do our part, and `failure` says why.
    pub outcome: Option<Outcome>,
    /// Why we could not.
    pub failure: Option<String>,
    /// Limits that were reached.
    pub limits_hit: Vec<&'static str>,
    /// From the code's start to its end.
    pub execution_time_ms: u64,
    /// How long it had waited for executions before it.
    pub queued: Duration,
}

/// Something else that happened.
#[derive(Debug, Clone)]
pub struct Note {
    /// What: `session_created`, `session_ended`, `file_written`, `file_read`, `file_removed`.
    pub kind: &'static str,
    /// Who.
    pub principal: String,
    /// The pool.
    pub pool: String,
    /// The session's id as its caller gave it.
    pub session: String,
    /// The session's own id.
    pub session_guid: String,
    /// More: a path, a reason.
    pub detail: String,
    /// How long it took, where that is of interest: the making of a session.
    pub took: Duration,
    /// When.
    pub at: SystemTime,
}

/// It could not be put on record, so it does not happen. The text is for the operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot be put on record: {0}")]
pub struct RecordError(pub String);

/// Takes the record. Blocking; called from threads that may block.
pub trait Recorder: Send + Sync {
    /// Puts an execution on record before it starts; returns once that is durable.
    ///
    /// # Errors
    /// Where it is not: the execution then does not start.
    fn intend(&self, intent: &Intent) -> Result<(), RecordError>;

    /// Puts on record how an execution ended. May return before that is durable.
    fn conclude(&self, concluded: &Concluded);

    /// Puts something else on record. May return before that is durable.
    fn note(&self, note: &Note);
}

/// Keeps nothing: for embedders that keep a record of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unrecorded;

impl Recorder for Unrecorded {
    fn intend(&self, _: &Intent) -> Result<(), RecordError> {
        Ok(())
    }

    fn conclude(&self, _: &Concluded) {}

    fn note(&self, _: &Note) {}
}
