//! A client of the protocol: it sends messages, and sees what comes back, whole or event by event.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::client::{Answer, Request, chunk};
use crate::scene::{ALICE, Scene};

pub(crate) const BOTH: &str = "application/json, text/event-stream";
pub(crate) const NEWEST: &str = "2026-07-28";

impl Scene {
    /// A request with a caller's key in the header of container apps.
    pub(crate) fn keyed(&self, caller: &str, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target).header("x-ms-apikey", self.key(caller))
    }

    /// A request with Alice's key whose head, `Host` and all, is written by the test; its status.
    pub(crate) fn raw(&self, line: &str, head: &str, body: &str) -> u16 {
        let key = self.key(ALICE);
        let text = format!("{line} HTTP/1.1\r\n{head}Authorization: Bearer {key}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        Answer::read_head(&mut BufReader::new(stream)).status
    }

    /// Revokes a caller's key.
    pub(crate) fn revoke(&self, caller: &str) {
        self.store.revoke_key(&self.keys[caller].info.id, "test").unwrap();
    }
}

/// A connection.
pub(crate) struct Peer<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) caller: &'static str,
    pub(crate) id: String,
    pub(crate) revision: String,
}

/// A request of a method.
pub(crate) fn message(id: i64, method: &str, params: &Json) -> Json {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// A call of a tool, under an id that no other message has.
pub(crate) fn tool(name: &str, arguments: &Json) -> Json {
    static NEXT: AtomicI64 = AtomicI64::new(1000);
    message(NEXT.fetch_add(1, Ordering::Relaxed), "tools/call", &json!({"name": name, "arguments": arguments}))
}

/// The hello of a revision.
pub(crate) fn hello(revision: &str) -> Json {
    message(1, "initialize", &json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}))
}

impl<'a> Peer<'a> {
    pub(crate) fn connect(scene: &'a Scene) -> Self {
        Self::connect_as(scene, ALICE, "2025-11-25")
    }

    pub(crate) fn connect_as(scene: &'a Scene, caller: &'static str, revision: &str) -> Self {
        let answer = scene.ask_as(caller, "POST", "/mcp").header("Accept", BOTH).json(&hello(revision)).send().expect(200);
        let revision = answer.json()["result"]["protocolVersion"].as_str().unwrap().to_owned();
        let peer = Self { scene, caller, id: answer.header("mcp-session-id").unwrap().to_owned(), revision };
        peer.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().expect(202);
        peer
    }

    /// A request of this connection.
    pub(crate) fn ask(&self, method: &str) -> Request {
        let request = self.scene.ask_as(self.caller, method, "/mcp").header("Mcp-Session-Id", &self.id);
        request.header("MCP-Protocol-Version", &self.revision).header("Accept", BOTH)
    }

    pub(crate) fn post(&self, message: &Json) -> Request {
        self.ask("POST").json(message)
    }

    /// The result of a tool.
    pub(crate) fn call(&self, name: &str, arguments: &Json) -> Json {
        let answer = last(&self.post(&tool(name, arguments)).send().expect(200));
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    }

    /// What Python code comes to.
    pub(crate) fn python(&self, code: &str) -> Json {
        self.call("ExecutePythonCode", &json!({"pythonCode": code}))
    }
}

/// A request of the revision without connections.
pub(crate) fn alone(scene: &Scene, method: &str, params: &Json) -> Request {
    let mut params = params.clone();
    let version = json!({"io.modelcontextprotocol/protocolVersion": NEWEST, "io.modelcontextprotocol/clientCapabilities": {}});
    let meta = params["_meta"].take();
    params["_meta"] = version;
    if let Some(meta) = meta.as_object() {
        params["_meta"].as_object_mut().unwrap().extend(meta.clone());
    }
    let mut request = scene.ask("POST", "/mcp").header("MCP-Protocol-Version", NEWEST).header("Mcp-Method", method).header("Accept", BOTH);
    if let Some(name) = params["name"].as_str().or_else(|| params["uri"].as_str()) {
        request = request.header("Mcp-Name", name);
    }
    request.json(&message(7, method, &params))
}

/// The texts of a result.
pub(crate) fn text(result: &Json) -> String {
    let content = result["content"].as_array().unwrap_or_else(|| panic!("no content: {result}"));
    content.iter().filter_map(|block| block["text"].as_str()).collect()
}

/// Messages of an answer, whatever its form.
pub(crate) fn messages(answer: &Answer) -> Vec<Json> {
    if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return answer
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix("data: ").filter(|data| !data.is_empty()))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
    }
    vec![answer.json()]
}

/// The last message: the answer.
pub(crate) fn last(answer: &Answer) -> Json {
    messages(answer).pop().unwrap_or_else(|| panic!("no message: {answer:?}"))
}

/// A stream that is read event by event.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    pub(crate) head: Answer,
    text: String,
}

/// An event: its id, and its message where it has one.
pub(crate) type Event = (Option<String>, Option<Json>);

impl Stream {
    pub(crate) fn open(request: Request) -> Self {
        let mut reader = BufReader::new(request.open());
        let head = Answer::read_head(&mut reader);
        Self { reader, head, text: String::new() }
    }

    /// The next event; `None` where the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                if event.starts_with(':') {
                    continue;
                }
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
                let data = field("data:").filter(|data| !data.is_empty()).map(|data| serde_json::from_str(&data).unwrap());
                return Some((field("id:"), data));
            }
            let piece = chunk(&mut self.reader).filter(|piece| !piece.is_empty())?;
            self.text.push_str(&String::from_utf8(piece).unwrap());
        }
    }
}
