//! Bodies on their way: none is longer than it may be, none stands still for too long, and every byte is counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use engine::{Error, ErrorKind};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::Sleep;

use crate::app::App;
use crate::error::refusal;
use crate::limit::Allowance;
use crate::listen::Asking;
use crate::metrics;

/// Bodies that are held whole take room in such units, all together so many of them. Small ones take none, and one of unknown length so much.
const UNIT_BYTES: u64 = 1024 * 1024;
pub(crate) const ROOM_UNITS: u32 = 512;
const SMALL_BYTES: u64 = 256 * 1024;
const UNKNOWN_BYTES: u64 = 8 * 1024 * 1024;

const TOO_LARGE: u8 = 1;
const STALLED: u8 = 2;

/// How long a request's body may be; in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimit(Arc<Shared>);

impl BodyLimit {
    /// This request may be so long, in bytes, where it may not be longer anyway.
    pub(crate) fn raise(&self, bytes: u64) {
        self.0.most.fetch_max(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Shared {
    most: AtomicU64,
    upload: u64,
    failed: AtomicU8,
}

/// What ends a body.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is too large")]
    TooLarge,
    #[error("the body stands still")]
    Stalled,
}

/// Bounds and counts the bodies of a request and of its answer.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let settings = app.settings();
    let Ok(_room) = room(&app.bodies, &request) else {
        metrics::refused("no_room");
        let error = Error::new(ErrorKind::Unavailable, "the server holds as many large requests as it has room for").hint("try again in a moment");
        return refusal(request.uri().path(), Error { retry_after: Some(Duration::from_secs(1)), ..error });
    };
    let shared = Arc::new(Shared { most: AtomicU64::new(settings.limits.body_bytes), upload: settings.limits.upload_bytes, failed: AtomicU8::new(0) });
    let allowance = request.extensions().get::<Arc<Allowance>>().cloned();
    let path = request.uri().path().to_owned();
    let (mut parts, inner) = request.into_parts();
    let body = Incoming { inner, shared: Arc::clone(&shared), seen: 0, patience: settings.limits.body_timeout, still: None, allowance };
    parts.extensions.insert(BodyLimit(Arc::clone(&shared)));
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    let failed = shared.failed.load(Ordering::Relaxed);
    if failed == 0 { response } else { given_up(&path, failed, shared.most.load(Ordering::Relaxed)) }
}

/// Room for a body that is held whole, until its request is answered: what all callers send together is bounded.
fn room(bodies: &Arc<Semaphore>, request: &Request) -> Result<Option<OwnedSemaphorePermit>, TryAcquireError> {
    let path = request.uri().path();
    // Files pass through.
    if request.method() == Method::PUT || path.ends_with("/files") || path.ends_with("/files/upload") {
        return Ok(None);
    }
    let length = request.body().size_hint().upper().unwrap_or(UNKNOWN_BYTES);
    if length <= SMALL_BYTES {
        return Ok(None);
    }
    let units = u32::try_from(length.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(ROOM_UNITS);
    Arc::clone(bodies).try_acquire_many_owned(units).map(Some)
}

fn given_up(path: &str, failed: u8, most: u64) -> Response {
    let error = if failed == TOO_LARGE {
        metrics::refused("body_too_large");
        Error::new(ErrorKind::TooLarge, format!("the body of the request is larger than {most} bytes")).hint("send less, or upload files one by one")
    } else {
        metrics::refused("body_stalled");
        Error::new(ErrorKind::InvalidRequest, "the body of the request did not come in time").hint("send it again")
    };
    let mut response = refusal(path, error);
    if failed == STALLED {
        *response.status_mut() = axum::http::StatusCode::REQUEST_TIMEOUT;
    }
    // What is left of the body is not waited for.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A layer of routes that take files: the body may be as large as an upload.
pub(crate) async fn upload(request: Request, next: Next) -> Response {
    if let Some(limit) = request.extensions().get::<BodyLimit>() {
        limit.raise(limit.0.upload);
    }
    next.run(request).await
}

/// A request's body.
struct Incoming {
    inner: Body,
    shared: Arc<Shared>,
    seen: u64,
    patience: Duration,
    still: Option<Pin<Box<Sleep>>>,
    allowance: Option<Arc<Allowance>>,
}

impl Incoming {
    fn fail(&self, how: u8) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.shared.failed.store(how, Ordering::Relaxed);
        Poll::Ready(Some(Err(axum::Error::new(if how == TOO_LARGE { BodyError::TooLarge } else { BodyError::Stalled }))))
    }
}

impl hyper::body::Body for Incoming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let most = self.shared.most.load(Ordering::Relaxed);
        // Before anything is read, so that who asks whether it may send is told that it may not.
        if self.seen.saturating_add(self.inner.size_hint().lower()) > most {
            return self.fail(TOO_LARGE);
        }
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.still = None;
                if let Some(data) = frame.data_ref() {
                    let count = data.len() as u64;
                    self.seen = self.seen.saturating_add(count);
                    metrics::bytes(true, count);
                    if let Some(allowance) = &self.allowance {
                        allowance.spend(count);
                    }
                    if self.seen > most {
                        return self.fail(TOO_LARGE);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                let patience = self.patience;
                let still = self.still.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                if still.as_mut().poll(context).is_ready() { self.fail(STALLED) } else { Poll::Pending }
            }
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body.
struct Outgoing {
    inner: Body,
    allowance: Option<Arc<Allowance>>,
    _asking: Option<Asking>,
}

/// An answer whose bytes are counted, and which counts as being given until the last of them is taken.
pub(crate) fn until_taken(mut response: Response, asking: Option<Asking>) -> Response {
    let allowance = response.extensions_mut().remove::<Arc<Allowance>>();
    response.map(|inner| Body::new(Outgoing { inner, allowance, _asking: asking }))
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            metrics::bytes(false, data.len() as u64);
            if let Some(allowance) = &self.allowance {
                allowance.spend(data.len() as u64);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str, bytes: usize) -> Request {
        let body = Body::from(vec![b'x'; bytes]);
        axum::http::Request::builder().method(method).uri(path).body(body).unwrap()
    }

    #[test]
    fn large_bodies_together_are_bounded() {
        let bodies = Arc::new(Semaphore::new(4));
        let post = |bytes| room(&bodies, &request(Method::POST, "/v1/run", bytes));
        let held = post(3 << 20).unwrap();
        assert!(held.is_some() && post(2 << 20).is_err() && post(1 << 20).is_ok());
        assert!(post(100).unwrap().is_none(), "what is small passes");
        for (method, path) in [(Method::PUT, "/v1/sessions/a/files/b"), (Method::POST, "/files/upload"), (Method::POST, "/pools/p/files")] {
            assert!(room(&bodies, &request(method, path, 8 << 20)).unwrap().is_none(), "a file takes no room: {path}");
        }
        drop(held);
        assert!(post(2 << 20).is_ok());
        let whole = Arc::new(Semaphore::new(ROOM_UNITS as usize));
        assert!(room(&whole, &request(Method::POST, "/v1/run", 1 << 20)).is_ok());
    }
}
