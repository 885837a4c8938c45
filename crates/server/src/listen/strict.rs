//! A look at what comes in before the parser takes it: what two parsers could read in two ways is made unreadable, so that it ends in 400 and
//! the end of the connection. Bare CR and LF, folded headers, a length beside a transfer coding, two lengths, two hosts, absolute forms, HTTP/0.9.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The longest line of a head; the parser behind gives up before.
const MAX_LINE: usize = 64 * 1024;
/// The longest line with the size of a chunk.
const MAX_CHUNK_LINE: usize = 256;
/// What is read and thrown away after the last answer, so that who is still sending gets to see it: this much, and this long.
const LINGER_BYTES: u64 = 64 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// Where in a message we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a request line.
    Between,
    /// In a head, after its first line has begun.
    Head,
    /// In a body with so many bytes to come.
    Body(u64),
    /// In the line with the size of a chunk.
    ChunkSize,
    /// In a chunk with so many bytes to come.
    Chunk(u64),
    /// In the line end after a chunk.
    ChunkEnd,
    /// After the last chunk.
    Trailer,
}

/// What a head has said so far.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    request_line: bool,
    old: bool,
    length: Option<u64>,
    chunked: bool,
    host: bool,
}

/// Follows messages byte by byte.
#[derive(Debug)]
struct Scanner {
    place: Place,
    line: Vec<u8>,
    return_seen: bool,
    said: Said,
}

/// This is no message, or more than one.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

impl Scanner {
    const fn new() -> Self {
        Self {
            place: Place::Between,
            line: Vec::new(),
            return_seen: false,
            said: Said { request_line: false, old: false, length: None, chunked: false, host: false },
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The index of the byte at which it is clear that they cannot be taken.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            let at = bytes.len() - rest.len();
            match &mut self.place {
                Place::Body(left) | Place::Chunk(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= skipped as u64;
                    if *left == 0 {
                        self.place = if matches!(self.place, Place::Chunk(_)) { Place::ChunkEnd } else { Place::Between };
                    }
                    rest = rest.get(skipped..).unwrap_or_default();
                }
                _ => {
                    self.take(byte).map_err(|_| at)?;
                    rest = after;
                }
            }
        }
        Ok(())
    }

    /// Takes a byte of a line.
    fn take(&mut self, byte: u8) -> Result<(), Ambiguous> {
        if self.place == Place::Between && byte != b'\r' && byte != b'\n' {
            self.place = Place::Head;
        }
        match (self.return_seen, byte) {
            (true, b'\n') => {
                self.return_seen = false;
                let line = std::mem::take(&mut self.line);
                let ended = self.end_line(&line);
                // The room is kept for the next line.
                self.line = line;
                self.line.clear();
                ended
            }
            (true, _) | (false, b'\n' | 0) => Err(Ambiguous),
            (false, b'\r') => {
                self.return_seen = true;
                Ok(())
            }
            (false, byte) => {
                let most = if matches!(self.place, Place::ChunkSize | Place::ChunkEnd) { MAX_CHUNK_LINE } else { MAX_LINE };
                if self.line.len() >= most {
                    return Err(Ambiguous);
                }
                self.line.push(byte);
                Ok(())
            }
        }
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        match self.place {
            // Empty lines before a request are allowed.
            Place::Between | Place::Body(_) | Place::Chunk(_) => Ok(()),
            Place::Head if !self.said.request_line => self.request_line(line),
            Place::Head if line.is_empty() => self.end_head(),
            Place::Head => self.header(line),
            Place::ChunkSize => self.chunk_size(line),
            Place::ChunkEnd if line.is_empty() => {
                self.place = Place::ChunkSize;
                Ok(())
            }
            Place::ChunkEnd => Err(Ambiguous),
            Place::Trailer if line.is_empty() => {
                self.place = Place::Between;
                Ok(())
            }
            Place::Trailer => match name_and_value(line)?.0.to_ascii_lowercase().as_slice() {
                b"content-length" | b"transfer-encoding" | b"host" => Err(Ambiguous),
                _ => Ok(()),
            },
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return Err(Ambiguous) };
        let own_form = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
        if !is_token(method) || !own_form || target.iter().any(|byte| byte.is_ascii_control()) {
            return Err(Ambiguous);
        }
        self.said.old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Ambiguous),
        };
        self.said.request_line = true;
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let (name, value) = name_and_value(line)?;
        match name.to_ascii_lowercase().as_slice() {
            b"content-length" => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok()).ok_or(Ambiguous)?;
                if self.said.length.replace(length).is_some() { Err(Ambiguous) } else { Ok(()) }
            }
            b"transfer-encoding" => {
                let again = std::mem::replace(&mut self.said.chunked, true);
                if again || self.said.old || !value.eq_ignore_ascii_case(b"chunked") { Err(Ambiguous) } else { Ok(()) }
            }
            b"host" => {
                if std::mem::replace(&mut self.said.host, true) {
                    Err(Ambiguous)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    fn end_head(&mut self) -> Result<(), Ambiguous> {
        let said = std::mem::take(&mut self.said);
        self.place = match (said.chunked, said.length) {
            (true, Some(_)) => return Err(Ambiguous),
            (true, None) => Place::ChunkSize,
            (false, Some(length)) if length > 0 => Place::Body(length),
            (false, _) => Place::Between,
        };
        Ok(())
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Ambiguous);
        }
        let size = std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or(Ambiguous)?;
        self.place = if size == 0 { Place::Trailer } else { Place::Chunk(size) };
        Ok(())
    }
}

/// A header's name and its value without the space around.
fn name_and_value(line: &[u8]) -> Result<(&[u8], &[u8]), Ambiguous> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Ambiguous)?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    // A folded line begins with space, and so has no name.
    if !is_token(name) || value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Ambiguous);
    }
    Ok((name, value.trim_ascii()))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// A connection of which only what is clear is read, whose heads come in time, and which waits a little before it closes.
pub(super) struct Strict<S> {
    inner: S,
    scanner: Scanner,
    header_timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    poisoned: bool,
    lingering: Option<(Pin<Box<Sleep>>, u64)>,
}

impl<S> Strict<S> {
    pub(super) fn new(inner: S, header_timeout: Duration) -> Self {
        Self { inner, scanner: Scanner::new(), header_timeout, deadline: None, poisoned: false, lingering: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poisoned {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = &read {
            let fresh = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            if let Err(at) = this.scanner.feed(fresh) {
                // No parser takes this byte, and nothing after it is seen.
                if let Some(byte) = fresh.get_mut(at) {
                    *byte = 0;
                }
                buffer.set_filled(before + at + 1);
                this.poisoned = true;
            }
        }
        if this.scanner.place != Place::Head {
            this.deadline = None;
            return read;
        }
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.header_timeout)));
        match read {
            Poll::Pending if deadline.as_mut().poll(context).is_ready() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            read => read,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    /// Says that no more will come, then reads a little of what is still on its way: a connection closed with something unread takes the
    /// last answer with it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            std::task::ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
        }
        let (until, left) = this.lingering.get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), LINGER_BYTES));
        let mut waste = [0; 16 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            if until.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let read = std::task::ready!(Pin::new(&mut this.inner).poll_read(context, &mut buffer));
            let count = buffer.filled().len() as u64;
            if read.is_err() || count == 0 || count > *left {
                return Poll::Ready(Ok(()));
            }
            *left -= count;
        }
    }
}

/// What is made of bytes, for `fuzz/`.
#[cfg(feature = "fuzzing")]
#[derive(Debug, PartialEq, Eq)]
pub struct Framing {
    /// Where each head ended: how many bytes stand before what follows it. Known where bytes come one by one.
    pub heads: Vec<usize>,
    /// The byte that made it ambiguous.
    pub ambiguous: Option<usize>,
}

/// Scans bytes that come in pieces of this length.
#[cfg(feature = "fuzzing")]
#[must_use]
pub fn framing(bytes: &[u8], step: usize) -> Framing {
    let (mut scanner, mut framing) = (Scanner::new(), Framing { heads: Vec::new(), ambiguous: None });
    let mut seen = 0_usize;
    for piece in bytes.chunks(step.max(1)) {
        let before = scanner.place;
        if let Err(at) = scanner.feed(piece) {
            framing.ambiguous = Some(seen.saturating_add(at));
            break;
        }
        seen = seen.saturating_add(piece.len());
        if step == 1 && before == Place::Head && scanner.place != Place::Head {
            framing.heads.push(seen);
        }
    }
    framing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &[u8]) -> Result<Place, usize> {
        let mut whole = Scanner::new();
        let at_once = whole.feed(text).map(|()| whole.place);
        // Byte by byte it comes to the same.
        let mut scanner = Scanner::new();
        let mut one_by_one = Ok(Place::Between);
        for (index, byte) in text.iter().enumerate() {
            one_by_one = scanner.feed(&[*byte]).map(|()| scanner.place).map_err(|_| index);
            if one_by_one.is_err() {
                break;
            }
        }
        assert_eq!(at_once, one_by_one, "{}", String::from_utf8_lossy(text));
        at_once
    }

    #[test]
    fn clear_messages_pass() {
        for (text, place) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Place::Between),
            ("\r\nGET /a?b=%20 HTTP/1.0\r\n\r\n", Place::Between),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Place::Between),
            ("POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\n\r\n\nab", Place::Body(2)),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  3 \r\n\r\n\r\n\rGET / HTTP/1.1\r\n\r\n", Place::Between),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\n\n\0\r\r\nA\r\nab", Place::Chunk(8)),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n", Place::Between),
            ("GET / HTTP/1.1\r\nHost: a\r\nx: \"\tbä\"\r\n", Place::Head),
        ] {
            assert_eq!(scan(text.as_bytes()), Ok(place), "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_does_not_pass() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\n";
        for text in [
            "GET /\r\n".to_owned(),
            "GET  / HTTP/1.1\r\n".to_owned(),
            "GET / HTTP/1.1 \r\n".to_owned(),
            "GET / HTTP/2.0\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n".to_owned(),
            "GET http://a/ HTTP/1.1\r\n".to_owned(),
            "GET a HTTP/1.1\r\n".to_owned(),
            "CONNECT a:1 HTTP/1.1\r\n".to_owned(),
            "GET / HTTP/1.1\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\rb".to_owned(),
            "GET / HTTP/1.1\r\n\tHost: a\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost : a\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost\r\n".to_owned(),
            "GET / HTTP/1.1\r\nx: a\0".to_owned(),
            format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n"),
            format!("{post}Content-Length: 5, 5\r\n"),
            format!("{post}Content-Length: +5\r\n"),
            format!("{post}Content-Length: \r\n"),
            format!("{post}Content-Length: 99999999999999999999\r\n"),
            format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
            format!("{post}Transfer-Encoding: gzip, chunked\r\n"),
            format!("{post}Transfer-Encoding: xchunked\r\n"),
            format!("{post}Transfer-Encoding : chunked\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n3\nabc"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n 3\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n0x3\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n12345678901234567\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(MAX_CHUNK_LINE)),
            format!("GET /{}", "x".repeat(MAX_LINE)),
        ] {
            assert!(scan(text.as_bytes()).is_err(), "{text}");
        }
    }
}
