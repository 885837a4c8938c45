//! Bytes of a file as an answer: streamed, in ranges, with headers that no name can break and no browser will run.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{Error, ErrorKind};

use super::call::encode;
use crate::error::ApiError;

/// Bytes read at once: what one download takes of memory.
const CHUNK_BYTES: u64 = 256 * 1024;

/// A file to be answered with.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) file: File,
    /// Bytes that are told; more are not sent, fewer end the connection.
    pub(crate) size: u64,
    pub(crate) modified: Option<SystemTime>,
    /// The entity tag, quoted.
    pub(crate) tag: String,
    pub(crate) media_type: String,
    /// The name to save it under: any bytes.
    pub(crate) name: Vec<u8>,
}

/// What to say where the host could not read.
pub(crate) fn unreadable(error: &io::Error) -> Error {
    Error { detail: Some(error.to_string()), ..Error::new(ErrorKind::Internal, "the file could not be read") }
}

impl Content {
    /// A file of the workspace, as it is now.
    pub(crate) fn of(file: File, media_type: String, name: Vec<u8>) -> Result<Self, Error> {
        let facts = file.metadata().map_err(|error| unreadable(&error))?;
        // Code can set the time of modification, but not that of change.
        let tag = format!("\"{:x}-{:x}-{:x}-{:x}\"", facts.ino(), facts.size(), facts.ctime(), facts.ctime_nsec());
        let media_type = if media_type.starts_with("text/") { format!("{media_type}; charset=utf-8") } else { media_type };
        Ok(Self { file, size: facts.size(), modified: facts.modified().ok(), tag, media_type, name })
    }

    /// The whole, the part that is asked for, or nothing where the caller has it already.
    pub(crate) fn into_response(self, asked: &HeaderMap) -> Result<Response, Error> {
        if self.is_known(asked) {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            self.describe(response.headers_mut());
            response.headers_mut().remove(header::CONTENT_TYPE);
            return Ok(response);
        }
        let (status, start, length) = match self.range(asked) {
            Wanted::Whole => (StatusCode::OK, 0, self.size),
            Wanted::Part(start, length) => (StatusCode::PARTIAL_CONTENT, start, length),
            Wanted::Nothing => return Ok(self.refuse_range()),
        };
        let mut headers = HeaderMap::new();
        self.describe(&mut headers);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if status == StatusCode::PARTIAL_CONTENT {
            let end = start.saturating_add(length).saturating_sub(1);
            headers.insert(header::CONTENT_RANGE, value(&format!("bytes {start}-{end}/{}", self.size))?);
        }
        Ok((status, headers, stream(self.file, start, length)).into_response())
    }

    fn describe(&self, headers: &mut HeaderMap) {
        let mut set = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        set(header::CONTENT_TYPE, &self.media_type);
        set(header::ETAG, &self.tag);
        set(header::ACCEPT_RANGES, "bytes");
        set(header::CONTENT_DISPOSITION, &disposition(&self.name));
        // What code made is never run by a browser, whatever it claims to be.
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
        set(header::CACHE_CONTROL, "private, no-cache");
        if let Some(modified) = self.modified.filter(|modified| *modified >= SystemTime::UNIX_EPOCH && *modified < last_day()) {
            set(header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
        }
    }

    /// Whether the caller has it, by tag or else by time.
    fn is_known(&self, asked: &HeaderMap) -> bool {
        let mut tags = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).peekable();
        if tags.peek().is_some() {
            return tags.flat_map(|list| list.split(',')).map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.tag);
        }
        let since = asked.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok()).and_then(|text| httpdate::parse_http_date(text).ok());
        // A date has whole seconds.
        matches!((since, self.modified), (Some(since), Some(modified)) if modified < since + Duration::from_secs(1))
    }

    fn range(&self, asked: &HeaderMap) -> Wanted {
        let mut ranges = asked.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else { return Wanted::Whole };
        if let Some(condition) = asked.get(header::IF_RANGE) {
            // Only by tag: a date of whole seconds does not tell that nothing has changed since.
            if condition.as_bytes() != self.tag.as_bytes() {
                return Wanted::Whole;
            }
        }
        range.to_str().map_or(Wanted::Whole, |range| wanted(range, self.size))
    }

    fn refuse_range(&self) -> Response {
        let error = Error::new(ErrorKind::InvalidRequest, format!("the range is not within the {} bytes of the file", self.size));
        let mut response = ApiError(error).into_response();
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        if let Ok(value) = HeaderValue::from_str(&format!("bytes */{}", self.size)) {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        response
    }
}

/// The last day that an HTTP date can name, more or less.
fn last_day() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800)
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::new(ErrorKind::Internal, "a header could not be written"))
}

/// What a range asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Everything: no range, several, or one that says nothing.
    Whole,
    /// From here, so many bytes.
    Part(u64, u64),
    /// Nothing that is there.
    Nothing,
}

fn wanted(range: &str, size: u64) -> Wanted {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().unwrap_or(u64::MAX));
    let Some((unit, range)) = range.split_once('=') else { return Wanted::Whole };
    // Several ranges would multiply the work.
    let Some((first, last)) = range.trim().split_once('-').filter(|_| !range.contains(',')) else { return Wanted::Whole };
    let (Some(first_number), Some(last_number)) = (number(first), number(last)) else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || (first.is_empty() && last.is_empty()) {
        return Wanted::Whole;
    }
    if first.is_empty() {
        let length = last_number.min(size);
        return if length == 0 { Wanted::Nothing } else { Wanted::Part(size.saturating_sub(length), length) };
    }
    if !last.is_empty() && last_number < first_number {
        return Wanted::Whole;
    }
    if first_number >= size {
        return Wanted::Nothing;
    }
    let end = if last.is_empty() { size } else { last_number.saturating_add(1).min(size) };
    Wanted::Part(first_number, end.saturating_sub(first_number))
}

/// Reads piece by piece, at places of its own: the descriptor may be shared.
fn stream(file: File, start: u64, length: u64) -> Body {
    let file = Arc::new(file);
    Body::from_stream(futures_util::stream::try_unfold((start, length), move |(at, left)| {
        let file = Arc::clone(&file);
        async move {
            if left == 0 {
                return Ok::<_, io::Error>(None);
            }
            let piece = tokio::task::spawn_blocking(move || read(&file, at, left.min(CHUNK_BYTES))).await.map_err(io::Error::other)??;
            let count = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if count == 0 {
                // Fewer bytes than were told: the connection has to end, so that nobody takes this for the whole. What was written before goes
                // out first: hyper flushes while it waits, and drops what it holds when a body fails.
                tokio::task::yield_now().await;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Some((Bytes::from(piece), (at.saturating_add(count), left.saturating_sub(count)))))
        }
    }))
}

fn read(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or_default()];
    let count = loop {
        match file.read_at(&mut buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    buffer.truncate(count);
    Ok(buffer)
}

/// `Content-Disposition` of RFC 6266: a plain name for the old, the exact one in the form of RFC 8187.
pub(super) fn disposition(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    // Quotes and backslashes would need escapes that clients read differently; a percent sign is decoded by some.
    let plain: String = text.chars().map(|one| if one.is_ascii_graphic() && !matches!(one, '"' | '\\' | '%') || one == ' ' { one } else { '_' }).collect();
    let plain = if plain.trim().is_empty() { "file" } else { &plain };
    if plain == text {
        format!("attachment; filename=\"{plain}\"")
    } else {
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", encode(text.as_bytes()))
    }
}

/// The part that a range asks for, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub(super) fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    match wanted(range, size) {
        Wanted::Part(start, length) => Some((start, length)),
        Wanted::Whole | Wanted::Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Write;

    fn content(bytes: &[u8]) -> Content {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Content::of(file, "text/html".to_owned(), b"a.html".to_vec()).unwrap()
    }

    fn asked(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    async fn answer(content: Content, pairs: &[(HeaderName, &str)]) -> (u16, HeaderMap, Vec<u8>) {
        let response = content.into_response(&asked(pairs)).unwrap();
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn wholes_and_parts() {
        let (status, headers, body) = answer(content(b"0123456789"), &[]).await;
        assert_eq!((status, body.as_slice(), &headers[header::CONTENT_LENGTH]), (200, &b"0123456789"[..], &HeaderValue::from(10)));
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], "sandbox; default-src 'none'");
        assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment; filename=\"a.html\"");
        assert_eq!(headers[header::ACCEPT_RANGES], "bytes");
        assert!(headers.contains_key(header::LAST_MODIFIED));
        let (status, headers, body) = answer(content(b"0123456789"), &[(header::RANGE, "bytes=2-4")]).await;
        assert_eq!((status, body.as_slice(), &headers[header::CONTENT_RANGE]), (206, &b"234"[..], &HeaderValue::from_static("bytes 2-4/10")));
        assert_eq!(headers[header::CONTENT_LENGTH], "3");
        let (status, headers, body) = answer(content(b"0123456789"), &[(header::RANGE, "bytes=10-")]).await;
        assert_eq!((status, &headers[header::CONTENT_RANGE]), (416, &HeaderValue::from_static("bytes */10")));
        assert!(String::from_utf8(body).unwrap().contains("invalid_request"));
        let (status, _, body) = answer(content(b""), &[]).await;
        assert_eq!((status, body.len()), (200, 0));
    }

    #[test]
    fn ranges() {
        let cases = [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=0-", Wanted::Part(0, 10)),
            ("bytes=5-99999999999999999999999", Wanted::Part(5, 5)),
            ("bytes=-3", Wanted::Part(7, 3)),
            ("bytes=-100", Wanted::Part(0, 10)),
            ("BYTES = 1-2", Wanted::Part(1, 2)),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=--5", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes", Wanted::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(wanted(range, 10), expected, "{range}");
        }
        let many = format!("bytes={}", (0..1000).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(","));
        assert_eq!(wanted(&many, 10), Wanted::Whole);
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
    }

    #[tokio::test]
    async fn conditions() {
        let (one, other) = (content(b"x"), content(b"x"));
        assert_ne!(one.tag, other.tag, "another file is another thing");
        let one = content(b"0123456789");
        let tag = one.tag.clone();
        let (status, headers, body) = answer(one, &[(header::IF_NONE_MATCH, &format!("\"other\", W/{tag}"))]).await;
        assert_eq!((status, body.len(), headers[header::ETAG].to_str().unwrap()), (304, 0, tag.as_str()));
        assert_eq!(answer(content(b"x"), &[(header::IF_NONE_MATCH, "\"other\"")]).await.0, 200);
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert_eq!(answer(content(b"x"), &[(header::IF_MODIFIED_SINCE, &later)]).await.0, 304);
        assert_eq!(answer(content(b"x"), &[(header::IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:00:00 GMT")]).await.0, 200);
        assert_eq!(answer(content(b"xy"), &[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, "\"other\"")]).await.0, 200);
        let one = content(b"xy");
        let tag = one.tag.clone();
        assert_eq!(answer(one, &[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, &tag)]).await.0, 206);
    }

    #[tokio::test]
    async fn what_changes_meanwhile_is_never_a_lie() {
        let mut grows = content(&[b'x'; 600_000]);
        grows.file.write_all(b"more").unwrap();
        let (_, headers, body) = answer(grows, &[]).await;
        assert_eq!((headers[header::CONTENT_LENGTH].to_str().unwrap(), body.len()), ("600000", 600_000));
        let shrinks = content(&[b'x'; 600_000]);
        shrinks.file.set_len(300_000).unwrap();
        let response = shrinks.into_response(&HeaderMap::new()).unwrap();
        assert!(response.into_body().collect().await.is_err(), "the connection breaks off");
    }

    #[test]
    fn names_cannot_split_headers() {
        let cases: [(&[u8], &str); 7] = [
            (b"a b.txt", "attachment; filename=\"a b.txt\""),
            (b"a\"b\\c;d", "attachment; filename=\"a_b_c;d\"; filename*=UTF-8''a%22b%5Cc%3Bd"),
            (b"x\r\nSet-Cookie: a=b", "attachment; filename=\"x__Set-Cookie: a=b\"; filename*=UTF-8''x%0D%0ASet-Cookie%3A%20a%3Db"),
            ("é.pdf".as_bytes(), "attachment; filename=\"_.pdf\"; filename*=UTF-8''%C3%A9.pdf"),
            (b"50%41.txt", "attachment; filename=\"50_41.txt\"; filename*=UTF-8''50%2541.txt"),
            (b"\xff", "attachment; filename=\"_\"; filename*=UTF-8''%EF%BF%BD"),
            (b" ", "attachment; filename=\"file\"; filename*=UTF-8''%20"),
        ];
        for (name, expected) in cases {
            assert_eq!(disposition(name), expected);
            assert!(HeaderValue::from_str(expected).is_ok());
        }
    }
}
