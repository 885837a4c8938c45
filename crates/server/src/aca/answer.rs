//! What an execution came to, in the words of this surface: the types of values, the streams, both forms of the answer, and the headers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::session::{Finished, Progressed};
use engine::{Execution, Outcome, Output, Value};
use serde_json::{Map, Value as Json, json};

use super::error::Refusal;

/// Executions whose form is remembered: more than any session lets itself be asked about.
const REMEMBERED: usize = 20_000;

/// How an answer is to look, as its request said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) asynchronous: bool,
    /// A command of a shell: its status is its exit code.
    pub(super) shell: bool,
    /// The value as a notebook shows it: text, or null.
    pub(super) jupyter: bool,
    /// The value as text, whatever it is: for a client that reads nothing else.
    pub(super) text: bool,
    /// Characters of each stream.
    pub(super) max_length: Option<usize>,
}

/// The shapes of the latest executions, for those who ask later.
#[derive(Debug, Default)]
pub(crate) struct Shapes(Mutex<(HashMap<String, Shape>, VecDeque<String>)>);

impl Shapes {
    pub(super) fn remember(&self, execution: &str, shape: Shape) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (shapes, order) = &mut *kept;
        if shapes.insert(execution.to_owned(), shape).is_none() {
            order.push_back(execution.to_owned());
        }
        while order.len() > REMEMBERED {
            if let Some(oldest) = order.pop_front() {
                shapes.remove(&oldest);
            }
        }
    }

    pub(super) fn of(&self, execution: &str) -> Shape {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.get(execution).copied().unwrap_or_default()
    }
}

/// The answer of `/code/execute`. The older `/python/execute` had the same fields at its top, too.
pub(super) fn wrapped(execution: &Execution, shape: Shape, both: bool) -> Json {
    let (stdout, stderr) = streams(execution, shape);
    let mut properties = Map::new();
    properties.insert("$id".to_owned(), json!("2"));
    properties.insert("status".to_owned(), json!(if execution.outcome == Outcome::Completed { "Success" } else { "Failure" }));
    properties.insert("stdout".to_owned(), json!(stdout));
    properties.insert("stderr".to_owned(), json!(stderr));
    properties.insert("result".to_owned(), result(execution, shape));
    properties.insert("executionTimeInMilliseconds".to_owned(), json!(execution.execution_time_ms));
    let mut body = if both { properties.clone() } else { Map::new() };
    body.insert("$id".to_owned(), json!("1"));
    body.insert("properties".to_owned(), Json::Object(properties));
    Json::Object(body)
}

/// The answer of `/code/execute` for what is not over.
pub(super) fn wrapped_running(id: &str) -> Json {
    json!({"$id": "1", "properties": {"$id": "2", "operationId": id, "status": "Running", "stdout": "", "stderr": "", "result": ""}})
}

/// The resource of `/executions`.
pub(super) fn resource(id: &str, identifier: &str, progress: &Progressed, shape: Shape) -> Json {
    let kind = if shape.asynchronous { "Asynchronous" } else { "Synchronous" };
    let mut body = json!({"id": id, "identifier": identifier, "sessionId": identifier, "executionType": kind});
    let Some(fields) = body.as_object_mut() else { return body };
    let mut set = |name: &str, value: Json| fields.insert(name.to_owned(), value);
    match progress {
        Progressed::Queued => {
            set("status", json!("NotStarted"));
        }
        Progressed::Running => {
            set("status", json!("Running"));
        }
        Progressed::Failed(error) => {
            set("status", json!("Failed"));
            set("error", Refusal::from(error.as_ref()).body());
        }
        Progressed::Finished(finished) => {
            let execution = &finished.execution;
            let (stdout, stderr) = streams(execution, shape);
            set("status", json!(status(execution, shape)));
            let mut result = json!({"stdout": stdout, "stderr": stderr, "executionResult": result(execution, shape), "executionTimeInMilliseconds": execution.execution_time_ms});
            if shape.shell {
                result.as_object_mut().map(|result| result.shift_remove("executionResult"));
            }
            set("result", result);
            if let Some(error) = execution.error.as_ref().filter(|_| execution.outcome != Outcome::Completed) {
                set("error", json!({"error": {"code": error.name, "message": error.message}}));
            }
        }
    }
    body
}

fn status(execution: &Execution, shape: Shape) -> String {
    if shape.shell {
        let otherwise = match execution.outcome {
            Outcome::Completed => 0,
            // As `timeout` and the shell tell it.
            Outcome::TimedOut => 124,
            _ => 137,
        };
        return execution.exit_code.unwrap_or(otherwise).to_string();
    }
    let status = match execution.outcome {
        Outcome::Completed => "Succeeded",
        Outcome::Interrupted => "Canceled",
        _ => "Failed",
    };
    status.to_owned()
}

/// The value, typed as the service types it.
pub(super) fn result(execution: &Execution, shape: Shape) -> Json {
    let typed = match (&execution.result, last_picture(&execution.outputs)) {
        // A value with a picture beside it is a drawing's object, unless it says more than its class: the picture is what was wanted.
        (Some(value), Some(picture)) if says_little(value) => picture,
        (Some(value), _) if shape.jupyter => json!(value.text),
        (Some(value), _) => plain_value(value),
        (None, Some(picture)) => picture,
        (None, None) => match execution.outputs.iter().rfind(|output| output.media_type == "text/plain") {
            Some(shown) => json!(shown.data),
            None if shape.jupyter => Json::Null,
            None => json!(""),
        },
    };
    match typed {
        Json::String(_) | Json::Null => typed,
        other if shape.text => json!(other.to_string()),
        other => other,
    }
}

/// Numbers and truth as such, text without quotes, anything else as Python writes it.
fn plain_value(value: &Value) -> Json {
    match &value.json {
        Json::Number(_) | Json::Bool(_) | Json::String(_) => value.json.clone(),
        _ => json!(value.text),
    }
}

fn says_little(value: &Value) -> bool {
    // Not-a-number has no JSON form either.
    value.json.is_null() && value.text.parse::<f64>().is_err()
}

fn last_picture(outputs: &[Output]) -> Option<Json> {
    let picture = |raster: bool| outputs.iter().rfind(|output| output.media_type.starts_with("image/") && (output.is_binary() || !raster));
    let output = picture(true).or_else(|| picture(false))?;
    let format = output.media_type.trim_start_matches("image/").trim_end_matches("+xml");
    let data = if output.is_binary() { output.data.clone() } else { BASE64_STANDARD.encode(&output.data) };
    Some(json!({"type": "image", "format": format, "base64_data": data}))
}

/// Stdout and stderr; the second with what the execution failed of.
fn streams(execution: &Execution, shape: Shape) -> (String, String) {
    let mut stderr = execution.stderr.clone();
    let mut line = |text: &str| {
        if !stderr.is_empty() && !stderr.ends_with('\n') {
            stderr.push('\n');
        }
        stderr.push_str(text);
    };
    // A command's own exit code stands in the status.
    if let Some(error) = execution.error.as_ref().filter(|error| !(shape.shell && error.name == "ExitStatus")) {
        match error.traceback.is_empty() {
            true => line(&format!("{}: {}", error.name, error.message)),
            false => line(&without_colours(&error.traceback)),
        }
    }
    if execution.state_lost {
        line("the variables of this session are lost; its files are kept");
    }
    let (stdout, stderr) = match shape.max_length {
        // What was printed first, and what went wrong last.
        Some(length) => (first(&execution.stdout, length), last(&stderr, length)),
        None => (execution.stdout.clone(), stderr),
    };
    (stdout, stderr)
}

fn first(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

fn last(text: &str, characters: usize) -> String {
    text.chars().skip(text.chars().count().saturating_sub(characters)).collect()
}

/// Without the sequences by which terminals change colours.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Up to and with the first letter: the sequence's end.
        let end = part.find(|character: char| ('@'..='~').contains(&character)).map_or(part.len(), |end| end.saturating_add(1));
        plain.push_str(part.get(end..).unwrap_or_default());
    }
    plain
}

/// The headers of an execution: where its time went, in milliseconds, and whose session it was.
pub(super) fn headers(finished: &Finished, allocation: Duration, created: bool, guid: &str) -> HeaderMap {
    let timings = &finished.timings;
    let whole = allocation.saturating_add(timings.total);
    let reading = timings.total.saturating_sub(timings.queued).saturating_sub(timings.recorded).saturating_sub(timings.ran);
    let times = [
        ("x-ms-overall-execution-time", whole),
        ("x-ms-preparation-time", allocation.saturating_add(timings.queued).saturating_add(timings.recorded)),
        ("x-ms-execution-request-time", timings.ran),
        ("x-ms-execution-read-response-time", reading),
        ("x-ms-total-execution-service-time", timings.total),
        ("x-ms-container-execution-duration", timings.ran),
        ("x-ms-allocation-time", allocation),
    ];
    let mut headers: HeaderMap =
        times.into_iter().map(|(name, time)| (HeaderName::from_static(name), HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))).collect();
    headers.insert("x-ms-allocation-retries", HeaderValue::from_static("0"));
    headers.insert("x-ms-new-allocation", HeaderValue::from_static(if created { "true" } else { "false" }));
    if let Ok(guid) = HeaderValue::from_str(guid) {
        headers.insert("x-ms-session-guid", guid);
    }
    headers
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use engine::session::Timings;
    use engine::{ErrorKind, ExecutionError, Limits};
    use std::sync::Arc;

    pub(in super::super) fn execution() -> Execution {
        Execution {
            id: "exe_1".to_owned(),
            session_id: "abcd".to_owned(),
            outcome: Outcome::Completed,
            stdout: String::new(),
            stderr: String::new(),
            stdout_truncated: false,
            stderr_truncated: false,
            result: None,
            error: None,
            outputs: Vec::new(),
            artifacts: Vec::new(),
            output: None,
            output_schema: None,
            state_lost: false,
            exit_code: None,
            limits_hit: Vec::new(),
            isolation: "namespace",
            execution_time_ms: 8,
            started_at: String::new(),
            limits: Limits::default(),
        }
    }

    fn valued(text: &str, json: Json) -> Execution {
        Execution { result: Some(Value { text: text.to_owned(), json }), ..execution() }
    }

    fn shown(media_type: &str, data: &str) -> Output {
        Output { media_type: media_type.to_owned(), name: String::new(), data: data.to_owned() }
    }

    #[test]
    fn values_are_typed_as_the_service_types_them() {
        let plain = Shape::default();
        let jupyter = Shape { jupyter: true, ..plain };
        let text = Shape { text: true, ..plain };
        let none = execution();
        let cases = [
            (valued("42", json!(42)), json!(42), json!("42"), json!("42")),
            (valued("4.5", json!(4.5)), json!(4.5), json!("4.5"), json!("4.5")),
            (valued("True", json!(true)), json!(true), json!("True"), json!("true")),
            (valued("nan", Json::Null), json!("nan"), json!("nan"), json!("nan")),
            (valued("'nan'", json!("nan")), json!("nan"), json!("'nan'"), json!("nan")),
            (valued("''", json!("")), json!(""), json!("''"), json!("")),
            (none, json!(""), Json::Null, json!("")),
            (valued("[1, 2]", json!([1, 2])), json!("[1, 2]"), json!("[1, 2]"), json!("[1, 2]")),
            (valued("['a',\n 'b']", json!(["a", "b"])), json!("['a',\n 'b']"), json!("['a',\n 'b']"), json!("['a',\n 'b']")),
            (valued("{'a': 1}", json!({"a": 1})), json!("{'a': 1}"), json!("{'a': 1}"), json!("{'a': 1}")),
            (valued("<object object at 0x1>", Json::Null), json!("<object object at 0x1>"), json!("<object object at 0x1>"), json!("<object object at 0x1>")),
            (valued("np.float64(0.5)", json!(0.5)), json!(0.5), json!("np.float64(0.5)"), json!("0.5")),
            (
                valued("1267650600228229401496703205376", Json::Null),
                json!("1267650600228229401496703205376"),
                json!("1267650600228229401496703205376"),
                json!("1267650600228229401496703205376"),
            ),
        ];
        for (execution, as_plain, as_jupyter, as_text) in cases {
            let seen = [plain, jupyter, text].map(|shape| result(&execution, shape));
            assert_eq!(seen, [as_plain, as_jupyter, as_text], "{:?}", execution.result);
        }
    }

    #[test]
    fn the_last_picture_is_the_result_where_no_value_says_more() {
        let outputs = vec![shown("image/png", "Zmlyc3Q="), shown("text/html", "<b>"), shown("image/png", "bGFzdA=="), shown("text/plain", "table")];
        let picture = json!({"type": "image", "format": "png", "base64_data": "bGFzdA=="});
        let with = |execution: Execution| Execution { outputs: outputs.clone(), ..execution };
        assert_eq!(result(&with(execution()), Shape::default()), picture);
        assert_eq!(result(&with(valued("Text(0.5, 1.0, 'x')", Json::Null)), Shape::default()), picture);
        assert_eq!(result(&with(valued("<Figure size 640x480 with 1 Axes>", Json::Null)), Shape { jupyter: true, ..Shape::default() }), picture);
        assert_eq!(result(&with(valued("3", json!(3))), Shape::default()), json!(3));
        assert_eq!(result(&with(valued("nan", Json::Null)), Shape::default()), json!("nan"));
        // Text for a client that reads only text: the same object, written.
        assert_eq!(result(&with(execution()), Shape { text: true, ..Shape::default() }), json!(picture.to_string()));
    }

    #[test]
    fn drawings_and_texts_that_were_shown_are_results_too() {
        let svg = Execution { outputs: vec![shown("image/svg+xml", "<svg/>")], ..execution() };
        assert_eq!(result(&svg, Shape::default()), json!({"type": "image", "format": "svg", "base64_data": "PHN2Zy8+"}));
        let both = Execution { outputs: vec![shown("image/png", "eA=="), shown("image/svg+xml", "<svg/>")], ..execution() };
        assert_eq!(result(&both, Shape::default())["format"], "png");
        let table = Execution { outputs: vec![shown("text/html", "<table>"), shown("text/plain", "a  b")], ..execution() };
        assert_eq!(result(&table, Shape::default()), json!("a  b"));
    }

    fn failed() -> Execution {
        let traceback = "\u{1b}[0;31mZeroDivisionError\u{1b}[0m: division by zero".to_owned();
        let error = ExecutionError { name: "ZeroDivisionError".to_owned(), message: "division by zero".to_owned(), traceback };
        Execution { outcome: Outcome::Raised, stderr: "warned".to_owned(), error: Some(error), ..execution() }
    }

    #[test]
    fn the_old_form_has_every_key_and_the_traceback_without_colours() {
        let body = wrapped(&failed(), Shape::default(), false);
        assert_eq!(
            body,
            json!({"$id": "1", "properties": {"$id": "2", "status": "Failure", "stdout": "", "stderr": "warned\nZeroDivisionError: division by zero",
                "result": "", "executionTimeInMilliseconds": 8}})
        );
        let both = wrapped(&valued("42", json!(42)), Shape::default(), true);
        assert_eq!((&both["status"], &both["result"], &both["properties"]["result"], &both["$id"]), (&json!("Success"), &json!(42), &json!(42), &json!("1")));
    }

    fn finished(execution: Execution) -> Progressed {
        Progressed::Finished(Arc::new(Finished { execution, timings: Timings::default() }))
    }

    #[test]
    fn the_resource_has_every_state() {
        let shape = Shape { asynchronous: true, ..Shape::default() };
        let of = |progress: &Progressed| resource("exe_1", "abcd", progress, shape);
        assert_eq!(
            of(&finished(valued("42", json!(42)))),
            json!({"id": "exe_1", "identifier": "abcd", "sessionId": "abcd", "executionType": "Asynchronous", "status": "Succeeded",
                "result": {"stdout": "", "stderr": "", "executionResult": 42, "executionTimeInMilliseconds": 8}})
        );
        assert_eq!(of(&Progressed::Queued)["status"], "NotStarted");
        let running = of(&Progressed::Running);
        assert_eq!((&running["status"], running.get("result")), (&json!("Running"), None));
        let raised = of(&finished(failed()));
        assert_eq!(
            (&raised["status"], &raised["error"]["error"]["code"], &raised["result"]["executionResult"]),
            (&json!("Failed"), &json!("ZeroDivisionError"), &json!(""))
        );
        assert_eq!(of(&finished(Execution { outcome: Outcome::Interrupted, ..execution() }))["status"], "Canceled");
        let error = engine::Error::new(ErrorKind::Unavailable, "no sandbox");
        let ours = of(&Progressed::Failed(Arc::new(error)));
        assert_eq!((&ours["status"], &ours["error"]["error"]["code"]), (&json!("Failed"), &json!("ServiceUnavailable")));
    }

    #[test]
    fn the_status_of_a_command_is_its_exit_code() {
        let shell = Shape { shell: true, ..Shape::default() };
        let exit =
            |code: i32| ExecutionError { name: "ExitStatus".to_owned(), message: format!("the command ended with exit code {code}"), traceback: String::new() };
        let of = |execution: Execution| resource("exe_1", "abcd", &finished(execution), shell);
        let three = of(Execution { outcome: Outcome::Raised, exit_code: Some(3), error: Some(exit(3)), stderr: "oops\n".to_owned(), ..execution() });
        assert_eq!((&three["status"], &three["result"]), (&json!("3"), &json!({"stdout": "", "stderr": "oops\n", "executionTimeInMilliseconds": 8})));
        assert_eq!(of(Execution { exit_code: Some(0), ..execution() })["status"], "0");
        let limit = ExecutionError { name: "TimeLimit".to_owned(), message: "the time limit was reached".to_owned(), traceback: String::new() };
        let late = of(Execution { outcome: Outcome::TimedOut, error: Some(limit), ..execution() });
        assert_eq!((&late["status"], &late["result"]["stderr"]), (&json!("124"), &json!("TimeLimit: the time limit was reached")));
    }

    #[test]
    fn streams_are_cut_where_that_was_asked_for() {
        let shape = Shape { max_length: Some(3), ..Shape::default() };
        let long = Execution { stdout: "äöüß".to_owned(), stderr: "wxyz".to_owned(), ..execution() };
        assert_eq!(streams(&long, shape), ("äöü".to_owned(), "xyz".to_owned()));
        assert_eq!(streams(&long, Shape { max_length: Some(0), ..shape }), (String::new(), String::new()));
        let lost = Execution { state_lost: true, ..execution() };
        assert!(streams(&lost, Shape::default()).1.contains("lost"));
    }

    #[test]
    fn times_are_whole_milliseconds() {
        let timings =
            Timings { queued: Duration::from_millis(1), recorded: Duration::from_millis(2), ran: Duration::from_micros(4900), total: Duration::from_millis(9) };
        let headers = headers(&Finished { execution: execution(), timings }, Duration::from_millis(20), true, "ses_1");
        let number = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
        let names = ["overall-execution-time", "preparation-time", "execution-request-time", "execution-read-response-time", "total-execution-service-time"];
        assert_eq!(names.map(|name| number(&format!("x-ms-{name}"))), [29, 23, 4, 1, 9]);
        assert_eq!(["container-execution-duration", "allocation-time", "allocation-retries"].map(|name| number(&format!("x-ms-{name}"))), [4, 20, 0]);
        assert_eq!((&headers["x-ms-new-allocation"], &headers["x-ms-session-guid"]), (&HeaderValue::from_static("true"), &HeaderValue::from_static("ses_1")));
    }

    #[test]
    fn shapes_are_forgotten_in_their_order() {
        let shapes = Shapes::default();
        let shell = Shape { shell: true, ..Shape::default() };
        for number in 0..=REMEMBERED {
            shapes.remember(&number.to_string(), shell);
        }
        assert_eq!((shapes.of("0"), shapes.of("1"), shapes.of(&REMEMBERED.to_string())), (Shape::default(), shell, shell));
    }
}
