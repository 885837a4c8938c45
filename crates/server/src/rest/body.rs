//! Bodies of requests: JSON, bounded, refused in the native form.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use engine::{Error, ErrorKind};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::body::BodyLimit;
use crate::error::ApiError;
use crate::json;

/// How much more of a body that is refused is still taken, in bytes, and for how long.
const LEFTOVER_BYTES: usize = 256 * 1024 * 1024;
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// A JSON body of at most `MAX` bytes; an empty one is `{}`.
#[derive(Debug)]
pub(crate) struct Body<T, const MAX: usize>(pub(crate) T);

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<App>> for Body<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let limit = request.extensions().get::<BodyLimit>().cloned();
        if let Some(limit) = &limit {
            // What carries files may be as long as an upload, written as base64.
            let upload = app.settings().limits.upload_bytes;
            limit.raise(upload.saturating_add(upload / 3).min(u64::try_from(MAX).unwrap_or(u64::MAX)));
        }
        Ok(Self::read(request).await?)
    }
}

impl<T: DeserializeOwned, const MAX: usize> Body<T, MAX> {
    async fn read(request: Request) -> Result<Self, Error> {
        let (parts, mut body) = request.into_parts();
        let bytes = match refuse_encoding(&parts.headers) {
            Ok(()) => collect(&parts.headers, &mut body, MAX).await,
            Err(error) => Err(error),
        };
        if bytes.is_err() {
            pass_over(&parts, &mut body).await;
        }
        let bytes = bytes?;
        if bytes.is_empty() {
            return Ok(Self(json::parse(b"{}")?));
        }
        if !is_json(&parts.headers) {
            let error = Error::new(ErrorKind::InvalidRequest, "the body is not declared as JSON").hint("send the header `Content-Type: application/json`");
            return Err(error);
        }
        Ok(Self(json::parse(&bytes)?))
    }
}

/// Takes the rest of a body that is refused, within reason: a caller that is cut off while it sends sees a broken connection, and not why.
pub(crate) async fn pass_over(parts: &Parts, body: &mut axum::body::Body) {
    // Who waits for our word has sent nothing yet, and will not.
    if parts.headers.contains_key(header::EXPECT) {
        return;
    }
    if let Some(limit) = parts.extensions.get::<BodyLimit>() {
        limit.raise(u64::MAX);
    }
    let rest = async {
        let mut left = LEFTOVER_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whatever came of it, the answer is the refusal.
    let _ = tokio::time::timeout(LEFTOVER_PATIENCE, rest).await;
}

/// Whether the body is declared as JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Bodies are taken as they are: what is packed has no size that can be checked.
pub(crate) fn refuse_encoding(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Error::new(ErrorKind::InvalidRequest, "a body with a Content-Encoding is not accepted").hint("send the body as it is"))
        }
        _ => Ok(()),
    }
}

/// The size that a body says it has.
pub(crate) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(headers: &HeaderMap, body: &mut axum::body::Body, max: usize) -> Result<Vec<u8>, Error> {
    let too_large = || Error::new(ErrorKind::TooLarge, format!("the body is larger than {max} bytes")).hint("upload large data as a file");
    if declared(headers).unwrap_or_default() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max.saturating_sub(bytes.len()) {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// What to say of a body that did not come to its end.
pub(crate) fn broken(error: &axum::Error) -> Error {
    Error { detail: Some(error.to_string()), ..Error::new(ErrorKind::InvalidRequest, "the body broke off or came too slowly") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    type Small = Body<serde_json::Map<String, serde_json::Value>, 64>;

    async fn read(kind: Option<&str>, body: impl Into<axum::body::Body>) -> Result<usize, (StatusCode, String)> {
        let mut request = Request::post("/");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        match Small::read(request.body(body.into()).unwrap()).await.map_err(ApiError) {
            Ok(body) => Ok(body.0.len()),
            Err(error) => {
                let response = error.into_response();
                let status = response.status();
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                Err((status, String::from_utf8(bytes.to_vec()).unwrap()))
            }
        }
    }

    #[tokio::test]
    async fn only_json_is_taken() {
        assert_eq!(read(Some("application/json; charset=utf-8"), r#"{"a":1}"#).await, Ok(1));
        assert_eq!(read(Some("application/vnd.x+json"), r#"{"a":1}"#).await, Ok(1));
        assert_eq!(read(None, "").await, Ok(0));
        for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("text/x+json")] {
            let (status, text) = read(kind, "{}").await.unwrap_err();
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(text.contains(r#""code":"invalid_request""#) && text.contains("Content-Type"), "{text}");
        }
    }

    #[tokio::test]
    async fn size_is_bounded_whether_or_not_it_is_told() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(64));
        assert_eq!(read(Some("application/json"), long.clone()).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        let pieces = futures_util::stream::iter(long.into_bytes().chunks(10).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>());
        assert_eq!(read(Some("application/json"), axum::body::Body::from_stream(pieces)).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        let breaks = futures_util::stream::iter([Ok(b"{".to_vec()), Err(std::io::Error::other("gone"))]);
        let (status, text) = read(Some("application/json"), axum::body::Body::from_stream(breaks)).await.unwrap_err();
        assert!(status == StatusCode::BAD_REQUEST && !text.contains("gone"), "{text}");
    }

    #[test]
    fn packed_bodies_are_refused() {
        let mut headers = HeaderMap::new();
        assert!(refuse_encoding(&headers).is_ok());
        headers.insert(header::CONTENT_ENCODING, "identity".parse().unwrap());
        assert!(refuse_encoding(&headers).is_ok());
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(refuse_encoding(&headers).unwrap_err().kind, ErrorKind::InvalidRequest);
    }
}
