//! A server of this user on this data folder, spoken to over its socket: whoever may open that needs no key.
//!
//! Every call is a connection and a small runtime of its own, and blocks until it is over.

use std::fs::File;
use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use engine::{Error, ErrorKind};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::exit::usage;

/// The socket below the data folder.
const SOCKET: &str = "server.sock";
/// What a socket address holds, its final NUL left out.
const ADDRESS_BYTES: usize = 107;
/// An answer begins by then: a session may wait for its place.
const PATIENCE: Duration = Duration::from_secs(120);
/// Something is heard by then, be it a comment that says that nothing happens.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of a file sent at once.
const PIECE: usize = 256 * 1024;
/// An answer that is read whole is at most so long.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A running server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    folder: PathBuf,
}

/// An event of an execution.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// What happened.
    pub(crate) name: String,
    /// JSON.
    pub(crate) data: String,
}

impl Server {
    /// The server of this user on this data folder, if one runs.
    ///
    /// # Errors
    /// Somebody else answers there.
    pub(crate) fn find(data: &Path) -> anyhow::Result<Option<Self>> {
        let server = Self { folder: data.to_owned() };
        Ok(server.connect()?.map(|_| server))
    }

    /// Connects, and makes sure that who answers is the user that we are.
    fn connect(&self) -> anyhow::Result<Option<UnixStream>> {
        let path = self.folder.join(SOCKET);
        let connected = if path.as_os_str().as_bytes().len() > ADDRESS_BYTES { connect_below(&self.folder) } else { UnixStream::connect(&path) };
        let stream = match connected {
            Ok(stream) => stream,
            // No server, one that has ended, or one that is not for us.
            Err(error) if matches!(error.kind(), Io::NotFound | Io::ConnectionRefused | Io::PermissionDenied | Io::NotADirectory) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot connect to the server at `{}`", path.display())),
        };
        let (user, peer) = (rustix::process::geteuid(), rustix::net::sockopt::socket_peercred(&stream).context("cannot tell who answers at the socket")?);
        if peer.uid == user {
            return Ok(Some(stream));
        }
        if peer.uid.is_root() {
            return Ok(None);
        }
        let message = format!("user {} answers at the socket `{}`", peer.uid.as_raw(), path.display());
        Err(usage(message, "ask as that user, or remove the socket if it does not belong there"))
    }

    /// Asks, and reads the answer whole.
    ///
    /// # Errors
    /// What the server answered; it cannot be reached.
    pub(crate) fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Json>) -> anyhow::Result<T> {
        self.run(async |server| {
            let response = server.send(request(method, path, body)?).await?;
            let bytes = collect(response).await?;
            let bytes = if bytes.is_empty() { b"null".as_slice() } else { &bytes };
            serde_json::from_slice(bytes).context("the server's answer is not what was expected")
        })
    }

    /// Sends a file.
    ///
    /// # Errors
    /// What the server answered; the file cannot be read.
    pub(crate) fn put(&self, path: &str, file: File) -> anyhow::Result<()> {
        let size = file.metadata().map(|facts| facts.len()).context("cannot read the file")?;
        self.run(async |server| {
            let pieces = stream::unfold(file.take(size), |mut file| async move {
                let mut piece = vec![0; PIECE];
                // Blocks, and nothing else runs here.
                match file.read(&mut piece) {
                    Ok(0) => None,
                    Ok(count) => {
                        piece.truncate(count);
                        Some((Ok(Frame::data(Bytes::from(piece))), file))
                    }
                    Err(error) => Some((Err(error), file)),
                }
            });
            let request = Request::put(path).header(header::HOST, "localhost").header(header::CONTENT_LENGTH, size);
            let response = server.send(request.body(BodyExt::boxed_unsync(StreamBody::new(pieces)))?).await?;
            collect(response).await.map(drop)
        })
    }

    /// Fetches bytes, from one of them on. Returns their number.
    ///
    /// # Errors
    /// What the server answered, or what writing came to.
    pub(crate) fn fetch(&self, path: &str, from: u64, into: &mut dyn Write) -> anyhow::Result<u64> {
        self.run(async |server| {
            let request = Request::get(path).header(header::HOST, "localhost").header(header::RANGE, format!("bytes={from}-"));
            let response = server.send(request.body(empty())?).await?;
            // Nothing is there from that byte on.
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(0);
            }
            let mut response = successful(response).await?;
            let mut count = 0_u64;
            while let Some(data) = next(&mut response).await? {
                into.write_all(&data)?;
                count = count.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            }
            Ok(count)
        })
    }

    /// Asks for something whose answer is a stream of events, and passes each on as it comes.
    ///
    /// # Errors
    /// What the server answered; the stream broke off.
    pub(crate) fn events(&self, path: &str, body: &Json, mut each: impl FnMut(Event)) -> anyhow::Result<()> {
        self.run(async |server| {
            let mut request = request(Method::POST, path, Some(body))?;
            request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static("text/event-stream"));
            let mut response = successful(server.send(request).await?).await?;
            let mut parser = Parser::default();
            while let Some(data) = next(&mut response).await? {
                parser.push(&data, &mut each);
            }
            Ok(())
        })
    }

    /// Runs one exchange to its end.
    fn run<T>(&self, exchange: impl AsyncFnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot talk to the server")?;
        runtime.block_on(exchange(self))
    }

    async fn send(&self, request: Request<Body>) -> anyhow::Result<Response<Incoming>> {
        let Some(stream) = self.connect()? else { bail!(broken("the server has ended")) };
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer, or with this runtime.
        tokio::spawn(connection);
        match tokio::time::timeout(PATIENCE, sender.send_request(request)).await {
            Ok(response) => response.map_err(|error| broken(&format!("the server broke off: {error}")).into()),
            Err(_) => bail!(broken("the server does not answer")),
        }
    }
}

/// What is said where the server is not what it was.
pub(crate) fn broken(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, message).hint("look at the server's log")
}

/// Connects to the socket in a folder whose path is longer than an address holds.
fn connect_below(folder: &Path) -> std::io::Result<UnixStream> {
    use rustix::fs::{Mode, OFlags};
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

fn empty() -> Body {
    BodyExt::boxed_unsync(Full::new(Bytes::new()).map_err(|never| match never {}))
}

fn request(method: Method, path: &str, body: Option<&Json>) -> anyhow::Result<Request<Body>> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    let Some(body) = body else { return Ok(request.body(empty())?) };
    let body = Full::new(Bytes::from(serde_json::to_vec(body)?)).map_err(|never| match never {});
    Ok(request.header(header::CONTENT_TYPE, "application/json").body(BodyExt::boxed_unsync(body))?)
}

async fn next(response: &mut Response<Incoming>) -> anyhow::Result<Option<Bytes>> {
    loop {
        let Ok(frame) = tokio::time::timeout(SILENCE, response.body_mut().frame()).await else { bail!(broken("the server fell silent")) };
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| broken(&format!("the server broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

async fn collect(response: Response<Incoming>) -> anyhow::Result<Vec<u8>> {
    let mut response = successful(response).await?;
    whole(&mut response).await
}

async fn whole(response: &mut Response<Incoming>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(data) = next(response).await? {
        if bytes.len().saturating_add(data.len()) > MAX_ANSWER {
            bail!(broken("the server's answer is too long"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The answer, where it is one; else the error that it tells.
async fn successful(mut response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let bytes = whole(&mut response).await?;
    Err(refusal(status, &bytes).into())
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Error {
    let body: Json = serde_json::from_slice(bytes).unwrap_or_default();
    match body.get("error").and_then(told) {
        Some(error) => error,
        None => Error::new(ErrorKind::Internal, format!("the server answered {status}")).hint("look at the server's log"),
    }
}

/// An error as the native surface tells it: `code`, `message`, `hint`.
pub(crate) fn told(error: &Json) -> Option<Error> {
    let text = |name: &str| error.get(name).and_then(Json::as_str).map(str::to_owned);
    let kind = match text("code")?.as_str() {
        "invalid_request" => ErrorKind::InvalidRequest,
        "unauthenticated" => ErrorKind::Unauthenticated,
        "denied" => ErrorKind::Denied,
        "not_found" => ErrorKind::NotFound,
        "conflict" => ErrorKind::Conflict,
        "too_large" => ErrorKind::TooLarge,
        "limit" => ErrorKind::Limit,
        "unavailable" => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Some(Error { hint: text("hint"), ..Error::new(kind, text("message")?) })
}

/// Takes server-sent events apart, however they are cut.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    event: Event,
}

impl Parser {
    fn push(&mut self, bytes: &[u8], each: &mut impl FnMut(Event)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(end);
            self.line.extend_from_slice(head);
            rest = tail.get(1..).unwrap_or_default();
            let line = String::from_utf8(std::mem::take(&mut self.line));
            self.take(line.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()), each);
        }
        self.line.extend_from_slice(rest);
    }

    /// Takes a line. It may be very long: nothing of it is copied.
    fn take(&mut self, mut line: String, each: &mut impl FnMut(Event)) {
        line.truncate(line.trim_end_matches('\r').len());
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if !event.name.is_empty() {
                each(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let start = line.len().saturating_sub(value.strip_prefix(' ').unwrap_or(value).len());
        let place = match field {
            "event" => &mut self.event.name,
            "data" => &mut self.event.data,
            // Ids and comments say nothing to us.
            _ => return,
        };
        line.drain(..start);
        *place = line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8], size: usize) -> Vec<(String, String)> {
        let (mut parser, mut seen) = (Parser::default(), Vec::new());
        for piece in text.chunks(size) {
            parser.push(piece, &mut |event| seen.push((event.name, event.data)));
        }
        seen
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = "id: 1\nevent: started\ndata: {\"id\":\"exe_1\"}\n\n: still here\n\nevent:stdout\r\ndata: {\"text\":\"€: x\"}\r\n\r\nevent: cut".as_bytes();
        let expected = [("started", r#"{"id":"exe_1"}"#), ("stdout", r#"{"text":"€: x"}"#)].map(|(name, data)| (name.to_owned(), data.to_owned()));
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(parsed(text, size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn errors_keep_their_kind_and_their_hint() {
        let error = refusal(StatusCode::NOT_FOUND, br#"{"error":{"code":"not_found","message":"there is no pool `x`","hint":"h"}}"#);
        assert_eq!((error.kind, error.message.as_str(), error.hint.as_deref()), (ErrorKind::NotFound, "there is no pool `x`", Some("h")));
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Internal, "the server answered 502 Bad Gateway"));
    }

    #[test]
    fn only_a_server_that_runs_is_found() {
        let home = tempfile::tempdir().unwrap();
        assert!(Server::find(&home.path().join("none")).unwrap().is_none());
        assert!(Server::find(home.path()).unwrap().is_none());
        drop(std::os::unix::net::UnixListener::bind(home.path().join(SOCKET)).unwrap());
        assert!(Server::find(home.path()).unwrap().is_none(), "one that has ended leaves its socket");
        let long = home.path().join("x".repeat(100)).join("y".repeat(100));
        std::fs::create_dir_all(&long).unwrap();
        std::fs::remove_file(home.path().join(SOCKET)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(home.path().join(SOCKET)).unwrap();
        assert!(Server::find(home.path()).unwrap().is_some());
        std::fs::rename(home.path().join(SOCKET), long.join(SOCKET)).unwrap();
        assert!(Server::find(&long).unwrap().is_some(), "the path is longer than an address holds");
    }
}
