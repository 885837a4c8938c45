//! Files of a session: in, out, listed, removed, in both forms.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::session::{FileEntry, Kind, Opened};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value as Json_, json};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::Call;
use super::error::Refusal;
use super::manage::time;
use super::multipart::{LEFTOVER, Multipart, Part, pass_over};
use crate::body::BodyLimit;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Before October 2024: within `properties`, and in a list.
    Old,
    /// Since then: flat.
    New,
}

/// What the parts of a body may need beside the file.
const OVERHEAD: u64 = 64 * 1024;
/// Bytes of a file that are read at once.
const CHUNK: usize = 256 * 1024;
/// What may stand in a header as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

pub(super) async fn upload(call: &Call<'_>, form: Form, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let limit = call.app.settings().limits.upload_bytes;
    // The door's own limit would cut the connection, and a client that still sends would not see why.
    if let Some(own) = parts.extensions.get::<BodyLimit>() {
        own.raise(limit.saturating_add(OVERHEAD).saturating_add(LEFTOVER));
    }
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit.saturating_add(OVERHEAD)) {
        // A client that waits for our word has sent nothing yet, and will not.
        if !parts.headers.contains_key(header::EXPECT) {
            pass_over(Box::pin(body.into_data_stream())).await;
        }
        return Err(too_large(limit));
    }
    let mut multipart = Multipart::open(&parts.headers, body, limit.saturating_add(OVERHEAD)).await?;
    match receive(call, &mut multipart, &parts.headers, limit).await {
        Ok(entries) => Ok(uploaded(&entries, form)),
        Err(refusal) => {
            multipart.pass_over().await;
            Err(refusal)
        }
    }
}

/// Writes the files of a body into the workspace as they come.
async fn receive(call: &Call<'_>, multipart: &mut Multipart, headers: &HeaderMap, limit: u64) -> Result<Vec<FileEntry>, Refusal> {
    let identifier = call.query.identifier(None)?;
    // aiohttp encodes names of files, and does not say so.
    let encoded = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).is_some_and(|agent| agent.contains("aiohttp"));
    let mut opened: Option<Opened> = None;
    let mut entries = Vec::new();
    while let Some(part) = multipart.next(encoded).await? {
        let Some(path) = target(call, &part)? else { continue };
        let session = match &opened {
            Some(opened) => &opened.session,
            None => &opened.insert(call.open(&identifier).await?).session,
        };
        let mut file = session.upload(&path, None).await?;
        let mut room = limit;
        while let Some(bytes) = multipart.chunk().await? {
            room = room.checked_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).ok_or_else(|| too_large(limit))?;
            file.write(&bytes).await?;
        }
        entries.push(file.finish().await?.file);
    }
    if entries.is_empty() { Err(Refusal::bad("the body needs a part `file` with a file name")) } else { Ok(entries) }
}

/// Where a part's file goes; `None` for a part that is none.
fn target(call: &Call<'_>, part: &Part) -> Result<Option<PathBuf>, Refusal> {
    match (&part.file_name, part.name.as_deref()) {
        (Some(name), _) => Ok(Some(call.query.file(name)?)),
        (None, Some(b"file")) => Err(Refusal::bad("the part `file` needs a file name")),
        (None, _) => Ok(None),
    }
}

fn too_large(limit: u64) -> Refusal {
    Refusal::too_large(format!("a file may have {} MiB at most", limit >> 20))
}

fn uploaded(entries: &[FileEntry], form: Form) -> Response {
    match (form, entries.last()) {
        (Form::New, Some(entry)) => Json(flat(entry)).into_response(),
        _ => Json(wrapped(entries)).into_response(),
    }
}

pub(super) async fn list(call: &Call<'_>) -> Result<Response, Refusal> {
    let (identifier, folder) = (call.query.identifier(None)?, call.query.folder()?);
    let files = call.open(&identifier).await?.session.files(&folder, call.query.flag("recursive")).await?;
    if call.query.is_old() {
        let entries: Vec<FileEntry> = files.entries.into_iter().filter(|entry| entry.kind == Kind::File).collect();
        return Ok(Json(wrapped(&entries)).into_response());
    }
    let value: Vec<Json_> = files.entries.iter().map(flat).collect();
    Ok(Json(json!({"value": value, "nextLink": null})).into_response())
}

pub(super) async fn show(call: &Call<'_>, name: &str) -> Result<Response, Refusal> {
    let (identifier, path) = (call.query.identifier(None)?, call.query.encoded_file(name)?);
    let entry = call.find(&identifier)?.file(&path).await?;
    let body = if call.query.is_old() { wrapped(&[entry]) } else { flat(&entry) };
    Ok(Json(body).into_response())
}

pub(super) async fn remove(call: &Call<'_>, name: &str) -> Result<Response, Refusal> {
    let (identifier, path) = (call.query.identifier(None)?, call.query.encoded_file(name)?);
    call.find(&identifier)?.remove(&path).await?;
    if call.query.is_old() { Ok(Json(json!({"message": "file deleted successfully"})).into_response()) } else { Ok(StatusCode::NO_CONTENT.into_response()) }
}

pub(super) async fn content(call: &Call<'_>, (name, form): (&str, Form), asked: &HeaderMap) -> Result<Response, Refusal> {
    let (identifier, path) = (call.query.identifier(None)?, call.query.encoded_file(name)?);
    let (file, entry) = call.find(&identifier)?.open_file(&path).await?;
    let asked = asked.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (start, length, status) = match asked.map(|asked| range(asked, entry.size)) {
        Some(Range::Part(start, length)) => (start, length, StatusCode::PARTIAL_CONTENT),
        Some(Range::Beyond) => return Ok(beyond(entry.size)),
        Some(Range::Whole) | None => (0, entry.size, StatusCode::OK),
    };
    let mut file = tokio::fs::File::from_std(file);
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the file cannot be read");
    file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
    let mut response = (status, Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK))).into_response();
    describe(response.headers_mut(), &entry, form);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{}", start.saturating_add(length).saturating_sub(1), entry.size);
        response.headers_mut().extend(HeaderValue::from_str(&range).ok().map(|range| (header::CONTENT_RANGE, range)));
    }
    Ok(response)
}

/// The headers of a file. It is the code's own work: nothing that a browser should run here.
fn describe(headers: &mut HeaderMap, entry: &FileEntry, form: Form) {
    let media_type = if form == Form::Old { with_charset(&entry.media_type) } else { "application/octet-stream".to_owned() };
    let name = entry.path.file_name().unwrap_or_default();
    let disposition = format!("attachment; filename*=UTF-8''{}", percent_encode(name.as_encoded_bytes(), PLAIN));
    let values = [
        (header::CONTENT_TYPE, media_type),
        (header::LAST_MODIFIED, http_date(entry)),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

fn http_date(entry: &FileEntry) -> String {
    httpdate::fmt_http_date(entry.modified)
}

fn with_charset(media_type: &str) -> String {
    if media_type.starts_with("text/") { format!("{media_type}; charset=utf-8") } else { media_type.to_owned() }
}

/// What a request for a part of a file comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// From here, so many bytes.
    Part(u64, u64),
    Whole,
    /// Nothing of it is there.
    Beyond,
}

/// One range; several, or what is none, give the whole file.
pub(super) fn range(text: &str, size: u64) -> Range {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else { return Range::Whole };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, size.saturating_sub(1)),
        (Err(_), Ok(0)) if first.is_empty() => return Range::Beyond,
        (Err(_), Ok(length)) if first.is_empty() => (size.saturating_sub(length), size.saturating_sub(1)),
        _ => return Range::Whole,
    };
    if first < size { Range::Part(first, last.saturating_sub(first).saturating_add(1)) } else { Range::Beyond }
}

fn beyond(size: u64) -> Response {
    let mut response = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", "the file is shorter than that").into_response();
    response.headers_mut().extend(HeaderValue::from_str(&format!("bytes */{size}")).ok().map(|range| (header::CONTENT_RANGE, range)));
    response
}

/// The old form: a list, each within `properties`, everything numbered.
fn wrapped(entries: &[FileEntry]) -> Json_ {
    let value = entries.iter().zip(1_usize..).map(|(entry, number)| {
        let number = number.saturating_mul(2);
        json!({
            "$id": number.to_string(),
            "properties": {
                "$id": number.saturating_add(1).to_string(),
                "filename": entry.path.to_string_lossy(),
                "size": entry.size,
                "lastModifiedTime": time(entry.modified),
            },
        })
    });
    json!({"$id": "1", "value": value.collect::<Vec<_>>()})
}

/// The new form.
fn flat(entry: &FileEntry) -> Json_ {
    let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
    let folder = Path::new("/mnt/data").join(entry.path.parent().unwrap_or(Path::new("")));
    let folder = folder.to_string_lossy();
    let mut body = json!({"name": name, "type": "directory", "sizeInBytes": entry.size, "lastModifiedAt": time(entry.modified), "directory": folder.trim_end_matches('/')});
    let kind = match entry.kind {
        Kind::Folder => return body,
        Kind::File => "file",
        _ => "other",
    };
    if let Some(fields) = body.as_object_mut() {
        fields.insert("type".to_owned(), json!(kind));
        fields.insert("contentType".to_owned(), json!(with_charset(&entry.media_type)));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn entry(path: &str, kind: Kind, media_type: &str) -> FileEntry {
        FileEntry { path: path.into(), kind, size: 16, modified: SystemTime::UNIX_EPOCH, media_type: media_type.to_owned() }
    }

    #[test]
    fn files_are_shown_in_both_forms() {
        let text = entry("a b.txt", Kind::File, "text/plain");
        assert_eq!(
            wrapped(&[text.clone(), entry("sub/c.png", Kind::File, "image/png")]),
            json!({"$id": "1", "value": [
                {"$id": "2", "properties": {"$id": "3", "filename": "a b.txt", "size": 16, "lastModifiedTime": "1970-01-01T00:00:00.000000Z"}},
                {"$id": "4", "properties": {"$id": "5", "filename": "sub/c.png", "size": 16, "lastModifiedTime": "1970-01-01T00:00:00.000000Z"}},
            ]})
        );
        assert_eq!(
            flat(&text),
            json!({"name": "a b.txt", "type": "file", "contentType": "text/plain; charset=utf-8", "sizeInBytes": 16,
                "lastModifiedAt": "1970-01-01T00:00:00.000000Z", "directory": "/mnt/data"})
        );
        assert_eq!(flat(&entry("a/b/c", Kind::Folder, ""))["directory"], "/mnt/data/a/b");
        assert_eq!((&flat(&entry("a", Kind::Folder, ""))["type"], &flat(&entry("a", Kind::Other, "x/y"))["type"]), (&json!("directory"), &json!("other")));
    }

    #[test]
    fn ranges_are_those_of_the_standard() {
        for (text, expected) in [
            ("bytes=0-3", Range::Part(0, 4)),
            ("bytes=5-", Range::Part(5, 5)),
            ("bytes=-3", Range::Part(7, 3)),
            ("bytes=-30", Range::Part(0, 10)),
            ("bytes=8-99", Range::Part(8, 2)),
            ("bytes=10-", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=3-1", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("bytes=-", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=18446744073709551615-18446744073709551615", Range::Beyond),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Range::Beyond);
    }

    #[test]
    fn a_file_can_do_nothing_in_a_browser() {
        let mut headers = HeaderMap::new();
        describe(&mut headers, &entry("sub/a \"b\"\n.html", Kind::File, "text/html"), Form::Old);
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment; filename*=UTF-8''a%20%22b%22%0A.html");
        assert_eq!(
            (&headers[header::X_CONTENT_TYPE_OPTIONS], &headers[header::LAST_MODIFIED]),
            (&HeaderValue::from_static("nosniff"), &HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
        );
        describe(&mut headers, &entry("a.html", Kind::File, "text/html"), Form::New);
        assert_eq!(headers[header::CONTENT_TYPE], "application/octet-stream");
    }
}
