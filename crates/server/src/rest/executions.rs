//! Executions: code to run, what it came to, what it wrote, and the way to stop it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::session::{ExecuteRequest, Opened, Timings};
use engine::{Error, ErrorKind, Language, Stream};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::Body;
use super::call::{self, Call, Links};
use super::download::{self, Content};
use super::events;
use super::view::{EntryList, EntryView, ExecutionView};
use crate::error::ApiError;
use crate::json::Whole;

/// Name of this surface, for the record.
pub(crate) const SURFACE: &str = "rest";
/// Code may be this long, in bytes.
pub(crate) const CODE_BYTES: usize = 1024 * 1024;
/// The body may be this long: code whose every character is escaped, and some inputs.
const BODY_BYTES: usize = 8 * CODE_BYTES;
/// Seconds an execution may be given.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=900;

/// A language that can be run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Language)]
pub(crate) enum LanguageName {
    /// Python with IPython's semantics.
    #[default]
    Python,
    /// A command line for bash.
    Shell,
}

/// What to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ExecuteRequest, example = json!({"code": "total = sum(inputs['values'])\ntotal", "inputs": {"values": [1, 2, 3]}, "timeoutSeconds": 60}))]
pub(crate) struct ExecuteBody {
    /// In which language.
    #[serde(default)]
    #[schema(value_type = Option<LanguageName>)]
    pub(crate) language: Option<LanguageName>,
    /// The code, at most 1 MiB.
    #[schema(min_length = 1, max_length = 1_048_576)]
    pub(crate) code: String,
    /// How long it may run.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 900)]
    pub(crate) timeout_seconds: Option<Whole>,
    /// Readable in Python as the variable `inputs`.
    #[schema(value_type = Option<Object>)]
    pub(crate) inputs: Option<Map<String, Value>>,
    /// The name that tracebacks and `__file__` show, such as `script.py`.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^/\\u0000-\\u001f\\u007f]+$")]
    pub(crate) file_name: Option<String>,
    /// The pool of the session, where it is not the default one.
    pub(crate) pool: Option<String>,
}

/// Checks what is to be run, before a session is made for it.
pub(crate) fn request(
    language: Option<LanguageName>,
    code: String,
    timeout: Option<Whole>,
    inputs: Option<Map<String, Value>>,
) -> Result<ExecuteRequest, Error> {
    if code.is_empty() {
        return Err(Error::new(ErrorKind::InvalidRequest, "`code` is empty"));
    }
    if code.len() > CODE_BYTES {
        let message = format!("`code` has {} bytes, {CODE_BYTES} are allowed", code.len());
        return Err(Error::new(ErrorKind::TooLarge, message).hint("upload it as a file and import it"));
    }
    let timeout = timeout.map(|Whole(seconds)| {
        if SECONDS.contains(&seconds) {
            return Ok(Duration::from_secs(seconds));
        }
        Err(Error::new(ErrorKind::InvalidRequest, format!("`timeoutSeconds` is {seconds}, not within {} to {}", SECONDS.start(), SECONDS.end())))
    });
    let language = match language.unwrap_or_default() {
        LanguageName::Python => Language::Python,
        LanguageName::Shell => Language::Shell,
    };
    Ok(ExecuteRequest {
        language,
        code: code.into_bytes(),
        filename: None,
        inputs: inputs.unwrap_or_default(),
        fresh: false,
        timeout: timeout.transpose()?,
        surface: SURFACE,
    })
}

/// Checks the name that the code goes by.
fn file_name(name: Option<String>) -> Result<Option<String>, Error> {
    match name {
        Some(name) if name.is_empty() || name.chars().count() > 255 || name.contains(|letter: char| letter == '/' || letter.is_ascii_control()) => {
            Err(Error::new(ErrorKind::InvalidRequest, "`fileName` is not a file's name").hint("send 1 to 255 characters without `/` and control characters"))
        }
        name => Ok(name),
    }
}

/// Run code
///
/// Runs code in a session, after the executions of that session which were asked for before. A session that is not there is made, where the pool
/// allows it. The answer is the execution, when it is over; code that fails is an outcome, and the status is 200 then too. With
/// `Accept: text/event-stream` everything comes as it happens: `started` (with the execution's id), `stdout`, `stderr`, `display`, `result`,
/// `error`, `artifact`, and at last `done` with the whole execution, or `failed` with an error of the service. A reader that is too slow is cut off;
/// the execution goes on either way, and can be fetched later.
#[utoipa::path(
    post,
    path = "/v1/sessions/{id}/executions",
    operation_id = "execute",
    tag = "executions",
    params(("id" = String, Path, description = "The session's id"), ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")),
    request_body = ExecuteBody,
    responses((status = 200, description = "What it came to", content((ExecutionView<'static> = "application/json"), (String = "text/event-stream"))))
)]
pub(crate) async fn execute(call: Call, headers: HeaderMap, Body(body): Body<ExecuteBody, BODY_BYTES>) -> Result<Response, ApiError> {
    let query = call.query(&["pool"])?;
    let pool = call.pool(&query, body.pool.as_deref())?;
    let id = call.part(2)?;
    let request = ExecuteRequest { filename: file_name(body.file_name)?, ..request(body.language, body.code, body.timeout_seconds, body.inputs)? };
    let Opened { session, allocation, .. } = call::open(&call.app, &call.identity, &pool, &id).await?;
    let links = Links::new(&call.app, &pool, &id);
    if wants_events(&headers) {
        let (watcher, reader) = events::channel();
        let started = session.start(&call.identity.caller, request, Some(watcher))?;
        return Ok(reader.into_response(started, links));
    }
    let finished = session.start(&call.identity.caller, request, None)?.finished().await?;
    let timing = [(header::HeaderName::from_static("server-timing"), timing(allocation, &finished.timings))];
    Ok((timing, Json(ExecutionView::linked(&finished.execution, &links))).into_response())
}

/// Where the time went, in milliseconds, as `Server-Timing` has it.
fn timing(allocation: Duration, timings: &Timings) -> String {
    let parts = [("allocation", allocation), ("queue", timings.queued), ("record", timings.recorded), ("execution", timings.ran), ("total", timings.total)];
    parts.map(|(name, time)| format!("{name};dur={:.3}", time.as_secs_f64() * 1000.0)).join(", ")
}

/// Whether events are preferred to JSON.
fn wants_events(headers: &HeaderMap) -> bool {
    let weight = |wanted: &str| {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = values.flat_map(|value| value.split(',')).filter_map(|range| {
            let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
            let q = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q=")).map_or(Some(1.0), |q| q.trim().parse::<f32>().ok())?;
            kind.trim().eq_ignore_ascii_case(wanted).then_some(q)
        });
        ranges.fold(0.0, f32::max)
    };
    let events = weight("text/event-stream");
    events > 0.0 && events >= weight("application/json")
}

/// List executions
///
/// The latest executions of a session, without what they wrote.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}/executions",
    operation_id = "listExecutions",
    tag = "executions",
    params(("id" = String, Path, description = "The session's id"), ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")),
    responses((status = 200, description = "The latest executions", body = EntryList<'static>))
)]
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let place = call.session(&call.query(&["pool"])?)?;
    let entries = place.session.executions();
    Ok(Json(EntryList { executions: entries.iter().map(|entry| EntryView::of(entry, None)).collect() }).into_response())
}

/// Get an execution
///
/// How far it is, and once it is over, what it came to.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}/executions/{exe}",
    operation_id = "getExecution",
    tag = "executions",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("exe" = String, Path, description = "The execution's id"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")
    ),
    responses((status = 200, description = "The execution", body = EntryView<'static>))
)]
pub(crate) async fn show(call: Call) -> Result<Response, ApiError> {
    let place = call.session(&call.query(&["pool"])?)?;
    let entry = place.session.execution(&call.part(4)?)?;
    Ok(Json(EntryView::of(&entry, Some(&place.links))).into_response())
}

/// Interrupt an execution
///
/// Stops an execution; variables are kept. Asked a second time, it is killed, and variables are lost. An execution that is over is left as it is.
#[utoipa::path(
    post,
    path = "/v1/sessions/{id}/executions/{exe}/interrupt",
    operation_id = "interrupt",
    tag = "executions",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("exe" = String, Path, description = "The execution's id"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")
    ),
    responses((status = 202, description = "It will end", body = EntryView<'static>))
)]
pub(crate) async fn interrupt(call: Call) -> Result<Response, ApiError> {
    let place = call.session(&call.query(&["pool"])?)?;
    let id = call.part(4)?;
    place.session.interrupt(&id)?;
    let entry = place.session.execution(&id)?;
    Ok((StatusCode::ACCEPTED, Json(EntryView::of(&entry, None))).into_response())
}

/// Read stdout whole
///
/// All that an execution wrote to stdout, however long, once it is over. Ranges are answered.
#[utoipa::path(
    method(get, head),
    path = "/v1/sessions/{id}/executions/{exe}/stdout",
    operation_id = "readStdout",
    tag = "executions",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("exe" = String, Path, description = "The execution's id"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-999`")
    ),
    responses((status = 200, description = "The text", content_type = "text/plain", body = String), (status = 206, description = "A part of it", content_type = "text/plain", body = String))
)]
pub(crate) async fn stdout(call: Call, headers: HeaderMap) -> Result<Response, ApiError> {
    written(&call, &headers, Stream::Stdout).await
}

/// Read stderr whole
///
/// All that an execution wrote to stderr, however long, once it is over. Ranges are answered.
#[utoipa::path(
    method(get, head),
    path = "/v1/sessions/{id}/executions/{exe}/stderr",
    operation_id = "readStderr",
    tag = "executions",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("exe" = String, Path, description = "The execution's id"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-999`")
    ),
    responses((status = 200, description = "The text", content_type = "text/plain", body = String), (status = 206, description = "A part of it", content_type = "text/plain", body = String))
)]
pub(crate) async fn stderr(call: Call, headers: HeaderMap) -> Result<Response, ApiError> {
    written(&call, &headers, Stream::Stderr).await
}

async fn written(call: &Call, headers: &HeaderMap, stream: Stream) -> Result<Response, ApiError> {
    let place = call.session(&call.query(&["pool"])?)?;
    let execution = call.part(4)?;
    let file = place.session.written(&execution, stream)?;
    let name = if stream == Stream::Stdout { "stdout.txt" } else { "stderr.txt" };
    let size = file.metadata().map_err(|error| download::unreadable(&error))?.len();
    let tag = format!("\"{execution}-{name}\"");
    let content =
        Content { file, size, modified: None, tag, media_type: "text/plain; charset=utf-8".to_owned(), name: format!("{execution}-{name}").into_bytes() };
    Ok(content.into_response(headers)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        wants_events(&headers)
    }

    #[test]
    fn events_where_they_are_wanted() {
        assert!(!wants_events(&HeaderMap::new()));
        for value in ["text/event-stream", "Text/Event-Stream", "application/json;q=0.5, text/event-stream", "text/event-stream;q=0.1, */*"] {
            assert!(accepts(value), "{value}");
        }
        for value in ["*/*", "application/json", "text/event-stream;q=0", "application/json, text/event-stream;q=0.9", "text/*", "text/event-stream;q=x"] {
            assert!(!accepts(value), "{value}");
        }
    }

    #[test]
    fn bounds_are_checked_before_a_session_is_made() {
        let check = |code: &str, seconds| request(None, code.to_owned(), Some(Whole(seconds)), None);
        assert_eq!(check("", 1).unwrap_err().kind, ErrorKind::InvalidRequest);
        assert_eq!(check(&"#".repeat(CODE_BYTES + 1), 1).unwrap_err().kind, ErrorKind::TooLarge);
        assert!(check(&"#".repeat(CODE_BYTES), 1).is_ok());
        for bad in ["", "a/b", "a\nb", "\u{7f}", &"x".repeat(256)] {
            assert!(file_name(Some(bad.to_owned())).is_err(), "{bad:?}");
        }
        assert_eq!(file_name(Some("ä b.py".to_owned())).unwrap().as_deref(), Some("ä b.py"));
        assert!(check("1", 0).is_err() && check("1", 901).is_err());
        assert_eq!(check("1", 900).unwrap().timeout, Some(Duration::from_secs(900)));
        assert_eq!(request(Some(LanguageName::Shell), "ls".to_owned(), None, None).unwrap().language, Language::Shell);
    }
}
