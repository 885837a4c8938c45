//! The MCP server of a pool, as the one of Azure Container Apps dynamic sessions: revision 2025-03-26, three tools, plain JSON.
//!
//! Its clients say hello without parameters and keep no connection: what they keep is the id of an environment, which is a session of the pool that
//! is made when code first runs in it. `rmcp` reads no such hello, and the form is small; it is answered here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::session::{Create, ExecuteRequest, LimitsRequest, Session, new_session_id};
use engine::{Error, ErrorKind, Execution, Language, Outcome};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::answer::words;
use crate::aca::command_line;
use crate::app::App;
use crate::identity::Identity;
use crate::json;

/// The only revision.
const REVISION: &str = "2025-03-26";
/// Bodies may be this long: the longest code, written in the longest way that JSON has.
const BODY_BYTES: usize = 8 * 1024 * 1024;
/// The longest time that code may run on this surface.
const MAX_SECONDS: u64 = 220;
/// Environments that are remembered, of one principal and of all; over that, those that were used least lately are forgotten.
const MAX_OF_ONE: usize = 1024;
const MAX_ENVIRONMENTS: usize = 16 * 1024;
/// The surface, for the record.
const SURFACE: &str = "mcp";

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const INTERNAL: i32 = -32603;
const NO_ENVIRONMENT: i32 = -32000;

/// Environments that were launched.
#[derive(Debug, Default)]
pub(crate) struct Environments(Mutex<HashMap<String, Environment>>);

#[derive(Debug, Clone)]
struct Environment {
    principal: Arc<str>,
    pool: String,
    used: Instant,
    /// Something has run in it: it is there, or has ended.
    is_begun: bool,
}

impl Environments {
    fn launch(&self, identity: &Identity, pool: &str) -> Result<String, Error> {
        let id = new_session_id()?.replace("ses_", "env-");
        let principal = Arc::clone(&identity.caller.principal);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.values().filter(|one| one.principal == principal).count();
        let oldest = |principal: Option<&Arc<str>>| {
            let mine = all.iter().filter(|(_, one)| principal.is_none_or(|principal| one.principal == *principal));
            mine.min_by_key(|(_, one)| one.used).map(|(id, _)| id.clone())
        };
        let forgotten = if own >= MAX_OF_ONE { oldest(Some(&principal)) } else { None };
        if let Some(forgotten) = forgotten.or_else(|| if all.len() >= MAX_ENVIRONMENTS { oldest(None) } else { None }) {
            all.remove(&forgotten);
        }
        all.insert(id.clone(), Environment { principal, pool: pool.to_owned(), used: Instant::now(), is_begun: false });
        Ok(id)
    }

    /// Whether something has run in an environment of this caller; `None` where it has none of this id.
    fn begin(&self, identity: &Identity, pool: &str, id: &str) -> Option<bool> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let environment = all.get_mut(id).filter(|one| one.principal == identity.caller.principal && one.pool == pool)?;
        environment.used = Instant::now();
        Some(std::mem::replace(&mut environment.is_begun, true))
    }
}

/// A request or notification.
#[derive(Deserialize)]
struct Message {
    jsonrpc: String,
    /// `None`: it is not there, which makes a notification; null is no id.
    #[serde(default, deserialize_with = "there")]
    id: Option<Json>,
    method: String,
    #[serde(default)]
    params: Option<Map<String, Json>>,
}

fn there<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(reader).map(Some)
}

/// An error of JSON-RPC.
struct Wrong(i32, String);

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        if let Some(detail) = &error.detail {
            tracing::warn!(detail, "a tool failed");
        }
        let code = if error.kind == ErrorKind::InvalidRequest { INVALID_PARAMS } else { INTERNAL };
        Self(code, words(&error))
    }
}

/// Answers a request to the server of a pool that its caller may use.
pub(crate) async fn answer(app: &App, identity: &Identity, pool: &str, request: Request) -> Response {
    if request.method() != Method::POST {
        let mut response = wrong(Json::Null, Wrong(INVALID_REQUEST, "send messages with POST".to_owned()));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let Ok(body) = axum::body::to_bytes(request.into_body(), BODY_BYTES).await else {
        return bad(StatusCode::PAYLOAD_TOO_LARGE, Wrong(INVALID_REQUEST, "the body is too large".to_owned()));
    };
    if let Err(error) = json::check(&body) {
        return bad(StatusCode::BAD_REQUEST, Wrong(PARSE_ERROR, words(&error)));
    }
    let Ok(message) = json::parse::<Message>(&body) else {
        return bad(StatusCode::BAD_REQUEST, Wrong(INVALID_REQUEST, "this is no request or notification of JSON-RPC 2.0".to_owned()));
    };
    let id = match message.id {
        _ if message.jsonrpc != "2.0" => return bad(StatusCode::BAD_REQUEST, Wrong(INVALID_REQUEST, "`jsonrpc` is not \"2.0\"".to_owned())),
        None => return StatusCode::ACCEPTED.into_response(),
        Some(id @ (Json::String(_) | Json::Number(_))) => id,
        Some(_) => return bad(StatusCode::BAD_REQUEST, Wrong(INVALID_REQUEST, "`id` is neither a text nor a number".to_owned())),
    };
    let params = message.params.unwrap_or_default();
    let result = match message.method.as_str() {
        "initialize" => Ok(json!({
            "protocolVersion": REVISION,
            "capabilities": {"tools": {"call": true, "list": true}},
            "serverInfo": {"name": "Microsoft Container Apps MCP Server", "version": "1.0.0"}
        })),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({"tools": tools()})),
        "tools/call" => call(app, identity, pool, params).await,
        other => {
            let other: String = other.chars().take(100).collect();
            Err(Wrong(METHOD_NOT_FOUND, format!("the method `{other}` is not known: this server speaks revision {REVISION}")))
        }
    };
    match result {
        Ok(result) => axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response(),
        Err(error) => wrong(id, error),
    }
}

fn wrong(id: Json, Wrong(code, message): Wrong) -> Response {
    axum::Json(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})).into_response()
}

/// A refusal of what is no request.
fn bad(status: StatusCode, error: Wrong) -> Response {
    (status, wrong(Json::Null, error)).into_response()
}

/// The tools, whatever the pool is made for.
fn tools() -> Json {
    let environment = json!({"type": "string", "description": "The environment's id, as `launchShell` has told it"});
    let output = |more: Json| {
        let mut properties = json!({"stdout": {"type": "string"}, "stderr": {"type": "string"}});
        if let (Some(properties), Json::Object(more)) = (properties.as_object_mut(), more) {
            properties.extend(more);
        }
        json!({"type": "object", "properties": properties, "required": ["stdout", "stderr"]})
    };
    json!([
        {
            "name": "launchShell",
            "description": "Launches an environment, and tells its id. Code that runs in it keeps files, and Python its variables, from call to call.",
            "inputSchema": {"type": "object", "properties": {}},
            "outputSchema": {"type": "object", "properties": {"environmentId": {"type": "string"}}, "required": ["environmentId"]}
        },
        {
            "name": "runPythonCodeInRemoteEnvironment",
            "description": "Runs Python code in an environment. The working directory is /mnt/data; there is no internet access.",
            "inputSchema": {
                "type": "object",
                "properties": {"environmentId": environment, "pythonCode": {"type": "string", "description": "The code"}},
                "required": ["environmentId", "pythonCode"]
            },
            "outputSchema": output(json!({"result": {"description": "The value of the last expression"}}))
        },
        {
            "name": "runShellCommandInRemoteEnvironment",
            "description": "Runs a command in an environment: a command line for bash, or a program with its arguments.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "environmentId": environment,
                    "shellCommand": {"type": "string", "description": "The command line"},
                    "execCommandAndArgs": {"type": "array", "items": {"type": "string"}, "description": "The program and its arguments, in place of a command line"}
                },
                "required": ["environmentId"]
            },
            "outputSchema": output(json!({"exitCode": {"type": "integer"}}))
        }
    ])
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Python {
    environment_id: String,
    python_code: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Shell {
    environment_id: String,
    shell_command: Option<String>,
    exec_command_and_args: Option<Vec<String>>,
}

async fn call(app: &App, identity: &Identity, pool: &str, mut params: Map<String, Json>) -> Result<Json, Wrong> {
    let arguments = Json::Object(match params.shift_remove("arguments") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(arguments)) => arguments,
        Some(_) => return Err(Wrong(INVALID_PARAMS, "`arguments` is no object".to_owned())),
    });
    let name = params.get("name").and_then(Json::as_str).unwrap_or_default();
    let (id, language, code) = match name {
        "launchShell" | "launchPythonEnvironment" => {
            let id = app.mcp.environments.launch(identity, pool)?;
            return Ok(told(json!({"environmentId": id}), false));
        }
        "runPythonCodeInRemoteEnvironment" => {
            let Python { environment_id, python_code } = json::from_value(arguments)?;
            (environment_id, Language::Python, python_code)
        }
        "runShellCommandInRemoteEnvironment" => {
            let Shell { environment_id, shell_command, exec_command_and_args } = json::from_value(arguments)?;
            let command = match (shell_command, exec_command_and_args) {
                (Some(command), None) => command,
                (None, Some(words)) => command_line(&words).map_err(|message| Wrong(INVALID_PARAMS, message))?,
                _ => return Err(Wrong(INVALID_PARAMS, "give one of `shellCommand` and `execCommandAndArgs`".to_owned())),
            };
            (environment_id, Language::Shell, command)
        }
        other => {
            let other: String = other.chars().take(100).collect();
            let known = "launchShell, runPythonCodeInRemoteEnvironment, runShellCommandInRemoteEnvironment";
            return Err(Wrong(INVALID_PARAMS, format!("there is no tool `{other}`: call one of {known}")));
        }
    };
    let session = environment(app, identity, pool, &id).await?;
    let timeout = Duration::from_secs(session.info().limits.wall_seconds.min(MAX_SECONDS));
    let request =
        ExecuteRequest { language, code: code.into_bytes(), filename: None, inputs: Map::new(), fresh: false, timeout: Some(timeout), surface: SURFACE };
    let finished = session.start(&identity.caller, request, None)?.finished().await.map_err(|error| crate::error::ApiError::from(error).0)?;
    let execution = &finished.execution;
    Ok(told(data(execution, language), execution.outcome != Outcome::Completed))
}

/// The session behind an environment: made at its first use, and gone for good when it has ended.
async fn environment(app: &App, identity: &Identity, pool: &str, id: &str) -> Result<Arc<Session>, Wrong> {
    let unknown = || {
        let id: String = id.chars().take(128).collect();
        Wrong(NO_ENVIRONMENT, format!("Environment not found: {id}. It has ended, or never was: launch a new one with launchShell"))
    };
    if app.mcp.environments.begin(identity, pool, id).ok_or_else(unknown)? {
        return app.sessions.find(&identity.caller, Some(pool), id).map_err(|_| unknown());
    }
    let opened = app.sessions.open(&identity.caller, pool, Some(id), Create::IfMissing, &LimitsRequest::default()).await;
    Ok(opened?.session)
}

fn data(execution: &Execution, language: Language) -> Json {
    let mut stderr = execution.stderr.clone();
    if let Some(error) = execution.error.as_ref().filter(|_| language == Language::Python) {
        stderr.push_str(if error.traceback.is_empty() { &error.message } else { &error.traceback });
    }
    let mut data = json!({"stdout": execution.stdout, "stderr": stderr});
    if let Some(data) = data.as_object_mut() {
        match (language, &execution.result, execution.exit_code) {
            (Language::Shell, _, code) => data.insert("exitCode".to_owned(), json!(code.unwrap_or(-1))),
            (Language::Python, Some(value), _) => data.insert("result".to_owned(), if value.json.is_null() { json!(value.text) } else { value.json.clone() }),
            (Language::Python, None, _) => None,
        };
    }
    data
}

/// A result as data and, for who reads only text, as its text.
fn told(data: Json, failed: bool) -> Json {
    json!({"content": [{"type": "text", "text": data.to_string()}], "structuredContent": data, "isError": failed})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Roles;
    use engine::session::Caller;

    fn identity(principal: &str) -> Identity {
        let caller = Caller { principal: principal.into(), max_sessions: None, max_executions: None };
        Identity { caller, pools: None, roles: Roles::default() }
    }

    #[test]
    fn environments_are_their_principals_and_their_pools() {
        let environments = Environments::default();
        let (one, other) = (identity("a"), identity("b"));
        let id = environments.launch(&one, "p").unwrap();
        assert_eq!(environments.begin(&other, "p", &id), None);
        assert_eq!(environments.begin(&one, "q", &id), None);
        assert_eq!(environments.begin(&one, "p", "env-other"), None);
        assert_eq!(environments.begin(&one, "p", &id), Some(false));
        assert_eq!(environments.begin(&one, "p", &id), Some(true));
    }

    #[test]
    fn one_principal_cannot_make_others_forgotten() {
        let environments = Environments::default();
        let (one, other) = (identity("a"), identity("b"));
        let kept = environments.launch(&one, "p").unwrap();
        let first = environments.launch(&other, "p").unwrap();
        let all: Vec<_> = (0..MAX_OF_ONE).map(|_| environments.launch(&other, "p").unwrap()).collect();
        assert_eq!(environments.begin(&other, "p", &first), None, "its own oldest is");
        assert!(all.iter().all(|id| environments.begin(&other, "p", id) == Some(false)));
        assert_eq!(environments.begin(&one, "p", &kept), Some(false));
    }
}
