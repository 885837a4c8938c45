//! The JSON forms of what callers see, with their schemas.

use std::path::Path;
use std::time::SystemTime;

use engine::session::{ExecutionEntry, FileEntry, Finished, Kind, Progressed, SessionInfo};
use engine::{Error, Execution, ExecutionError, Limits, Output, Value};
use serde::Serialize;
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::call::Links;
use crate::error;

/// RFC 3339, UTC.
pub(crate) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session, example = json!({
    "id": "analysis-1", "pool": "default", "environment": "core", "createdAt": "2026-03-01T12:00:00.000Z", "lastAccessedAt": "2026-03-01T12:00:05.000Z",
    "expiresAt": "2026-03-01T12:30:05.000Z", "executions": 2, "busy": false, "limits": {"wallSeconds": 120}, "url": "/v1/sessions/analysis-1"
}))]
pub(crate) struct SessionView {
    /// The id by which its caller addresses it.
    id: String,
    /// The pool it came from.
    pool: String,
    /// Its environment: an interpreter with its packages.
    environment: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was called last.
    #[schema(format = DateTime)]
    last_accessed_at: String,
    /// When it ends if nobody calls it.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Executions so far.
    #[schema(minimum = 0)]
    executions: u64,
    /// Something runs.
    busy: bool,
    /// What it and its executions may use.
    #[schema(value_type = schema::Limits)]
    limits: Limits,
    /// Where it is addressed, relative to the server.
    url: String,
}

impl SessionView {
    pub(crate) fn of(info: &SessionInfo, links: &Links) -> Self {
        Self {
            id: info.id.clone(),
            pool: info.pool.clone(),
            environment: info.environment.clone(),
            created_at: time(info.created_at),
            last_accessed_at: time(info.last_accessed_at),
            expires_at: time(info.expires_at),
            executions: info.executions,
            busy: info.busy,
            limits: info.limits,
            url: links.session(),
        }
    }
}

/// The sessions of a caller.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionList)]
pub(crate) struct SessionList {
    /// By the time they were made.
    pub(crate) sessions: Vec<SessionView>,
}

/// One run of code, and what it came to. Code that fails is an outcome, not an error of the request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Execution, example = json!({
    "id": "exe_3f1c9ab27de54c08a1b2c3d4e5f60718", "sessionId": "analysis-1", "outcome": "completed", "stdout": "{\"total\": 42}\n", "stderr": "",
    "stdoutTruncated": false, "stderrTruncated": false, "result": {"text": "42", "json": 42}, "error": null, "outputs": [],
    "artifacts": [{"path": "chart.png", "sizeBytes": 1234, "mediaType": "image/png", "sha256": null, "url": "/v1/sessions/analysis-1/files/chart.png"}],
    "output": {"total": 42}, "outputSchema": {"type": "object"}, "stateLost": false, "exitCode": null, "limitsHit": [], "isolation": "namespace",
    "executionTimeMs": 12, "startedAt": "2026-03-01T12:00:00.000Z", "limits": {"wallSeconds": 120}
}))]
pub(crate) struct ExecutionView<'a> {
    /// `exe_…`
    id: &'a str,
    /// The id by which the caller addresses the session.
    session_id: &'a str,
    /// How it ended.
    #[schema(value_type = schema::Outcome)]
    outcome: engine::Outcome,
    /// Standard output; its head and tail where it was long.
    pub(crate) stdout: &'a str,
    /// Standard error, likewise.
    pub(crate) stderr: &'a str,
    /// Something of stdout was left out.
    pub(crate) stdout_truncated: bool,
    /// Something of stderr was left out.
    pub(crate) stderr_truncated: bool,
    /// The value of the last expression, null when there is none.
    #[schema(value_type = Option<schema::LastValue>, required)]
    result: Option<&'a Value>,
    /// The error of the code, null when there is none.
    #[schema(value_type = Option<schema::ExecutionError>, required)]
    error: Option<&'a ExecutionError>,
    /// What was shown: pictures, tables, documents.
    #[schema(value_type = Vec<schema::Output>)]
    outputs: &'a [Output],
    /// New and changed files.
    pub(crate) artifacts: Vec<ArtifactView<'a>>,
    /// Stdout, or else the result, where it is one JSON document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    output: Option<&'a Json>,
    /// The JSON Schema (2020-12) of `output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    output_schema: Option<&'a Json>,
    /// Variables of earlier executions are gone.
    state_lost: bool,
    /// Exit code of a shell command.
    #[schema(required)]
    exit_code: Option<i32>,
    /// Names of the limits that were reached, whether or not they ended it.
    #[schema(value_type = Vec<String>)]
    limits_hit: &'a [&'static str],
    /// The backend that isolated it.
    isolation: &'static str,
    /// From the code's start to its end, in milliseconds.
    #[schema(minimum = 0)]
    execution_time_ms: u64,
    /// When it started.
    #[schema(format = DateTime)]
    started_at: &'a str,
    /// The limits in force.
    #[schema(value_type = schema::Limits)]
    limits: Limits,
}

impl<'a> ExecutionView<'a> {
    /// `link` says where an artifact is read.
    pub(crate) fn of(execution: &'a Execution, session_id: &'a str, link: impl Fn(&Path) -> Option<String>) -> Self {
        let artifacts = execution.artifacts.iter().map(|artifact| ArtifactView::of(artifact, link(&artifact.raw_path))).collect();
        Self {
            id: &execution.id,
            session_id,
            outcome: execution.outcome,
            stdout: &execution.stdout,
            stderr: &execution.stderr,
            stdout_truncated: execution.stdout_truncated,
            stderr_truncated: execution.stderr_truncated,
            result: execution.result.as_ref(),
            error: execution.error.as_ref(),
            outputs: &execution.outputs,
            artifacts,
            output: execution.output.as_ref(),
            output_schema: execution.output_schema.as_ref(),
            state_lost: execution.state_lost,
            exit_code: execution.exit_code,
            limits_hit: &execution.limits_hit,
            isolation: execution.isolation,
            execution_time_ms: execution.execution_time_ms,
            started_at: &execution.started_at,
            limits: execution.limits,
        }
    }

    /// With links into a session that is still there.
    pub(crate) fn linked(execution: &'a Execution, links: &'a Links) -> Self {
        Self::of(execution, &links.id, |path| Some(links.file(path)))
    }
}

/// A file that an execution made or changed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Artifact)]
pub(crate) struct ArtifactView<'a> {
    /// Within the workspace, as text; a name that is not UTF-8 is addressed by its `url`.
    path: &'a str,
    /// Size in bytes.
    #[schema(minimum = 0)]
    size_bytes: u64,
    /// Guessed from the name.
    media_type: &'a str,
    /// Of the content, hexadecimal; null above 16 MiB.
    #[schema(required)]
    sha256: Option<&'a str>,
    /// Where it is read, relative to the server; a `data:` URL or null where the session is gone already.
    #[schema(required)]
    pub(crate) url: Option<String>,
}

impl<'a> ArtifactView<'a> {
    pub(crate) fn of(artifact: &'a engine::Artifact, url: Option<String>) -> Self {
        Self { path: &artifact.path, size_bytes: artifact.size_bytes, media_type: &artifact.media_type, sha256: artifact.sha256.as_deref(), url }
    }
}

/// How far an execution is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It waits for others of its session.
    Queued,
    /// It runs.
    Running,
    /// It is over.
    Finished,
    /// The service could not do its part.
    Failed,
}

/// One of a session's executions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExecutionEntry)]
pub(crate) struct EntryView<'a> {
    /// `exe_…`
    id: &'a str,
    /// How far it is.
    status: Status,
    /// When it was asked for.
    #[schema(format = DateTime)]
    requested_at: String,
    /// How it ended, once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Outcome>)]
    outcome: Option<engine::Outcome>,
    /// The whole execution, once it is over, where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<ExecutionView<'a>>,
    /// Why the service could not do its part.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ErrorDetail>)]
    error: Option<Json>,
}

impl<'a> EntryView<'a> {
    /// `links` where the whole execution is wanted.
    pub(crate) fn of(entry: &'a ExecutionEntry, links: Option<&'a Links>) -> Self {
        let (status, finished, failed): (_, Option<&'a Finished>, Option<&Error>) = match &entry.progress {
            Progressed::Queued => (Status::Queued, None, None),
            Progressed::Running => (Status::Running, None, None),
            Progressed::Finished(finished) => (Status::Finished, Some(finished), None),
            Progressed::Failed(error) => (Status::Failed, None, Some(error)),
        };
        Self {
            id: &entry.id,
            status,
            requested_at: time(entry.requested_at),
            outcome: finished.map(|finished| finished.execution.outcome),
            execution: finished.and_then(|finished| links.map(|links| ExecutionView::linked(&finished.execution, links))),
            error: failed.map(|error| json!({"code": error::status(error.kind).0, "message": error.message, "hint": error.hint})),
        }
    }
}

/// The latest executions of a session.
#[derive(Serialize, ToSchema)]
#[schema(as = ExecutionList)]
pub(crate) struct EntryList<'a> {
    /// Oldest first.
    pub(crate) executions: Vec<EntryView<'a>>,
}

/// What an entry of the workspace is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A link, pipe or socket: listed, never opened.
    Other,
}

/// A file or folder of the workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = File, example = json!({
    "path": "data/sales.csv", "type": "file", "sizeBytes": 1234, "modifiedAt": "2026-03-01T12:00:00.000Z", "mediaType": "text/csv",
    "url": "/v1/sessions/analysis-1/files/data/sales.csv"
}))]
pub(crate) struct FileView {
    /// Within the workspace, as text; a name that is not UTF-8 is addressed by its `url`.
    pub(crate) path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub(crate) kind: FileKind,
    /// Size in bytes.
    #[schema(minimum = 0)]
    pub(crate) size_bytes: u64,
    /// When it was changed last.
    #[schema(format = DateTime)]
    pub(crate) modified_at: String,
    /// Guessed from the name.
    pub(crate) media_type: String,
    /// Where it is read, relative to the server: a file's bytes, a folder's entries; null for what cannot be opened.
    #[schema(required)]
    pub(crate) url: Option<String>,
}

impl FileView {
    pub(crate) fn of(entry: &FileEntry, links: &Links) -> Self {
        let (kind, url) = match entry.kind {
            Kind::File => (FileKind::File, Some(links.file(&entry.path))),
            Kind::Folder => (FileKind::Folder, Some(links.files(&format!("path={}", super::call::encode_path(&entry.path))))),
            Kind::Other => (FileKind::Other, None),
        };
        Self {
            path: entry.path.to_string_lossy().into_owned(),
            kind,
            size_bytes: entry.size,
            modified_at: time(entry.modified),
            media_type: entry.media_type.clone(),
            url,
        }
    }
}

/// Entries of a folder.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FileList)]
pub(crate) struct FileList {
    /// By path.
    pub(crate) files: Vec<FileView>,
    /// The next page, relative to the server; null on the last.
    #[schema(required)]
    pub(crate) next: Option<String>,
    /// Something was left out: too many, too deep, or not readable.
    pub(crate) incomplete: bool,
}

/// Schemas of the engine's own forms, which know nothing of schemas. A test holds them to what the engine writes.
pub(crate) mod schema {
    #![expect(dead_code, reason = "only their schemas are used")]
    use serde::Serialize;
    use utoipa::ToSchema;

    /// An error of the service.
    #[derive(Serialize, ToSchema)]
    #[schema(example = json!({"error": {"code": "not_found", "message": "there is no session `x`", "hint": "create it first"}}))]
    pub(crate) struct ErrorBody {
        /// What went wrong.
        pub(crate) error: ErrorDetail,
    }

    /// What went wrong.
    #[derive(Serialize, ToSchema)]
    #[schema(as = Error)]
    pub(crate) struct ErrorDetail {
        /// What kind of error it is.
        pub(crate) code: ErrorCode,
        /// What failed, on what object.
        pub(crate) message: String,
        /// What to do about it.
        #[schema(required = false)]
        pub(crate) hint: Option<String>,
    }

    /// Kinds of errors.
    #[derive(Serialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub(crate) enum ErrorCode {
        InvalidRequest,
        Unauthenticated,
        Denied,
        NotFound,
        Conflict,
        TooLarge,
        Limit,
        Internal,
        Unavailable,
    }

    /// How an execution ended.
    #[derive(Serialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub(crate) enum Outcome {
        Completed,
        Raised,
        TimedOut,
        MemoryLimit,
        ProcessLimit,
        DiskLimit,
        OutputLimit,
        Interrupted,
        Killed,
        Denied,
    }

    /// The value of the last expression.
    #[derive(Serialize, ToSchema)]
    pub(crate) struct LastValue {
        /// Its text form.
        pub(crate) text: String,
        /// Its JSON form, null where it has none.
        pub(crate) json: serde_json::Value,
    }

    /// Why the code failed.
    #[derive(Serialize, ToSchema)]
    pub(crate) struct ExecutionError {
        /// The exception's class, `ExitStatus` for a command.
        pub(crate) name: String,
        /// Its message.
        pub(crate) message: String,
        /// The traceback with the user's own lines.
        pub(crate) traceback: String,
    }

    /// Something shown.
    #[derive(Serialize, ToSchema)]
    pub(crate) struct Output {
        /// Media type.
        #[serde(rename = "type")]
        pub(crate) media_type: String,
        /// A file name for it.
        pub(crate) name: String,
        /// Base64 for binary types, else the text.
        pub(crate) data: String,
    }

    /// What a session and its executions may use.
    #[derive(Serialize, ToSchema)]
    #[serde(rename_all = "camelCase")]
    #[schema(example = json!({
        "wallSeconds": 120, "cpuSeconds": 120, "cpus": 1.0, "memoryBytes": 536_870_912, "processes": 128, "openFiles": 1024,
        "workspaceBytes": 268_435_456, "workspaceInodes": 100_000, "tmpBytes": 67_108_864, "outputBytes": 16_777_216
    }))]
    pub(crate) struct Limits {
        /// Time of one execution by the clock on the wall.
        #[schema(minimum = 0)]
        pub(crate) wall_seconds: u64,
        /// CPU time of one execution, all its processes together.
        #[schema(minimum = 0)]
        pub(crate) cpu_seconds: u64,
        /// CPUs used at once.
        pub(crate) cpus: f64,
        /// Memory of all processes, without files.
        #[schema(minimum = 0)]
        pub(crate) memory_bytes: u64,
        /// Processes and threads at once.
        #[schema(minimum = 0)]
        pub(crate) processes: u64,
        /// Open files of one process.
        #[schema(minimum = 0)]
        pub(crate) open_files: u64,
        /// Size of the workspace.
        #[schema(minimum = 0)]
        pub(crate) workspace_bytes: u64,
        /// Files and folders in the workspace.
        #[schema(minimum = 0)]
        pub(crate) workspace_inodes: u64,
        /// Size of `/tmp` and of `/dev/shm`, each.
        #[schema(minimum = 0)]
        pub(crate) tmp_bytes: u64,
        /// What one execution may write to stdout and stderr before it is ended.
        #[schema(minimum = 0)]
        pub(crate) output_bytes: u64,
    }

    /// Limits that are asked for, none above the pool's own.
    #[derive(Serialize, ToSchema)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[schema(example = json!({"wallSeconds": 60, "memoryBytes": 268_435_456}))]
    pub(crate) struct LimitsRequest {
        /// Time of one execution by the clock on the wall.
        #[schema(minimum = 1)]
        pub(crate) wall_seconds: Option<u64>,
        /// CPU time of one execution.
        #[schema(minimum = 1)]
        pub(crate) cpu_seconds: Option<u64>,
        /// CPUs used at once.
        #[schema(exclusive_minimum = 0)]
        pub(crate) cpus: Option<f64>,
        /// Memory of all processes, without files.
        #[schema(minimum = 1)]
        pub(crate) memory_bytes: Option<u64>,
        /// Processes and threads at once.
        #[schema(minimum = 1)]
        pub(crate) processes: Option<u64>,
        /// Open files of one process.
        #[schema(minimum = 1)]
        pub(crate) open_files: Option<u64>,
        /// Size of the workspace.
        #[schema(minimum = 1)]
        pub(crate) workspace_bytes: Option<u64>,
        /// Files and folders in the workspace.
        #[schema(minimum = 1)]
        pub(crate) workspace_inodes: Option<u64>,
        /// Size of `/tmp` and of `/dev/shm`, each.
        #[schema(minimum = 1)]
        pub(crate) tmp_bytes: Option<u64>,
        /// What one execution may write before it is ended.
        #[schema(minimum = 1)]
        pub(crate) output_bytes: Option<u64>,
    }
}
