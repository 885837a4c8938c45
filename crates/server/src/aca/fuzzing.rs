//! Ways in for the targets of `fuzz/`.

use std::path::PathBuf;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};

use super::files;
use super::multipart::Multipart;
use super::query::Query;
use super::request::Requested;
use super::route::{Route, Target};

/// Name, file name and content.
pub type Part = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

/// The part of a file that a range asks for.
pub(crate) fn range(range: &str, size: u64) -> Option<(u64, u64)> {
    match files::range(range, size) {
        files::Range::Part(start, length) => Some((start, length)),
        files::Range::Whole | files::Range::Beyond => None,
    }
}

/// Whether this is a request to execute.
#[must_use]
pub fn is_request(body: &[u8]) -> bool {
    Requested::parse(body).is_ok()
}

/// What path and query together name, where they name a file: the route as it is written out again, and the path in the workspace.
#[must_use]
pub fn file(path: &str, query: &str) -> Option<(String, Option<PathBuf>)> {
    let route = Route::parse(path)?;
    let query = Query::new(query);
    let named = match route.target {
        Target::File(name) | Target::OldContent(name) | Target::NewContent(name) => query.encoded_file(name).ok(),
        _ => query.folder().ok(),
    };
    let _ = (query.identifier(None), query.version(), query.is_old(), query.number("skip"), route.prefix.pool());
    Some((route.to_string(), named))
}

/// Where a part of an upload with this file name goes.
#[must_use]
pub fn upload_target(name: &[u8], query: &str) -> Option<PathBuf> {
    Query::new(query).file(name).ok()
}

/// Parameters of a header, as (name, value).
#[must_use]
pub fn parameters(header: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    super::multipart::parameters(header)
}

/// Name, file name and content of each part of a body that comes in pieces of this length; `None` where it is refused.
#[must_use]
pub fn multipart(content_type: &[u8], body: &[u8], step: usize, limit: u64) -> Option<Vec<Part>> {
    let pieces: Vec<Result<Bytes, std::io::Error>> = body.chunks(step.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_bytes(content_type).ok()?)]);
    let read = async {
        let mut multipart = Multipart::open(&headers, Body::from_stream(futures_util::stream::iter(pieces)), limit).await.ok()?;
        let mut parts = Vec::new();
        while let Some(part) = multipart.next(false).await.ok()? {
            let mut content = Vec::new();
            while let Some(chunk) = multipart.chunk().await.ok()? {
                content.extend_from_slice(&chunk);
            }
            parts.push((part.name, part.file_name, content));
        }
        Some(parts)
    };
    // Nothing here waits for anything.
    futures_util::FutureExt::now_or_never(read)?
}
