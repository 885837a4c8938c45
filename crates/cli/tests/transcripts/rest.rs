//! The native routes.

use std::collections::BTreeSet;

use serde_json::json;

use crate::parse::{Execute, Transcript};
use crate::seen::Seen;
use crate::server::{Answer, Server, encoded};
use crate::surface::{Refused, Surface, entry};

/// The native routes of a server.
pub(crate) struct Native {
    server: Server,
    pool: String,
    /// Sessions that are there.
    open: BTreeSet<String>,
}

impl Native {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, pool: String::new(), open: BTreeSet::new() }
    }

    /// Files alone make no session here: code does, and whoever asks for one.
    fn open(&mut self, session: &str) -> Result<(), Refused> {
        if self.open.insert(session.to_owned()) {
            taken(self.server.post(&format!("/v1/sessions?pool={}", self.pool), &json!({"id": session})))?;
        }
        Ok(())
    }

    fn session(&self, session: &str, below: &str) -> String {
        format!("/v1/sessions/{session}{below}?pool={}", self.pool)
    }

    fn file(&self, session: &str, path: &str) -> String {
        self.session(session, &format!("/files/{}", encoded(path)))
    }
}

fn taken(answer: Answer) -> Result<Answer, Refused> {
    if answer.is_success() { Ok(answer) } else { Err(Refused(answer.json()["error"]["code"].as_str().unwrap().to_owned())) }
}

impl Surface for Native {
    fn begin(&mut self, transcript: &Transcript) {
        self.pool = self.server.pool(&transcript.limits);
    }

    fn execute(&mut self, session: &str, execute: &Execute) -> Seen {
        let mut body = json!({"language": if execute.is_shell { "shell" } else { "python" }, "code": execute.code});
        if let Some(seconds) = execute.timeout {
            body["timeoutSeconds"] = json!(seconds);
        }
        if !execute.inputs.is_empty() {
            body["inputs"] = json!(execute.inputs);
        }
        let answer = self.server.post(&self.session(session, "/executions"), &body);
        assert_eq!(answer.status, 200, "{}", answer.json());
        self.open.insert(session.to_owned());
        Seen::of_object(&answer.json())
    }

    fn upload(&mut self, session: &str, path: &str, content: &[u8]) -> Result<(), Refused> {
        self.open(session)?;
        taken(self.server.ask("PUT", &self.file(session, path), Some(("application/octet-stream", content.to_vec())))).map(drop)
    }

    fn download(&mut self, session: &str, path: &str) -> Result<Vec<u8>, Refused> {
        self.open(session)?;
        taken(self.server.get(&self.file(session, path))).map(|answer| answer.body)
    }

    fn list(&mut self, session: &str) -> Result<Vec<String>, Refused> {
        self.open(session)?;
        let answer = taken(self.server.get(&format!("{}&recursive=true", self.session(session, "/files"))))?;
        let entry = |file: &serde_json::Value| entry(file["type"].as_str().unwrap(), file["path"].as_str().unwrap());
        Ok(answer.json()["files"].as_array().unwrap().iter().map(entry).collect())
    }

    fn delete(&mut self, session: &str, path: &str) -> Result<(), Refused> {
        self.open(session)?;
        taken(self.server.delete(&self.file(session, path))).map(drop)
    }

    fn end(&mut self, session: &str) -> Result<(), Refused> {
        self.open.remove(session);
        taken(self.server.delete(&self.session(session, ""))).map(drop)
    }
}
