//! The execution object: what one run of code came to. Its JSON form is a fixed point for every surface.

use std::fmt;
use std::path::PathBuf;

use sandbox::Limits;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A language that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python with IPython's semantics.
    Python,
    /// A command line for bash.
    Shell,
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// To its end, without an error.
    Completed,
    /// By an error of its own.
    Raised,
    /// By the limit on time.
    TimedOut,
    /// By the limit on memory.
    MemoryLimit,
    /// By the limit on processes.
    ProcessLimit,
    /// By the limit on files.
    DiskLimit,
    /// By the limit on output.
    OutputLimit,
    /// By its caller.
    Interrupted,
    /// By a signal, or with its interpreter.
    Killed,
    /// Not run: policy forbids it.
    Denied,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Raised => "raised",
            Self::TimedOut => "timed out",
            Self::MemoryLimit => "ended by the memory limit",
            Self::ProcessLimit => "ended by the process limit",
            Self::DiskLimit => "ended by the disk limit",
            Self::OutputLimit => "ended by the output limit",
            Self::Interrupted => "interrupted",
            Self::Killed => "killed",
            Self::Denied => "denied",
        })
    }
}

/// One execution, as every surface shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// `exe_…`
    pub id: String,
    /// The id by which the caller addresses the session.
    pub session_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Standard output; its head and tail where it was long.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Something of stdout was left out.
    pub stdout_truncated: bool,
    /// Something of stderr was left out.
    pub stderr_truncated: bool,
    /// The value of the last expression, null when there is none.
    pub result: Option<Value>,
    /// The error, null when there is none.
    pub error: Option<ExecutionError>,
    /// What was shown: pictures, tables, documents.
    pub outputs: Vec<Output>,
    /// New and changed files.
    pub artifacts: Vec<Artifact>,
    /// Stdout, or else the value, where it is one JSON document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// The JSON Schema (2020-12) of `output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Json>,
    /// Variables of earlier executions are gone.
    pub state_lost: bool,
    /// Exit code of a shell command.
    pub exit_code: Option<i32>,
    /// Names of the limits that were reached, whether or not they ended it.
    pub limits_hit: Vec<&'static str>,
    /// The backend that isolated it.
    pub isolation: &'static str,
    /// From the code's start to its end, in milliseconds.
    pub execution_time_ms: u64,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// The limits in force.
    pub limits: Limits,
}

/// The value of the last expression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Its text form.
    pub text: String,
    /// Its JSON form, null where it has none.
    pub json: Json,
}

/// Why the code failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionError {
    /// The exception's class, `ExitStatus` for a command.
    pub name: String,
    /// Its message.
    pub message: String,
    /// The traceback with the user's own lines.
    pub traceback: String,
}

/// Something shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Media type.
    #[serde(rename = "type")]
    pub media_type: String,
    /// A file name for it.
    pub name: String,
    /// Base64 for binary types, else the text.
    pub data: String,
}

impl Output {
    /// Whether `data` is base64.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        is_binary(&self.media_type)
    }

    /// Whether it is a picture or a document, worth a file of its own.
    #[must_use]
    pub fn is_picture(&self) -> bool {
        is_picture(&self.media_type)
    }
}

/// Whether data of this media type travels as base64: IPython's rule.
pub(crate) fn is_binary(media_type: &str) -> bool {
    let text = media_type.starts_with("text/") || media_type.ends_with("+xml") || media_type.ends_with("json") || media_type == "application/javascript";
    !text
}

/// Whether this is a picture, a drawing of plotly, or another document for a viewer.
pub(crate) fn is_picture(media_type: &str) -> bool {
    media_type.starts_with("image/") || media_type == "application/pdf" || media_type == "application/vnd.plotly.v1+json"
}

/// A file that an execution made or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Within the workspace, as text.
    pub path: String,
    /// Within the workspace, as the bytes that the code chose: what addresses it where the name is not UTF-8.
    #[serde(skip)]
    pub raw_path: PathBuf,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Guessed from the name.
    pub media_type: String,
    /// Hexadecimal; null above 16 MiB.
    pub sha256: Option<String>,
    /// Where it can be read, as the surface says; a path on the command line.
    pub url: Option<String>,
}
