//! The eight tools that a model gets: one entry each in [`TOOLS`], the same on every surface.
//!
//! A tool knows nothing of how it was called. What it is asked is checked before a session is made for it, and what it refuses, it refuses in words that
//! tell a model what to do instead.

mod code;
mod find;
mod lines;
mod pdf;
mod workspace;

pub(crate) use workspace::{PICTURES, Positioned};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::session::{Finished, Session, parse_path};
use engine::{Error, ErrorKind, Observer, Output};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::app::App;
use crate::identity::Identity;
use crate::json::{self, Whole};
use crate::rest::{ExecutionView, FileView, Links, open};

/// Code and commands may have this many characters.
const CODE_CHARACTERS: usize = 20_000;
/// A result shows this many characters of stdout, and of stderr.
pub(crate) const STDOUT_CHARACTERS: usize = 4000;
const STDERR_CHARACTERS: usize = 2000;

/// A tool.
pub(crate) struct Tool {
    /// Its name; exact.
    pub(crate) name: &'static str,
    /// Its name for people.
    pub(crate) title: &'static str,
    /// What it does, for a model.
    pub(crate) description: &'static str,
    /// It changes nothing.
    pub(crate) is_read_only: bool,
    /// What was there may be gone after.
    pub(crate) is_destructive: bool,
    /// Called twice, it does what it does called once.
    pub(crate) is_idempotent: bool,
    /// What comes of it.
    pub(crate) gives: Gives,
    input: fn() -> RefOr<Schema>,
    run: for<'a> fn(Scope<'a>, Json) -> BoxFuture<'a, Result<ToolResult, Error>>,
}

/// What comes of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    /// An execution.
    Execution,
    /// Files, or something of them.
    Files,
}

/// All tools.
pub(crate) const TOOLS: [Tool; 8] = [
    Tool {
        name: "ExecutePythonCode",
        title: "Execute Python code",
        description: "Runs Python code in a sandboxed session and returns what it printed, the value of its last expression, pictures it drew and files it \
                      wrote. Variables, imports and files are kept from call to call within a session. The working directory is /mnt/data: read uploaded files \
                      there by name, and write files there to hand them to the user. pandas, numpy, matplotlib and other data packages are installed; there is \
                      no internet access, packages cannot be installed, and processes cannot be started (use RunShellCommand for commands). Output is cut at \
                      4,000 characters: print summaries, not whole tables.",
        is_read_only: false,
        is_destructive: true,
        is_idempotent: false,
        gives: Gives::Execution,
        input: <code::PythonParams as PartialSchema>::schema,
        run: |scope, params| Box::pin(code::python(scope, params)),
    },
    Tool {
        name: "RunShellCommand",
        title: "Run a shell command",
        description: "Runs a command line with bash in the session's folder /mnt/data, and returns stdout, stderr and the exit status. It sees the same files as \
                      ExecutePythonCode. There is no internet access. Commands run in the foreground and end with the time-out.",
        is_read_only: false,
        is_destructive: true,
        is_idempotent: false,
        gives: Gives::Execution,
        input: <code::ShellParams as PartialSchema>::schema,
        run: |scope, params| Box::pin(code::shell(scope, params)),
    },
    Tool {
        name: "GeneratePdfReport",
        title: "Generate a PDF report",
        description: "Runs Python code that writes a PDF (with matplotlib, reportlab or fpdf2, for example), checks that a real PDF came out, and offers it \
                      under the name the user should see. The code has to write the file named by expectedOutputFilename into the working directory /mnt/data.",
        is_read_only: false,
        is_destructive: true,
        is_idempotent: false,
        gives: Gives::Execution,
        input: <pdf::Params as PartialSchema>::schema,
        run: |scope, params| Box::pin(pdf::run(scope, params)),
    },
    Tool {
        name: "ReadSessionFile",
        title: "Read a file",
        description: "Reads lines of a text file of the session, at most 2,000 a call, and tells how many lines there are. Also reads what an execution wrote \
                      in full, as outputs/<execution id>/stdout.txt and outputs/<execution id>/stderr.txt.",
        is_read_only: true,
        is_destructive: false,
        is_idempotent: true,
        gives: Gives::Files,
        input: <workspace::ReadParams as PartialSchema>::schema,
        run: |scope, params| Box::pin(workspace::read(scope, params)),
    },
    Tool {
        name: "SearchSessionFiles",
        title: "Search files",
        description: "Searches the text files of the session for a regular expression, line by line, and returns file, line number and line of each match. \
                      Narrow the search by a folder or file (path) and by file names (include, a glob such as *.py). Binary files are skipped.",
        is_read_only: true,
        is_destructive: false,
        is_idempotent: true,
        gives: Gives::Files,
        input: <find::Params as PartialSchema>::schema,
        run: |scope, params| Box::pin(find::run(scope, params)),
    },
    Tool {
        name: "ListSessionFiles",
        title: "List files",
        description: "Lists the files of the session's folder /mnt/data, or of a folder in it, with size, time of change and media type.",
        is_read_only: true,
        is_destructive: false,
        is_idempotent: true,
        gives: Gives::Files,
        input: <workspace::ListParams as PartialSchema>::schema,
        run: |scope, params| Box::pin(workspace::list(scope, params)),
    },
    Tool {
        name: "GetSessionFile",
        title: "Get a file",
        description: "Gets a file of the session to hand to the user: small pictures are shown, other files come as a link. To read text yourself, use \
                      ReadSessionFile.",
        is_read_only: true,
        is_destructive: false,
        is_idempotent: true,
        gives: Gives::Files,
        input: <workspace::GetParams as PartialSchema>::schema,
        run: |scope, params| Box::pin(workspace::get(scope, params)),
    },
    Tool {
        name: "UploadFileToSession",
        title: "Upload a file",
        description: "Writes a file into the session's folder /mnt/data, in place of one of the same name, so that code can read it by its name.",
        is_read_only: false,
        is_destructive: true,
        is_idempotent: true,
        gives: Gives::Files,
        input: <workspace::UploadParams as PartialSchema>::schema,
        run: |scope, params| Box::pin(workspace::upload(scope, params)),
    },
];

impl Tool {
    /// The JSON Schema of its parameters.
    pub(crate) fn input_schema(&self) -> Json {
        serde_json::to_value((self.input)()).unwrap_or_default()
    }
}

/// Where a tool works, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) app: &'a App,
    pub(crate) identity: &'a Identity,
    /// The pool; that the caller may use it has been checked.
    pub(crate) pool: &'a str,
    /// The session.
    pub(crate) session: &'a str,
    /// The surface it was called through, for the record.
    pub(crate) surface: &'static str,
    /// How the session's things are addressed on that surface.
    pub(crate) links: &'a Links,
    /// Who follows the execution that the tool starts.
    pub(crate) following: Option<&'a Following>,
}

/// Follows the execution that a tool starts, and can stop it.
#[derive(Default)]
pub(crate) struct Following {
    observer: Mutex<Option<Box<dyn Observer + Send>>>,
    state: Mutex<Followed>,
}

#[derive(Default)]
struct Followed {
    running: Option<(Arc<Session>, String)>,
    is_stopped: bool,
}

impl Following {
    /// Outputs go to this observer as they come, on a thread that may block.
    pub(crate) fn new(observer: Option<Box<dyn Observer + Send>>) -> Self {
        Self { observer: Mutex::new(observer), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The observer, once.
    pub(crate) fn observer(&self) -> Option<Box<dyn Observer + Send>> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Interrupts the execution: the one that runs, or the one that is yet to start. Its session keeps its state.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        if let Some((session, execution)) = &state.running {
            // Over already: then there is nothing to stop.
            let _ = session.interrupt(execution);
        }
    }

    fn started(&self, session: &Arc<Session>, execution: &str) {
        let mut state = self.lock();
        if state.is_stopped {
            let _ = session.interrupt(execution);
        }
        state.running = Some((Arc::clone(session), execution.to_owned()));
    }
}

impl Scope<'_> {
    /// The session, made where it is not there.
    async fn open(&self) -> Result<Arc<Session>, Error> {
        Ok(open(self.app, self.identity, self.pool, self.session).await?.session)
    }

    /// The session, which has to be there.
    fn find(&self) -> Result<Arc<Session>, Error> {
        let found = self.app.sessions.find(&self.identity.caller, Some(self.pool), self.session);
        found.map_err(|error| if error.kind == ErrorKind::NotFound { error.hint("run code or upload a file first: that makes the session") } else { error })
    }

    fn links(&self) -> Links {
        self.links.clone()
    }
}

/// Calls a tool.
///
/// # Errors
/// Where the tool could not do its part: what it was asked makes no sense, or the engine refuses. Code that fails is a result.
pub(crate) async fn call(scope: Scope<'_>, name: &str, params: Json) -> Result<ToolResult, Error> {
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else {
        let names = TOOLS.map(|tool| tool.name).join(", ");
        let name: String = name.chars().take(100).collect();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no tool `{name}`")).hint(format!("call one of {names}")));
    };
    (tool.run)(scope, params).await
}

/// What a tool came to.
#[derive(Debug)]
pub(crate) struct ToolResult {
    /// The tool's name.
    pub(crate) tool: &'static str,
    /// How its session's things are addressed.
    pub(crate) links: Links,
    /// It did not do what it was to do: code failed, or no PDF came out.
    pub(crate) failed: bool,
    /// Everything in words, for a model.
    pub(crate) text: String,
    /// The execution, where there was one.
    pub(crate) ran: Option<Ran>,
    /// Files to be offered: those that were made, listed, asked for or written.
    pub(crate) files: Vec<FileView>,
    /// A picture that was asked for.
    pub(crate) picture: Option<Output>,
    /// Lines that were read.
    pub(crate) lines: Option<Lines>,
    /// What was found.
    pub(crate) matches: Option<Vec<Match>>,
    /// Something was left out.
    pub(crate) incomplete: bool,
}

/// An execution with the part of its output that a tool shows.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) finished: Arc<Finished>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Lines of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lines {
    /// The file.
    pub(crate) path: String,
    /// The first line that is shown, counted from 1.
    #[schema(minimum = 0)]
    pub(crate) start_line: u64,
    /// The last line that is shown; before the first where none is.
    #[schema(minimum = 0)]
    pub(crate) end_line: u64,
    /// Lines of the file.
    #[schema(minimum = 0)]
    pub(crate) total_lines: u64,
    /// The lines.
    pub(crate) text: String,
    /// Lines were cut since they are very long.
    pub(crate) lines_cut: bool,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Match {
    /// The file.
    pub(crate) file: String,
    /// Its line, counted from 1.
    #[schema(minimum = 1)]
    pub(crate) line: u64,
    /// The line's text, cut where it is long.
    pub(crate) text: String,
}

impl ToolResult {
    fn new(tool: &'static str, links: Links, text: String) -> Self {
        let (ran, picture, lines, matches) = (None, None, None, None);
        Self { tool, links, failed: false, text, ran, files: Vec::new(), picture, lines, matches, incomplete: false }
    }

    /// As JSON.
    pub(crate) fn answer(&self) -> ToolAnswer<'_> {
        let execution = self.ran.as_ref().map(|ran| {
            let execution = &ran.finished.execution;
            let mut view = ExecutionView::linked(execution, &self.links);
            (view.stdout, view.stderr) = (&ran.stdout, &ran.stderr);
            view.stdout_truncated |= ran.stdout != execution.stdout;
            view.stderr_truncated |= ran.stderr != execution.stderr;
            view
        });
        ToolAnswer {
            tool: self.tool,
            session_id: &self.links.id,
            failed: self.failed,
            text: &self.text,
            execution,
            files: &self.files,
            picture: self.picture.as_ref(),
            lines: self.lines.as_ref(),
            matches: self.matches.as_deref(),
            incomplete: self.incomplete,
        }
    }
}

/// What a tool came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "tool": "ListSessionFiles", "sessionId": "analysis-1", "failed": false, "text": "1 entry in /mnt/data:\nsales.csv  1,234 bytes  text/csv",
    "files": [{"path": "sales.csv", "type": "file", "sizeBytes": 1234, "modifiedAt": "2026-03-01T12:00:00.000Z", "mediaType": "text/csv",
               "url": "/v1/sessions/analysis-1/files/sales.csv"}],
    "incomplete": false
}))]
pub(crate) struct ToolAnswer<'a> {
    /// The tool's name.
    tool: &'static str,
    /// The session it worked in.
    session_id: &'a str,
    /// It did not do what it was to do: code failed, or no PDF came out.
    failed: bool,
    /// Everything in words, for a model.
    text: &'a str,
    /// The execution, where there was one; stdout is cut at 4,000 characters and stderr at 2,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<ExecutionView<'a>>,
    /// Files that were made, listed, asked for or written.
    files: &'a [FileView],
    /// A picture that was asked for, where it is small.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::rest::schema::Output>)]
    picture: Option<&'a Output>,
    /// Lines that were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<&'a Lines>,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<&'a [Match]>,
    /// Something was left out.
    incomplete: bool,
}

/// Reads a tool's parameters; a refusal lists what it takes.
fn params<P: DeserializeOwned + PartialSchema>(tool: &str, params: Json) -> Result<P, Error> {
    json::from_value(params).map_err(|error| {
        let schema = serde_json::to_value(P::schema()).unwrap_or_default();
        error.hint(format!("{tool} takes {}", parameters(&schema)))
    })
}

/// The parameters of a schema in words.
fn parameters(schema: &Json) -> String {
    let required = |name: &str| schema.get("required").and_then(Json::as_array).is_some_and(|names| names.iter().any(|one| one == name));
    let properties = schema.get("properties").and_then(Json::as_object);
    let words = properties.into_iter().flatten().map(|(name, property)| {
        let kind = match property.get("type") {
            Some(Json::Array(kinds)) => kinds.iter().find(|kind| *kind != "null"),
            kind => kind,
        };
        let kind = kind.and_then(Json::as_str).unwrap_or("value");
        format!("`{name}` ({kind}, {})", if required(name) { "required" } else { "optional" })
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A path of the workspace as a model writes it.
fn path(parameter: &str, text: &str) -> Result<PathBuf, Error> {
    parse_path(text.as_bytes()).map_err(|error| {
        let message = format!("`{parameter}`: {}", error.message);
        Error { message, ..error }.hint("give a path relative to /mnt/data, such as `data.csv` or `reports/may.pdf`")
    })
}

/// A time-out within its range.
fn seconds(asked: Option<Whole>, default: u64, range: std::ops::RangeInclusive<u64>) -> Result<std::time::Duration, Error> {
    let seconds = asked.map_or(default, |Whole(seconds)| seconds);
    if range.contains(&seconds) {
        return Ok(std::time::Duration::from_secs(seconds));
    }
    let message = format!("`timeoutSeconds` is {seconds}, not within {} to {}", range.start(), range.end());
    Err(Error::new(ErrorKind::InvalidRequest, message).hint(format!("leave `timeoutSeconds` out for {default} seconds, or split the work into several calls")))
}

/// The first characters of a text, and how many there are in all where that is more.
pub(crate) fn cut(text: &str, characters: usize) -> (&str, Option<usize>) {
    match text.char_indices().nth(characters) {
        None => (text, None),
        Some((end, _)) => (text.get(..end).unwrap_or(text), Some(text.chars().count())),
    }
}

/// A number with a comma between thousands.
fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_parameters_are_those_of_the_contract() {
        let expected = [
            ("ExecutePythonCode", "`pythonCode` (string, required), `timeoutSeconds` (integer, optional)"),
            (
                "RunShellCommand",
                "`command` (string, required), `explanation` (string, optional), `isBackground` (boolean, optional), `timeoutSeconds` (integer, optional)",
            ),
            (
                "GeneratePdfReport",
                "`pythonCode` (string, required), `expectedOutputFilename` (string, required), `saveAsFilename` (string, required), \
                 `timeoutSeconds` (integer, optional)",
            ),
            ("ReadSessionFile", "`filePath` (string, required), `startLine` (integer, optional), `endLine` (integer, optional)"),
            ("SearchSessionFiles", "`pattern` (string, required), `path` (string, optional), `include` (string, optional), `maxResults` (integer, optional)"),
            ("ListSessionFiles", "`path` (string, optional), `recursive` (boolean, optional)"),
            ("GetSessionFile", "`filePath` (string, required)"),
            ("UploadFileToSession", "`fileName` (string, required), `contentBase64` (string, required)"),
        ];
        for (tool, (name, words)) in TOOLS.iter().zip(expected) {
            let schema = tool.input_schema();
            assert_eq!((tool.name, parameters(&schema).as_str()), (name, words));
            assert_eq!(schema["additionalProperties"], false, "{name}");
            assert_eq!(schema["type"], "object", "{name}");
            let properties = schema["properties"].as_object().unwrap();
            assert!(properties.values().all(|property| property["description"].is_string()), "{name}");
        }
        let bounds = |tool: usize| {
            let property = &TOOLS[tool].input_schema()["properties"]["timeoutSeconds"];
            (property["minimum"].as_u64().unwrap(), property["maximum"].as_u64().unwrap(), property["default"].as_u64().unwrap())
        };
        assert_eq!([bounds(0), bounds(1), bounds(2)], [(5, 900, 120), (5, 240, 120), (5, 900, 180)]);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let error = params::<code::PythonParams>("ExecutePythonCode", json!({"code": "1"})).unwrap_err();
        assert!(error.message.contains("unknown field `code`"), "{error}");
        assert_eq!(error.hint.unwrap(), "ExecutePythonCode takes `pythonCode` (string, required), `timeoutSeconds` (integer, optional)");
        for bad in [json!([]), json!("x"), json!(null), json!({"pythonCode": 1}), json!({})] {
            assert_eq!(params::<code::PythonParams>("ExecutePythonCode", bad).unwrap_err().kind, ErrorKind::InvalidRequest);
        }
        assert_eq!(seconds(None, 120, 5..=900).unwrap().as_secs(), 120);
        assert!(seconds(Some(Whole(4)), 120, 5..=900).unwrap_err().hint.is_some());
        assert!(seconds(Some(Whole(901)), 120, 5..=900).is_err());
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("äöü", 3), ("äöü", None));
        assert_eq!(cut("äöüx", 3), ("äöü", Some(4)));
        assert_eq!([grouped(0_u64), grouped(999_u64), grouped(1000_u64), grouped(1_234_567_u64)], ["0", "999", "1,000", "1,234,567"]);
    }
}
