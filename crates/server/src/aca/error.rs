//! Refusals as this surface words them: a code and a message in the body, the code once more in a header.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{Error, ErrorKind};
use serde_json::{Value as Json, json};

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Option<String>,
    retry_after: Option<Duration>,
}

/// An error of the engine, or of whoever stands at the door, as an answer of this surface.
pub(crate) fn refusal(error: &Error) -> Response {
    Refusal::from(error).into_response()
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, retry_after: None }
    }

    /// The request is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    /// It is larger than is allowed.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// The body of a request could not be read: it is longer than allowed, or its sender has gone.
    pub(super) fn of_body(error: &axum::Error, limit: usize) -> Self {
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if inner.is::<http_body_util::LengthLimitError>() {
                return Self::too_large(if limit == 0 { "the body is too large".to_owned() } else { format!("the body may have {} MiB at most", limit >> 20) });
            }
            source = inner.source();
        }
        Self::bad("the body could not be read to its end")
    }

    /// The same, as a pool without a free place answers.
    pub(super) fn exhausted(self) -> Self {
        let retry_after = self.retry_after.or(Some(Duration::from_secs(1)));
        Self { status: StatusCode::NOT_FOUND, code: "NoMoreSessions", message: format!("there are no more sessions: {}", self.message), retry_after, ..self }
    }

    /// What it says, as the body of an answer.
    pub(super) fn body(&self) -> Json {
        json!({"error": {"code": self.code, "message": self.message}})
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let (status, code) = match error.kind {
            ErrorKind::InvalidRequest => (StatusCode::BAD_REQUEST, "InvalidRequest"),
            ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            ErrorKind::Denied => (StatusCode::FORBIDDEN, "Forbidden"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "ResourceNotFound"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "Conflict"),
            ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            ErrorKind::Limit => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        let message = error.hint.as_ref().map_or_else(|| error.message.clone(), |hint| format!("{} ({hint})", error.message));
        Self { status, code, message, detail: error.detail.clone(), retry_after: error.retry_after }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<Arc<Error>> for Refusal {
    fn from(error: Arc<Error>) -> Self {
        Self::from(error.as_ref())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = self.body();
        // By it the operator finds what the caller saw.
        if let (Some(trace), Some(error)) = (trace_id(), body.get_mut("error").and_then(|error| error.as_object_mut())) {
            if let Some(detail) = &self.detail {
                tracing::warn!(code = self.code, trace, detail, "request failed");
            }
            error.insert("traceId".to_owned(), json!(trace));
        }
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert("x-ms-error-code", HeaderValue::from_static(self.code));
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn trace_id() -> Option<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
