//! A caller that sends bytes as they are written, and waits for nothing longer than a minute.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value as Json;

/// A request on its way.
pub(crate) struct Request {
    address: SocketAddr,
    head: String,
    is_head: bool,
    body: Option<Vec<u8>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body ended as it should.
    pub(crate) whole: bool,
}

impl Request {
    pub(crate) fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        Self { address, head, is_head: method == "HEAD", body: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn json(self, body: &Json) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends it, and gives the connection.
    pub(crate) fn open(self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = self.body.as_ref().map_or_else(String::new, |body| format!("Content-Length: {}\r\n", body.len()));
        stream.write_all(format!("{}{length}\r\n", self.head).as_bytes()).unwrap();
        if let Some(body) = &self.body {
            // A server that refuses a body may close before it has taken it.
            let _ = stream.write_all(body);
        }
        stream
    }

    /// Sends it, and reads the whole answer.
    pub(crate) fn send(self) -> Answer {
        let is_head = self.is_head;
        Answer::read(&mut BufReader::new(self.open()), is_head)
    }
}

impl Answer {
    /// Reads an answer up to its body.
    pub(crate) fn read_head(reader: &mut impl BufRead) -> Self {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Self { status, headers, body: Vec::new(), whole: false }
    }

    fn read(reader: &mut impl BufRead, is_head: bool) -> Self {
        let mut answer = Self::read_head(reader);
        if is_head || matches!(answer.status, 204 | 304) {
            answer.whole = reader.read_to_end(&mut Vec::new()).unwrap_or_default() == 0;
        } else if answer.header("transfer-encoding").is_some() {
            answer.whole = loop {
                match chunk(reader) {
                    Some(piece) if piece.is_empty() => break true,
                    Some(piece) => answer.body.extend(piece),
                    None => break false,
                }
            };
        } else {
            let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
            let _ = reader.take(length as u64 + 1).read_to_end(&mut answer.body);
            answer.whole = answer.body.len() == length;
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// With this status, or not at all.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text().chars().take(2000).collect::<String>());
        self
    }

    /// An error in the native form, with this status and code.
    #[allow(dead_code, reason = "shared with the tests `mcp`, where refusals have another form")]
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Json {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
        let error = answer.json();
        assert_eq!(error["error"]["code"], code, "{error}");
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()) && error.as_object().unwrap().len() == 1, "{error}");
        error["error"].clone()
    }
}

/// One piece of a body that comes in pieces; `None` where it breaks off.
pub(crate) fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
    let mut piece = vec![0; length + 2];
    reader.read_exact(&mut piece).ok()?;
    piece.truncate(length);
    Some(piece)
}
