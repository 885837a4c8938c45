//! Errors of the engine as native answers: the one place that maps kinds to status codes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{Error, ErrorKind};
use serde_json::json;

use crate::{aca, mcp};

/// An error on its way to a native caller.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<std::sync::Arc<Error>> for ApiError {
    fn from(error: std::sync::Arc<Error>) -> Self {
        Self(Error { kind: error.kind, message: error.message.clone(), hint: error.hint.clone(), detail: error.detail.clone(), retry_after: error.retry_after })
    }
}

/// The code and the status of a kind.
pub(crate) fn status(kind: ErrorKind) -> (&'static str, StatusCode) {
    match kind {
        ErrorKind::InvalidRequest => ("invalid_request", StatusCode::BAD_REQUEST),
        ErrorKind::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
        ErrorKind::Denied => ("denied", StatusCode::FORBIDDEN),
        ErrorKind::NotFound => ("not_found", StatusCode::NOT_FOUND),
        ErrorKind::Conflict => ("conflict", StatusCode::CONFLICT),
        ErrorKind::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
        ErrorKind::Limit => ("limit", StatusCode::TOO_MANY_REQUESTS),
        ErrorKind::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        ErrorKind::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// A refusal in the form of the surface that this path belongs to.
pub(crate) fn refusal(path: &str, error: Error) -> Response {
    if aca::is_path(path) {
        aca::refusal(&error)
    } else if mcp::is_path(path) {
        mcp::refusal(error)
    } else {
        ApiError(error).into_response()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, status) = status(self.0.kind);
        if let Some(detail) = &self.0.detail {
            tracing::warn!(code, detail, "request failed");
        }
        let mut body = json!({"error": {"code": code, "message": self.0.message}});
        if let (Some(hint), Some(error)) = (&self.0.hint, body.get_mut("error").and_then(|error| error.as_object_mut())) {
            error.insert("hint".to_owned(), json!(hint));
        }
        let mut response = (status, axum::Json(body)).into_response();
        if let Some(after) = self.0.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
