//! Files of a session: listed, read, written, removed. Names are bytes that the code chose, and are never interpreted.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::session::{FileEntry, Uploaded, parse_path};
use engine::{Error, ErrorKind};
use http_body_util::BodyExt;

use super::body::{broken, declared, pass_over, refuse_encoding};
use super::call::{Call, Links, encode, encode_path};
use super::download::Content;
use super::view::{FileList, FileView};
use crate::error::ApiError;

/// Entries of one page where none are asked for, and at most.
const PAGE: usize = 1000;
const MAX_PAGE: usize = 10_000;
/// The paths of one page have so many bytes at most, unless it is a single one: encoded, they are several times as long.
const PAGE_BYTES: usize = 1024 * 1024;

/// List files
///
/// Entries of a folder by path, page by page. Links, pipes and sockets are listed as `other` and cannot be opened.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}/files",
    operation_id = "listFiles",
    tag = "files",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one"),
        ("path" = Option<String>, Query, description = "The folder, the workspace where none is named"),
        ("recursive" = Option<bool>, Query, description = "With everything in its folders"),
        ("limit" = Option<u64>, Query, description = "Entries of a page", minimum = 1, maximum = 10_000),
        ("after" = Option<String>, Query, description = "The path that the page before ended with")
    ),
    responses((status = 200, description = "The entries", body = FileList))
)]
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let query = call.query(&["pool", "path", "recursive", "limit", "after"])?;
    let recursive = query.flag("recursive")?;
    let limit = query.number("limit", 1..=MAX_PAGE)?;
    let folder = match query.bytes("path") {
        None | Some(b"") => PathBuf::new(),
        Some(path) => parse_path(path)?,
    };
    let after = query.bytes("after").map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec())));
    let place = call.session(&query)?;
    let files = place.session.files(&folder, recursive).await?;
    let (page, more) = page(&files.entries, after.as_deref(), limit.unwrap_or(PAGE));
    let next = page.last().filter(|_| more).map(|last| {
        let limit = limit.map_or_else(String::new, |limit| format!("&limit={limit}"));
        let query = format!("path={}&recursive={recursive}{limit}&after={}", encode_path(&folder), encode(last.path.as_os_str().as_bytes()));
        place.links.files(&query)
    });
    let files = FileList { files: page.iter().map(|entry| FileView::of(entry, &place.links)).collect(), next, incomplete: files.incomplete };
    Ok(Json(files).into_response())
}

/// The entries behind `after`, and whether more follow.
fn page<'a>(entries: &'a [FileEntry], after: Option<&Path>, limit: usize) -> (&'a [FileEntry], bool) {
    let start = after.map_or(0, |after| entries.partition_point(|entry| entry.path.as_path() <= after));
    let rest = entries.get(start..).unwrap_or_default();
    let mut bytes = 0_usize;
    let fits = |entry: &&FileEntry| {
        bytes = bytes.saturating_add(entry.path.as_os_str().len());
        bytes <= PAGE_BYTES
    };
    let count = rest.iter().take(limit).take_while(fits).count().max(1).min(rest.len());
    (rest.get(..count).unwrap_or(rest), rest.len() > count)
}

/// Read a file
///
/// Its bytes, streamed. One range is answered with that part; several with the whole.
#[utoipa::path(
    method(get, head),
    path = "/v1/sessions/{id}/files/{*path}",
    operation_id = "readFile",
    tag = "files",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("path" = String, Path, description = "The file's path in the workspace, percent-encoded; slashes between folders stay"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-999`"),
        ("If-Range" = Option<String>, Header, description = "The entity tag for which the range holds"),
        ("If-None-Match" = Option<String>, Header, description = "The entity tag that the caller has already")
    ),
    responses(
        (status = 200, description = "The bytes", content_type = "*/*", body = Vec<u8>),
        (status = 206, description = "A part of them", content_type = "*/*", body = Vec<u8>)
    )
)]
pub(crate) async fn read(call: Call, headers: HeaderMap) -> Result<Response, ApiError> {
    let path = parse_path(&call.rest(4))?;
    let place = call.session(&call.query(&["pool"])?)?;
    let (file, entry) = place.session.open_file(&path).await?;
    let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
    Ok(Content::of(file, entry.media_type, name)?.into_response(&headers)?)
}

/// Write a file
///
/// The body is the file. It appears at once and whole, in place of one that was there, with the folders on its way; a body that breaks off changes
/// nothing.
#[utoipa::path(
    put,
    path = "/v1/sessions/{id}/files/{*path}",
    operation_id = "writeFile",
    tag = "files",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("path" = String, Path, description = "The file's path in the workspace, percent-encoded; slashes between folders stay"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The bytes"),
    responses((status = 200, description = "It was replaced", body = FileView), (status = 201, description = "It is new", body = FileView))
)]
pub(crate) async fn write(call: Call, request: Request) -> Result<Response, ApiError> {
    let (parts, mut body) = request.into_parts();
    let received = receive(&call, &parts.headers, &mut body).await;
    if received.is_err() {
        pass_over(&parts, &mut body).await;
    }
    Ok(received?)
}

async fn receive(call: &Call, headers: &HeaderMap, body: &mut Body) -> Result<Response, Error> {
    let path = parse_path(&call.rest(4))?;
    let place = call.session(&call.query(&["pool"])?)?;
    refuse_encoding(headers)?;
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(Error::new(ErrorKind::InvalidRequest, "a part of a file cannot be written").hint("send the whole file without Content-Range"));
    }
    call.takes_upload(declared(headers))?;
    let mut upload = place.session.upload(&path, declared(headers)).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Ok(data) = frame.into_data() {
            upload.write(&data).await?;
        }
    }
    Ok(written(&upload.finish().await?, &place.links))
}

fn written(Uploaded { file, replaced }: &Uploaded, links: &Links) -> Response {
    let view = FileView::of(file, links);
    let location = view.url.as_deref().and_then(|url| HeaderValue::from_str(url).ok());
    let mut response = (if *replaced { StatusCode::OK } else { StatusCode::CREATED }, Json(view)).into_response();
    if let Some(location) = location.filter(|_| !replaced) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Remove a file
///
/// Removes a file, or a folder with everything in it.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{id}/files/{*path}",
    operation_id = "removeFile",
    tag = "files",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("path" = String, Path, description = "The file's path in the workspace, percent-encoded; slashes between folders stay"),
        ("pool" = Option<String>, Query, description = "The pool, where it is not the default one")
    ),
    responses((status = 204, description = "It is gone"))
)]
pub(crate) async fn remove(call: Call) -> Result<Response, ApiError> {
    let path = parse_path(&call.rest(4))?;
    let place = call.session(&call.query(&["pool"])?)?;
    place.session.remove(&path).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::session::Kind;
    use std::time::SystemTime;

    #[test]
    fn pages_follow_each_other_without_gap() {
        let entry = |path: &str| FileEntry { path: path.into(), kind: Kind::File, size: 0, modified: SystemTime::UNIX_EPOCH, media_type: String::new() };
        let entries: Vec<_> = ["a", "a/b", "a-c", "b", "c"].into_iter().map(entry).collect();
        let mut entries = entries;
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let mut seen = Vec::new();
        let mut after: Option<PathBuf> = None;
        loop {
            let (page, more) = page(&entries, after.as_deref(), 2);
            seen.extend(page.iter().map(|entry| entry.path.clone()));
            after = page.last().map(|last| last.path.clone());
            if !more {
                break;
            }
        }
        assert_eq!(seen, entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>());
        assert_eq!(page(&entries, Some(Path::new("zzz")), 2).0.len(), 0);
        let long: Vec<_> = (0..1000).map(|number| entry(&format!("{number:04}{}", "x".repeat(4000)))).collect();
        let (few, more) = page(&long, None, 1000);
        assert!(more && (200..300).contains(&few.len()), "{}", few.len());
    }
}
