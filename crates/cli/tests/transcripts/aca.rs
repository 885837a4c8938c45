//! The routes of dynamic sessions, old and new.

use serde_json::{Value as Json, json};

use crate::parse::{Execute, Transcript};
use crate::seen::{Seen, Value};
use crate::server::{Answer, Server, encoded};
use crate::surface::{Kind, Refused, Surface, entry};

/// What stderr ends with where variables are gone.
const LOST: &str = "the variables of this session are lost; its files are kept";

/// One family of routes of a server.
pub(crate) struct DynamicSessions {
    kind: Kind,
    server: Server,
    pool: String,
}

impl DynamicSessions {
    pub(crate) fn new(kind: Kind, server: Server) -> Self {
        Self { kind, server, pool: String::new() }
    }

    fn is_old(&self) -> bool {
        self.kind == Kind::AcaOld
    }

    /// Both families know all ways to name a pool; clients of their times use these.
    fn target(&self, session: &str, path: &str) -> String {
        match self.is_old() {
            true if self.pool == "default" => format!("{path}?api-version=2024-02-02-preview&identifier={session}"),
            true => format!("/pools/{}{path}?api-version=2024-02-02-preview&identifier={session}", self.pool),
            false => format!("/subscriptions/s/resourceGroups/g/sessionPools/{}{path}?api-version=2025-10-02-preview&identifier={session}", self.pool),
        }
    }

    /// The target of a file, by its whole path or by its folder and its name.
    fn file(&self, session: &str, path: &str, suffix: &str) -> String {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let path = if self.is_old() { path } else { name };
        let target = self.target(session, &format!("/files/{}{suffix}", encoded(path)));
        if self.is_old() || folder.is_empty() { target } else { format!("{target}&path={}", encoded(folder)) }
    }
}

fn taken(answer: Answer) -> Result<Answer, Refused> {
    if answer.is_success() {
        return Ok(answer);
    }
    let code = match answer.json()["error"]["code"].as_str().unwrap() {
        "InvalidRequest" => "invalid_request".to_owned(),
        "ResourceNotFound" => "not_found".to_owned(),
        "Conflict" => "conflict".to_owned(),
        "RequestEntityTooLarge" => "too_large".to_owned(),
        other => other.to_owned(),
    };
    Err(Refused(code))
}

/// What both families tell in the same way.
fn seen(told: &Json, result: &Json) -> Seen {
    let text = |name: &str| told[name].as_str().unwrap_or_else(|| panic!("`{name}` is a text: {told}")).to_owned();
    let stderr = text("stderr");
    let picture = (result["type"] == "image").then(|| format!("image/{}", result["format"].as_str().unwrap()));
    if picture.is_some() {
        assert!(result["base64_data"].as_str().is_some_and(|data| !data.is_empty()), "{result}");
    }
    let value = match result {
        Json::Null => None,
        Json::String(text) if text.is_empty() => None,
        _ if picture.is_some() => None,
        typed => Some(Value::Typed(typed.clone())),
    };
    Seen {
        stdout: text("stdout"),
        state_lost: stderr.ends_with(LOST),
        stderr: stderr.trim_end_matches(LOST).to_owned(),
        error_in_stderr: true,
        result: value,
        pictures: picture.into_iter().collect(),
        ..Seen::default()
    }
}

impl Surface for DynamicSessions {
    fn begin(&mut self, transcript: &Transcript) {
        self.pool = self.server.pool(&transcript.limits);
    }

    fn execute(&mut self, session: &str, execute: &Execute) -> Seen {
        let code = if execute.is_shell { "shellCommand" } else { "code" };
        let mut body = json!({"codeInputType": "inline", "executionType": "synchronous"});
        body[code] = json!(execute.code);
        if let Some(seconds) = execute.timeout {
            body["timeoutInSeconds"] = json!(seconds);
        }
        if self.is_old() {
            let answer = self.server.post(&self.target(session, "/code/execute"), &json!({"properties": body}));
            assert_eq!(answer.status, 200, "{}", answer.json());
            let properties = &answer.json()["properties"];
            return Seen { outcome: properties["status"].as_str().unwrap().to_owned(), ..seen(properties, &properties["result"]) };
        }
        let answer = self.server.post(&self.target(session, "/executions"), &body);
        assert_eq!(answer.status, 200, "{}", answer.json());
        let whole = answer.json();
        let (status, error) = (whole["status"].as_str().unwrap(), &whole["error"]["error"]);
        // The status of a command is its exit code.
        let exit = execute.is_shell.then(|| status.parse().unwrap());
        let outcome = match exit {
            Some(0) => "Succeeded",
            Some(_) => "Failed",
            None => status,
        };
        let error = error.is_object().then(|| format!("{}: {}", error["code"].as_str().unwrap(), error["message"].as_str().unwrap()));
        Seen { outcome: outcome.to_owned(), exit, error, ..seen(&whole["result"], &whole["result"]["executionResult"]) }
    }

    fn upload(&mut self, session: &str, path: &str, content: &[u8]) -> Result<(), Refused> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (name, target) = match self.is_old() {
            true => (path, self.target(session, "/files/upload")),
            false if folder.is_empty() => (name, self.target(session, "/files")),
            false => (name, format!("{}&path={}", self.target(session, "/files"), encoded(folder))),
        };
        let head = format!("--f00\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        let body = [head.as_bytes(), content, b"\r\n--f00--\r\n"].concat();
        taken(self.server.ask("POST", &target, Some(("multipart/form-data; boundary=f00", body)))).map(drop)
    }

    fn download(&mut self, session: &str, path: &str) -> Result<Vec<u8>, Refused> {
        let target = if self.is_old() { self.target(session, &format!("/files/content/{}", encoded(path))) } else { self.file(session, path, "/content") };
        taken(self.server.get(&target)).map(|answer| answer.body)
    }

    fn list(&mut self, session: &str) -> Result<Vec<String>, Refused> {
        let answer = taken(self.server.get(&format!("{}&recursive=true", self.target(session, "/files"))))?;
        let entry = |file: &Json| {
            if let Some(name) = file["properties"]["filename"].as_str() {
                return entry("file", name);
            }
            let folder = file["directory"].as_str().unwrap().trim_start_matches("/mnt/data").trim_start_matches('/');
            let name = file["name"].as_str().unwrap();
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            entry(file["type"].as_str().unwrap(), &path)
        };
        Ok(answer.json()["value"].as_array().unwrap().iter().map(entry).collect())
    }

    fn delete(&mut self, session: &str, path: &str) -> Result<(), Refused> {
        taken(self.server.delete(&self.file(session, path, ""))).map(drop)
    }

    fn end(&mut self, session: &str) -> Result<(), Refused> {
        taken(self.server.delete(&self.target(session, "/session"))).map(drop)
    }
}
