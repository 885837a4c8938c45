//! The tools of MCP, each call by itself with the session as an argument. What no tool does, ending a session and removing a file, is asked of the
//! native routes.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as Json, json};

use crate::parse::{Execute, Transcript};
use crate::seen::Seen;
use crate::server::{Server, encoded};
use crate::surface::{Refused, Surface, entry};

/// The least seconds that a tool takes.
const MIN_SECONDS: u64 = 5;

/// The tools of a server.
pub(crate) struct Tools {
    server: Server,
    pool: String,
    /// Sessions that are there.
    open: BTreeSet<String>,
}

impl Tools {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, pool: String::new(), open: BTreeSet::new() }
    }

    /// Files alone make no session here: code does, and an upload.
    fn open(&mut self, session: &str) {
        if self.open.insert(session.to_owned()) {
            let answer = self.server.post(&format!("/v1/sessions?pool={}", self.pool), &json!({"id": session}));
            assert!(answer.is_success() || answer.status == 409, "{}", answer.json());
        }
    }

    fn ask(&self, method: &str, params: &Json) -> Json {
        let answer = self.server.post(&format!("/mcp?pool={}", self.pool), &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()
    }

    /// Calls a tool; what it refuses carries the code of the native routes.
    fn call(&self, session: &str, tool: &str, mut arguments: Json) -> Result<Json, Refused> {
        arguments["sessionId"] = json!(session);
        let mut answer = self.ask("tools/call", &json!({"name": tool, "arguments": arguments}));
        let mut result = answer["result"].take();
        match result["_meta"]["belljar/error"]["code"].as_str() {
            Some(code) => Err(Refused(code.to_owned())),
            None => Ok(result["structuredContent"].take()),
        }
    }
}

impl Surface for Tools {
    fn begin(&mut self, transcript: &Transcript) {
        self.pool = self.server.pool(&transcript.limits);
    }

    fn execute(&mut self, session: &str, execute: &Execute) -> Seen {
        assert!(execute.inputs.is_empty(), "no tool takes inputs");
        let (tool, parameter) = if execute.is_shell { ("RunShellCommand", "command") } else { ("ExecutePythonCode", "pythonCode") };
        let mut arguments = json!({parameter: execute.code});
        if let Some(seconds) = execute.timeout {
            arguments["timeoutSeconds"] = json!(seconds.max(MIN_SECONDS));
        }
        let object = self.call(session, tool, arguments).unwrap_or_else(|refused| panic!("{}: {refused:?}", execute.code));
        self.open.insert(session.to_owned());
        Seen::of_object(&object)
    }

    fn upload(&mut self, session: &str, path: &str, content: &[u8]) -> Result<(), Refused> {
        self.call(session, "UploadFileToSession", json!({"fileName": path, "contentBase64": BASE64_STANDARD.encode(content)})).map(drop)?;
        self.open.insert(session.to_owned());
        Ok(())
    }

    fn download(&mut self, session: &str, path: &str) -> Result<Vec<u8>, Refused> {
        self.open(session);
        let uri = format!("belljar://sessions/{session}/files/{}?pool={}", encoded(path), self.pool);
        let answer = self.ask("resources/read", &json!({"uri": uri}));
        if let Some(code) = answer["error"]["data"]["code"].as_str() {
            return Err(Refused(code.to_owned()));
        }
        let contents = &answer["result"]["contents"][0];
        Ok(contents["text"].as_str().map_or_else(|| BASE64_STANDARD.decode(contents["blob"].as_str().unwrap()).unwrap(), |text| text.as_bytes().to_vec()))
    }

    fn list(&mut self, session: &str) -> Result<Vec<String>, Refused> {
        self.open(session);
        let listed = self.call(session, "ListSessionFiles", json!({"recursive": true}))?;
        Ok(listed["files"].as_array().unwrap().iter().map(|file| entry(file["type"].as_str().unwrap(), file["path"].as_str().unwrap())).collect())
    }

    fn delete(&mut self, session: &str, path: &str) -> Result<(), Refused> {
        self.open(session);
        let answer = self.server.delete(&format!("/v1/sessions/{session}/files/{}?pool={}", encoded(path), self.pool));
        if answer.is_success() { Ok(()) } else { Err(Refused(answer.json()["error"]["code"].as_str().unwrap().to_owned())) }
    }

    fn end(&mut self, session: &str) -> Result<(), Refused> {
        self.open.remove(session);
        let answer = self.server.delete(&format!("/v1/sessions/{session}?pool={}", self.pool));
        if answer.is_success() { Ok(()) } else { Err(Refused(answer.json()["error"]["code"].as_str().unwrap().to_owned())) }
    }
}
