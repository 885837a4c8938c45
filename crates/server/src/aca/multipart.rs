//! Bodies of uploads, as they come: part by part, never more of them in memory than has just arrived.
//!
//! Not left to a library, because clients are wrong in more ways than libraries forgive (a body of parts that is said to be JSON, names
//! with and without quotes, parts without a type), and because the one at hand reads ahead without a limit.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use percent_encoding::percent_decode;

use super::error::Refusal;

/// Headers of one part, in bytes.
const MAX_HEADERS: usize = 16 * 1024;
/// A boundary, in bytes; the standard has 70.
const MAX_BOUNDARY: usize = 200;
/// Parts of one body.
const MAX_PARTS: usize = 100;
/// How much more of a body that is refused is still taken, in bytes, and how long: a client that is cut off while it sends sees a broken
/// connection, and not why.
pub(super) const LEFTOVER: u64 = 256 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// A body of parts.
pub(super) struct Multipart {
    body: Pin<Box<BodyDataStream>>,
    buffer: BytesMut,
    /// What ends a part: a line break, two dashes and the boundary.
    delimiter: Vec<u8>,
    place: Place,
    parts: usize,
    /// What may still come.
    room: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Within a part, or what stands before the first.
    Within,
    /// Behind a delimiter.
    Between,
    End,
}

/// What the headers of a part say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: Option<Vec<u8>>,
    pub(super) file_name: Option<Vec<u8>>,
}

impl Multipart {
    /// Looks for the boundary where it should be said, else at the begin of the body. At most `limit` bytes are taken.
    pub(super) async fn open(headers: &HeaderMap, body: Body, limit: u64) -> Result<Self, Refusal> {
        // The first delimiter has no line break before it.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        let body = Box::pin(body.into_data_stream());
        let mut multipart = Self { body, buffer, delimiter: b"\r\n--".to_vec(), place: Place::Within, parts: 0, room: limit };
        let boundary = match headers.get(header::CONTENT_TYPE).and_then(|value| boundary(value.as_bytes())) {
            Some(boundary) => boundary,
            None => multipart.sniff().await?,
        };
        multipart.delimiter.extend(boundary);
        Ok(multipart)
    }

    /// The boundary from the first line of the body.
    async fn sniff(&mut self) -> Result<Vec<u8>, Refusal> {
        let no_parts = || Refusal::bad("the body must be multipart/form-data with a part `file`");
        loop {
            let text = self.buffer.get(2..).unwrap_or_default();
            if let Some(line) = text.windows(2).position(|pair| pair == b"\r\n").and_then(|end| text.get(..end)) {
                let boundary = line.strip_prefix(b"--").map(<[u8]>::trim_ascii_end).filter(|boundary| is_boundary(boundary));
                return boundary.map(<[u8]>::to_vec).ok_or_else(no_parts);
            }
            let too_long = text.len() > MAX_BOUNDARY.saturating_mul(2);
            if too_long || !self.fill().await? {
                return Err(no_parts());
            }
        }
    }

    /// The next part; what is left of the one before is passed over. `encoded`: file names are percent-encoded.
    pub(super) async fn next(&mut self, encoded: bool) -> Result<Option<Part>, Refusal> {
        while self.place == Place::Within {
            self.chunk().await?;
        }
        loop {
            match self.buffer.get(..2) {
                _ if self.place == Place::End => return Ok(None),
                Some(b"--") => {
                    self.place = Place::End;
                    return Ok(None);
                }
                Some(b"\r\n") => break,
                // Padding, which nobody sends.
                Some([b' ' | b'\t', _]) => drop(self.buffer.split_to(1)),
                Some(_) => return Err(broken()),
                None => self.fill_or_end().await?,
            }
        }
        self.parts = self.parts.saturating_add(1);
        if self.parts > MAX_PARTS {
            return Err(Refusal::bad(format!("the body has more than {MAX_PARTS} parts")));
        }
        // From the line break of the delimiter on, so that no headers at all are nothing special.
        let end = loop {
            match memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                Some(end) if end <= MAX_HEADERS => break end,
                None if self.buffer.len() <= MAX_HEADERS => self.fill_or_end().await?,
                _ => return Err(Refusal::bad("the headers of a part are too long")),
            }
        };
        let head = self.buffer.split_to(end);
        // The second line break of the two belongs to nobody; the first may begin the delimiter of an empty part.
        drop(self.buffer.split_to(2));
        let part = part(&head, encoded);
        let empty = self.buffer.get(..2) == Some(b"\r\n") && self.is_empty_part().await?;
        if !empty {
            drop(self.buffer.split_to(2));
        }
        self.place = Place::Within;
        Ok(Some(part))
    }

    /// Whether the line break that ends the headers begins a delimiter as well.
    async fn is_empty_part(&mut self) -> Result<bool, Refusal> {
        while self.buffer.len() < self.delimiter.len() && self.delimiter.starts_with(&self.buffer) {
            self.fill_or_end().await?;
        }
        Ok(self.buffer.starts_with(&self.delimiter))
    }

    /// The next bytes of the part; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        while self.place == Place::Within {
            match memchr::memmem::find(&self.buffer, &self.delimiter) {
                Some(0) => {
                    drop(self.buffer.split_to(self.delimiter.len()));
                    self.place = Place::Between;
                }
                Some(end) => return Ok(Some(self.buffer.split_to(end).freeze())),
                None => {
                    // The end of what is there may be the begin of a delimiter.
                    let sure = self.buffer.len().saturating_sub(self.delimiter.len().saturating_sub(1));
                    if sure > 0 {
                        return Ok(Some(self.buffer.split_to(sure).freeze()));
                    }
                    self.fill_or_end().await?;
                }
            }
        }
        Ok(None)
    }

    async fn fill_or_end(&mut self) -> Result<(), Refusal> {
        if self.fill().await? { Ok(()) } else { Err(Refusal::bad("the body ends before its last part does")) }
    }

    /// Takes what has arrived. False at the end of the body.
    async fn fill(&mut self) -> Result<bool, Refusal> {
        let Some(bytes) = self.body.next().await else { return Ok(false) };
        let bytes = bytes.map_err(|error| Refusal::of_body(&error, 0))?;
        self.room = self.room.checked_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).ok_or_else(|| Refusal::too_large("the upload is too large"))?;
        self.buffer.extend_from_slice(&bytes);
        Ok(true)
    }

    /// Takes the rest of a body that is refused, within reason.
    pub(super) async fn pass_over(self) {
        pass_over(self.body).await;
    }
}

/// Takes a body that is refused, within reason.
pub(super) async fn pass_over(mut body: Pin<Box<BodyDataStream>>) {
    let all = async {
        let mut left = LEFTOVER;
        while let Some(Ok(bytes)) = body.next().await {
            let Some(rest) = left.checked_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) else { return };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, all).await;
}

fn broken() -> Refusal {
    Refusal::bad("the multipart body is broken")
}

fn is_boundary(boundary: &[u8]) -> bool {
    (1..=MAX_BOUNDARY).contains(&boundary.len()) && boundary.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

/// The boundary of a content type, where it is one of parts.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let starts = content_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"));
    let found = parameters(content_type).into_iter().find(|(name, _)| starts && name == b"boundary");
    found.map(|(_, value)| value).filter(|boundary| is_boundary(boundary))
}

/// What the headers of a part say that matters.
fn part(head: &[u8], encoded: bool) -> Part {
    let mut part = Part::default();
    let lines = head.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?.trim_ascii(), line.get(colon..)?.get(1..)?.trim_ascii()))
    });
    let Some((_, disposition)) = lines.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-disposition")) else { return part };
    let mut extended = None;
    for (name, value) in parameters(disposition) {
        match name.as_slice() {
            b"name" => part.name = Some(value),
            b"filename" => part.file_name = Some(if encoded { percent_decode(&value).collect() } else { form_decoded(&value) }),
            b"filename*" => extended = extended_value(&value),
            _ => {}
        }
    }
    part.file_name = extended.or(part.file_name).filter(|name| !name.is_empty());
    part
}

/// The parameters behind the first word of a header: names in lower case, values without quotes.
pub(super) fn parameters(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut bytes = text.iter().copied().skip_while(|byte| *byte != b';').peekable();
    while bytes.next_if_eq(&b';').is_some() {
        let mut name = Vec::new();
        while let Some(byte) = bytes.next_if(|byte| !matches!(byte, b'=' | b';')) {
            name.push(byte.to_ascii_lowercase());
        }
        let mut value = Vec::new();
        if bytes.next_if_eq(&b'=').is_some() {
            while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
            if bytes.next_if_eq(&b'"').is_some() {
                value = quoted(&mut bytes);
                while bytes.next_if(|byte| *byte != b';').is_some() {}
            } else {
                while let Some(byte) = bytes.next_if(|byte| *byte != b';') {
                    value.push(byte);
                }
                value = value.trim_ascii().to_vec();
            }
        }
        found.push((name.trim_ascii().to_vec(), value));
    }
    found
}

/// What stands in quotes, up to and with the second one.
fn quoted(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> Vec<u8> {
    let mut value = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            // A backslash before anything else is one: names come from Windows, too.
            b'\\' => value.push(bytes.next_if(|next| matches!(next, b'"' | b'\\')).unwrap_or(b'\\')),
            _ => value.push(byte),
        }
    }
    value
}

/// As browsers encode names in forms: quotes and line breaks, and nothing else.
fn form_decoded(value: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        let (byte, next) = match (first, after.get(..2)) {
            (b'%', Some(b"22")) => (b'"', after.get(2..)),
            (b'%', Some(b"0A" | b"0a")) => (b'\n', after.get(2..)),
            (b'%', Some(b"0D" | b"0d")) => (b'\r', after.get(2..)),
            _ => (*first, Some(after)),
        };
        decoded.push(byte);
        rest = next.unwrap_or_default();
    }
    decoded
}

/// `utf-8''na%C3%AFve.txt`
fn extended_value(value: &[u8]) -> Option<Vec<u8>> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _, text) = (parts.next()?, parts.next()?, parts.next()?);
    let decoded: Vec<u8> = percent_decode(text).collect();
    if charset.eq_ignore_ascii_case(b"iso-8859-1") {
        Some(decoded.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes())
    } else {
        Some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, StatusCode};

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())])
    }

    /// A body that arrives in pieces of this size.
    fn body(bytes: &[u8], step: usize) -> Body {
        let pieces: Vec<Result<Bytes, std::io::Error>> = bytes.chunks(step).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    type Files = Vec<(String, String, Vec<u8>)>;

    async fn read(content_type: &str, bytes: &[u8], step: usize, limit: u64) -> Result<Files, Refusal> {
        let mut multipart = Multipart::open(&headers(content_type), body(bytes, step), limit).await?;
        let mut files = Vec::new();
        let text = |value: Option<Vec<u8>>| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
        while let Some(part) = multipart.next(false).await? {
            let mut content = Vec::new();
            while let Some(chunk) = multipart.chunk().await? {
                content.extend_from_slice(&chunk);
            }
            files.push((text(part.name), text(part.file_name), content));
        }
        Ok(files)
    }

    async fn everywhere(content_type: &str, bytes: &[u8]) -> Files {
        let whole = read(content_type, bytes, bytes.len().max(1), 1 << 20).await.unwrap();
        for step in [1, 2, 3, 7, 64] {
            assert_eq!(read(content_type, bytes, step, 1 << 20).await.unwrap(), whole, "in pieces of {step}");
        }
        whole
    }

    fn file(name: &str, content: &[u8]) -> (String, String, Vec<u8>) {
        ("file".to_owned(), name.to_owned(), content.to_vec())
    }

    #[tokio::test]
    async fn bodies_of_real_clients_are_read() {
        // urllib3
        let bytes = b"--f00\r\nContent-Disposition: form-data; name=\"file\"; filename=\"/mnt/data/a.txt\"\r\nContent-Type: application/octet-stream\r\n\r\nhello\r\n--f00--\r\n";
        assert_eq!(everywhere("multipart/form-data; boundary=f00", bytes).await, [file("/mnt/data/a.txt", b"hello")]);
        // aiohttp: other headers first, none of the quotes needed
        let bytes =
            b"--f00\r\nContent-Type: application/octet-stream\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--f00--\r\n";
        assert_eq!(everywhere("multipart/form-data; boundary=f00", bytes).await, [file("a.txt", b"hello")]);
        // .NET: boundary in quotes, names without, no type of the part
        let bytes = b"--7f1d-4b\r\nContent-Disposition: form-data; name=file; filename=a.txt; filename*=utf-8''a.txt\r\n\r\nhello\r\n--7f1d-4b--\r\n";
        assert_eq!(everywhere("multipart/form-data; boundary=\"7f1d-4b\"", bytes).await, [file("a.txt", b"hello")]);
        // langchain4j: a boundary of dashes and digits, the part said to be JSON
        let bytes = b"------1732\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: application/json\r\n\r\nhello\r\n------1732--\r\n";
        assert_eq!(everywhere("multipart/form-data; boundary=----1732", bytes).await, [file("a.txt", b"hello")]);
        // Semantic Kernel for Python: the same, the whole said to be JSON
        assert_eq!(everywhere("application/json", bytes).await, [file("a.txt", b"hello")]);
        assert_eq!(everywhere("multipart/form-data", bytes).await, [file("a.txt", b"hello")]);
    }

    #[tokio::test]
    async fn contents_arrive_byte_by_byte() {
        let content = b"\r\n--f0\r\n--f00x\r\r\n\r\n--f0".as_slice();
        let mut bytes = b"preamble\r\n--f00\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n".to_vec();
        // The delimiter as part of a longer line would be one: clients choose boundaries that do not occur.
        let content: Vec<u8> = String::from_utf8_lossy(content).replace("--f00x", "--f0_x").into_bytes();
        bytes.extend_from_slice(&content);
        bytes.extend_from_slice(
            b"\r\n--f00  \r\nContent-Disposition: form-data; name=\"file\"; filename=\"empty\"\r\n\r\n\r\n--f00\r\n\r\nbare\r\n--f00--\r\nepilogue",
        );
        let files = everywhere("multipart/form-data; charset=utf-8; boundary=f00", &bytes).await;
        assert_eq!(files, [file("a", &content), file("empty", b""), (String::new(), String::new(), b"bare".to_vec())]);
        // An empty part whose own line break is the delimiter's.
        let bytes = b"--f00\r\nContent-Disposition: form-data; name=\"file\"; filename=\"e\"\r\n\r\n--f00--";
        assert_eq!(everywhere("multipart/form-data; boundary=f00", bytes).await, [file("e", b"")]);
    }

    #[tokio::test]
    async fn broken_bodies_are_refused_and_no_more_is_kept_than_fits() {
        let refused = |bytes: Vec<u8>, limit: u64| async move { read("multipart/form-data; boundary=f00", &bytes, 100, limit).await.unwrap_err().status() };
        let head = b"--f00\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n".to_vec();
        assert_eq!(refused(Vec::new(), 1000).await, StatusCode::BAD_REQUEST);
        assert_eq!(refused(b"--f00".to_vec(), 1000).await, StatusCode::BAD_REQUEST);
        assert_eq!(refused(b"--f00\r\nContent-".to_vec(), 1000).await, StatusCode::BAD_REQUEST);
        assert_eq!(refused([head.clone(), b"half".to_vec()].concat(), 1000).await, StatusCode::BAD_REQUEST);
        assert_eq!(refused([head.clone(), b"x\r\n--f00junk".to_vec()].concat(), 1000).await, StatusCode::BAD_REQUEST);
        assert_eq!(refused([b"--f00\r\n".to_vec(), b"x".repeat(100_000)].concat(), 1 << 20).await, StatusCode::BAD_REQUEST);
        assert_eq!(refused([head.clone(), b"x".repeat(2000), b"\r\n--f00--".to_vec()].concat(), 1000).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused(b"--f00\r\n\r\nx\r\n".repeat(MAX_PARTS + 1), 1 << 20).await, StatusCode::BAD_REQUEST);
        for bytes in [b"{\"code\":\"x\"}".as_slice(), b"--\r\n", b"", b"xx\r\n", &b"-".repeat(1000)] {
            assert_eq!(read("application/json", bytes, 10, 10_000).await.unwrap_err().status(), StatusCode::BAD_REQUEST);
        }
    }

    fn file_name(disposition: &str, encoded: bool) -> String {
        let head = format!("\r\ncontent-disposition:form-data; {disposition}");
        String::from_utf8_lossy(&part(head.as_bytes(), encoded).file_name.unwrap_or_default()).into_owned()
    }

    #[test]
    fn names_are_read_however_they_are_written() {
        for (disposition, expected) in [
            (r#"name="file"; filename="a b.txt""#, "a b.txt"),
            (r#"name=file;filename=a.txt"#, "a.txt"),
            (r#"name=file; FileName = "a.txt" "#, "a.txt"),
            (r#"name="file"; filename="a;b=\"c\".txt""#, "a;b=\"c\".txt"),
            (r#"name="file"; filename="C:\dir\a.txt""#, r"C:\dir\a.txt"),
            (r#"name="file"; filename="a%22b%0Ac%41.txt""#, "a\"b\nc%41.txt"),
            (r#"name="file"; filename="é😀.txt""#, "é😀.txt"),
            (r#"name="file"; filename="=?utf-8?B?w6kudHh0?="; filename*=utf-8''%C3%A9.txt"#, "é.txt"),
            (r#"name="file"; filename*=UTF-8'en'a%20b.txt; filename="x""#, "a b.txt"),
            (r#"name="file"; filename*=iso-8859-1''%e9.txt"#, "é.txt"),
            (r#"name="file"; filename*=nonsense; filename="x""#, "x"),
            (r#"name="file"; filename="""#, ""),
            (r#"name="file"; filename="unclosed"#, "unclosed"),
            (r#"name="filename=\"x\"""#, ""),
            (r#"name="file""#, ""),
        ] {
            assert_eq!(file_name(disposition, false), expected, "{disposition}");
        }
        assert_eq!(file_name(r#"name="file"; filename="a%20%C3%A9%2525.txt""#, true), "a é%25.txt");
    }

    #[test]
    fn boundaries_are_read_however_they_are_written() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data;charset=utf-8;Boundary=\"a b'c\"", Some("a b'c")),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data", None),
            ("application/json; boundary=abc", None),
            ("", None),
        ] {
            assert_eq!(boundary(content_type.as_bytes()).map(|found| String::from_utf8(found).unwrap()).as_deref(), expected, "{content_type}");
        }
    }
}
