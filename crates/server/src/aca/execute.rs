//! Executions: both families of routes, at once or to be asked for later.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::Language;
use engine::session::{ExecuteRequest, Opened, Progressed};
use serde_json::{Map, Value};

use super::Call;
use super::answer::{self, Shape};
use super::error::Refusal;
use super::request::{MAX_SECONDS, Requested, Work};

/// Bodies may be this long: the longest code, written in the longest way that JSON has.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Names an operation, where its caller wants to.
const OPERATION: &str = "operation-id";

/// The form of an answer, which follows the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// `/code/execute`
    Code,
    /// `/python/execute`
    Python,
    /// `/executions`
    Executions,
}

pub(super) async fn execute(call: &Call<'_>, family: Family, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| Refusal::of_body(&error, MAX_BODY))?;
    let requested = Requested::parse(&body)?;
    let identifier = call.query.identifier(requested.identifier.as_deref())?;
    let shape = Shape {
        asynchronous: requested.asynchronous,
        shell: matches!(requested.work, Work::Shell(_)),
        jupyter: requested.jupyter,
        text: reads_only_text(&parts.headers),
        max_length: requested.max_length,
    };
    let opened = call.open(&identifier).await?;
    let started = opened.session.start(&call.identity.caller, execute_request(requested, &opened), None)?;
    let id = started.id.clone();
    call.app.shapes.remember(&id, shape);
    let mut headers = operation(call, &id, &identifier, &parts.headers);
    if shape.asynchronous {
        let body = match family {
            Family::Executions => answer::resource(&id, &identifier, &Progressed::Running, shape),
            Family::Code | Family::Python => answer::wrapped_running(&id),
        };
        return Ok((StatusCode::ACCEPTED, headers, Json(body)).into_response());
    }
    let finished = started.finished().await?;
    headers.extend(answer::headers(&finished, opened.allocation, opened.created, &opened.session.info().guid));
    let body = match family {
        Family::Executions => answer::resource(&id, &identifier, &Progressed::Finished(finished), shape),
        Family::Code | Family::Python => answer::wrapped(&finished.execution, shape, family == Family::Python),
    };
    Ok((headers, Json(body)).into_response())
}

/// One execution, however far it is.
pub(super) fn find(call: &Call<'_>, id: &str, asked: &HeaderMap) -> Result<Response, Refusal> {
    let identifier = call.query.identifier(None)?;
    let entry = call.find(&identifier)?.execution(id)?;
    let shape = Shape { text: reads_only_text(asked), ..call.app.shapes.of(&entry.id) };
    let headers = operation(call, &entry.id, &identifier, asked);
    Ok((headers, Json(answer::resource(&entry.id, &identifier, &entry.progress, shape))).into_response())
}

fn execute_request(requested: Requested, opened: &Opened) -> ExecuteRequest {
    let (language, code) = match requested.work {
        Work::Python(code) => (Language::Python, code),
        Work::Shell(command) => (Language::Shell, command.into_bytes()),
    };
    // What nobody asks for is the session's own, and no more than this surface has.
    let seconds = requested.seconds.unwrap_or_else(|| opened.session.info().limits.wall_seconds.min(MAX_SECONDS));
    let timeout = Some(std::time::Duration::from_secs(seconds));
    ExecuteRequest { language, code, filename: None, inputs: Map::<String, Value>::new(), fresh: requested.empty_kernel, timeout, surface: "aca" }
}

/// The .NET client of Semantic Kernel throws at a value that is no text.
fn reads_only_text(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    agent.contains("semantic-kernel") && agent.contains("dotnet")
}

/// The name of the operation, and where it can be asked for.
fn operation(call: &Call<'_>, id: &str, identifier: &str, asked: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let own = asked.get(OPERATION).filter(|value| !value.is_empty() && value.len() <= 128).cloned();
    if let Some(value) = own.or_else(|| HeaderValue::from_str(id).ok()) {
        headers.insert(OPERATION, value);
    }
    let identifier = percent_encoding::utf8_percent_encode(identifier, percent_encoding::NON_ALPHANUMERIC);
    let version = call.query.raw("api-version").unwrap_or_default();
    let location = format!("{}/executions/{id}?api-version={version}&identifier={identifier}", call.prefix);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert("operation-location", location);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_reads_only_text() {
        let of = |agent: &'static str| reads_only_text(&HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static(agent))]));
        assert!(of("Semantic-Kernel/1.0.0.0 (Language=dotnet)"));
        assert!(of("HTTP-User-Agent Semantic-Kernel/1.66 (Language=DotNet)"));
        assert!(!of("semantic-kernel-python/1.45.0 (Language=Python)"));
        assert!(!of("langchain4j-azure-dynamic-sessions"));
        assert!(!reads_only_text(&HeaderMap::new()));
    }
}
