//! `/mcp`: streamable HTTP. `rmcp` speaks it to clients that take event streams; this layer adds what others need and what a server of many
//! callers needs: answers as plain JSON, batches of the oldest revision, requests without a connection, and connections that belong to who began
//! them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use engine::Error;
use http_body_util::BodyExt;
use rmcp::model::ProtocolVersion;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::answer::words;
use super::connection::{Connections, Owner};
use super::pool::Environments;
use super::room::{Room, Turn};
use super::server::{Pool, Server};
use super::stream::{self, Answer};
use crate::app::App;
use crate::error::ApiError;
use crate::json;
use crate::rest::Call;

/// The path.
pub(super) const PATH: &str = "/mcp";
/// The header that names a connection.
pub(super) const SESSION_HEADER: &str = "mcp-session-id";
/// The header that names the revision.
const VERSION_HEADER: &str = "mcp-protocol-version";
/// The body, with a file as base64, may be this long.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Messages of one batch.
const MAX_BATCH: usize = 32;
/// Comments keep a stream alive while nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A connection is remembered at least for so long.
const MIN_IDLE: Duration = Duration::from_secs(300);

/// The method whose answers are large.
const READ: &str = "resources/read";

/// Errors of JSON-RPC.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
/// Of the transport: neither side's code has one of its own.
const TRANSPORT: i32 = -32000;

/// What serves `/mcp`.
pub(crate) struct Transport {
    /// Of the servers of pools.
    pub(super) environments: Environments,
    connections: Arc<Connections>,
    room: Room,
    /// For connections.
    lasting: StreamableHttpService<Server, Connections>,
    /// For requests that belong to none.
    single: StreamableHttpService<Server, NeverSessionManager>,
    stop: CancellationToken,
}

impl Transport {
    /// Connections that are silent for so long are forgotten.
    pub(crate) fn new(idle: Duration) -> Self {
        let stop = CancellationToken::new();
        let connections = Connections::new(idle.max(MIN_IDLE));
        // Whose pages may call, and by which name, has been looked at before.
        let config = StreamableHttpServerConfig::default().disable_allowed_hosts().disable_allowed_origins().with_cancellation_token(stop.clone());
        let config = config.with_sse_keep_alive(Some(KEEP_ALIVE)).with_sse_retry(None).with_max_request_body_bytes(BODY_BYTES).with_json_response(true);
        let lasting = StreamableHttpService::new(|| Ok(Server::new()), Arc::clone(&connections), config.clone());
        let single = StreamableHttpService::new(|| Ok(Server::new()), Arc::default(), config.with_legacy_session_mode(false));
        Self { environments: Environments::default(), connections, room: Room::default(), lasting, single, stop }
    }

    /// Ends all streams.
    pub(crate) fn end(&self) {
        self.stop.cancel();
    }

    /// Has `rmcp` answer a request whose body is there as a whole.
    async fn answer(&self, parts: Parts, body: Bytes, is_lasting: bool) -> Response {
        let request = Request::from_parts(parts, http_body_util::Full::new(body));
        let response = if is_lasting { self.lasting.handle(request).await } else { self.single.handle(request).await };
        response.map(Body::new)
    }
}

/// The route.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route(PATH, any(handle).layer(axum::middleware::from_fn(crate::body::upload))).merge(super::metadata::router())
}

async fn handle(State(app): State<Arc<App>>, call: Call, request: Request) -> Response {
    match Asked::new(&app, &call, request.headers()) {
        Ok(asked) => asked.answer(request).await.unwrap_or_else(IntoResponse::into_response),
        Err(error) => refusal(error),
    }
}

/// Whether a refusal at this path is worded as this surface words them.
pub(crate) fn is_path(path: &str) -> bool {
    path == PATH
}

/// An error of the service: with the status and the headers of native routes, in a body that clients of the protocol show.
pub(crate) fn refusal(error: Error) -> Response {
    let (code, message) = (crate::error::status(error.kind).0, words(&error));
    let data = json!({"code": code, "message": error.message, "hint": error.hint});
    let body = json!({"jsonrpc": "2.0", "id": null, "error": {"code": TRANSPORT, "message": message, "data": data}}).to_string();
    let mut response = ApiError(error).into_response();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

/// A refusal, as an error of the protocol that answers no request in particular.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: i32,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: i32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"jsonrpc": "2.0", "id": null, "error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
        }
        response
    }
}

/// Who asks for what.
struct Asked<'a> {
    app: &'a Arc<App>,
    owner: Owner,
    /// The connection that it names, with its revision.
    connection: Option<(String, Option<ProtocolVersion>)>,
    /// It takes event streams.
    takes_stream: bool,
    /// It takes plain JSON.
    takes_json: bool,
}

impl<'a> Asked<'a> {
    fn new(app: &'a Arc<App>, call: &Call, headers: &HeaderMap) -> Result<Self, Error> {
        let pool = call.pool(&call.query(&["pool"])?, None)?;
        let owner = Owner { principal: Arc::clone(&call.identity.caller.principal), pool };
        let named = headers.get(SESSION_HEADER).map(|id| id.to_str().unwrap_or_default().to_owned());
        let connection = named.map(|id| {
            let revision = app.mcp.connections.revision(&id, &owner);
            (id, revision)
        });
        let (takes_stream, takes_json) = (takes(headers, "text/event-stream", false), takes(headers, "application/json", true));
        Ok(Self { app, owner, connection, takes_stream, takes_json })
    }

    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        // Revisions without connections do not look at this header.
        let is_stateless =
            request.headers().get(VERSION_HEADER).is_some_and(|version| version.as_bytes() >= ProtocolVersion::NO_INITIALIZE.as_str().as_bytes());
        if !is_stateless && matches!(&self.connection, Some((_, None))) {
            let message = "there is no such connection: it has ended, or never was. Begin a new one with `initialize`";
            return Err(Refusal::new(StatusCode::NOT_FOUND, TRANSPORT, message));
        }
        let has_connection = !is_stateless && self.connection.is_some();
        match *request.method() {
            Method::POST => self.post(request, has_connection).await,
            Method::GET if self.takes_stream && has_connection => Ok(self.pass(request).await),
            Method::DELETE if has_connection => {
                let response = self.pass(request).await;
                // One client takes 202 for a failure.
                Ok(if response.status() == StatusCode::ACCEPTED { StatusCode::NO_CONTENT.into_response() } else { response })
            }
            _ => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                TRANSPORT,
                "send messages with POST; GET opens the stream of a connection, and DELETE ends one",
            )),
        }
    }

    /// A request without a body.
    async fn pass(&self, request: Request) -> Response {
        let (parts, _) = request.into_parts();
        self.app.mcp.answer(parts, Bytes::new(), true).await
    }

    async fn post(&self, request: Request, has_connection: bool) -> Result<Response, Refusal> {
        if !self.takes_stream && !self.takes_json {
            let message = "answers come as `application/json` or `text/event-stream`: accept one of them, or both";
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, TRANSPORT, message));
        }
        let (mut parts, body) = request.into_parts();
        // What is too long, or does not come, is answered by who counts it.
        let body = axum::body::to_bytes(body, BODY_BYTES).await.map_err(|_| {
            let message = format!("a message may have {BODY_BYTES} bytes: send larger files with `PUT /v1/sessions/<sessionId>/files/<path>`");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, message)
        })?;
        json::check(&body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, PARSE_ERROR, words(&error)))?;
        parts.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        parts.extensions.insert(Arc::clone(self.app));
        parts.extensions.insert(Pool(self.owner.pool.clone()));
        if body.trim_ascii_start().first() == Some(&b'[') {
            return self.batch(&parts, &body, has_connection).await;
        }
        let method = method(&body)?;
        let is_lasting = has_connection || method.as_deref() == Some("initialize");
        let turn = if method.as_deref() == Some(READ) { Some(self.turn().await?) } else { None };
        let response = match self.one(parts, body, is_lasting).await? {
            Answer::Whole(response) if self.takes_json => response,
            Answer::Whole(response) => stream::event(response).await,
            Answer::Stream(stream) if self.takes_stream => stream.into_response(),
            Answer::Stream(stream) => stream.collect().await,
        };
        // Given back when the caller has taken the answer, or has left.
        Ok(match turn {
            Some(turn) => response.map(|body| Body::new(body.map_frame(move |frame| (frame, &turn).0))),
            None => response,
        })
    }

    /// Room for a resource.
    async fn turn(&self) -> Result<Turn, Refusal> {
        let message = "too many resources are read at once: take the answers that are on their way, and ask again";
        self.app.mcp.room.turn(&self.owner.principal).await.ok_or_else(|| Refusal::new(StatusCode::TOO_MANY_REQUESTS, TRANSPORT, message))
    }

    /// One message, answered.
    async fn one(&self, parts: Parts, body: Bytes, is_lasting: bool) -> Result<Answer, Refusal> {
        let response = self.app.mcp.answer(parts, body, is_lasting).await;
        if let Some(id) = response.headers().get(SESSION_HEADER).and_then(|id| id.to_str().ok()).filter(|_| is_lasting) {
            self.app.mcp.connections.belongs(id, self.owner.clone());
        }
        let is_json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
        if !response.status().is_success() && !response.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(refused(response).await);
        }
        Ok(stream::answer(response).await)
    }

    /// Several messages at once, as the oldest revision has them. They are done one after the other.
    async fn batch(&self, parts: &Parts, body: &[u8], has_connection: bool) -> Result<Response, Refusal> {
        let settled = self.connection.as_ref().and_then(|(_, revision)| revision.as_ref()).map(ProtocolVersion::as_str);
        let told = parts.headers.get(VERSION_HEADER).map(|version| version.to_str().unwrap_or_default());
        if [settled, told].into_iter().flatten().any(|revision| revision != ProtocolVersion::V_2025_03_26.as_str()) {
            return Err(Refusal::invalid("only revision 2025-03-26 takes several messages at once: send them one by one"));
        }
        let messages: Vec<Json> = serde_json::from_slice(body).map_err(|_| Refusal::invalid("the batch is no list of messages"))?;
        if messages.is_empty() || messages.len() > MAX_BATCH {
            return Err(Refusal::invalid(format!("a batch has {} messages, and may have 1 to {MAX_BATCH}", messages.len())));
        }
        if let Some(alone) = messages.iter().filter_map(|message| message.get("method")).find(|method| *method == "initialize" || *method == READ) {
            return Err(Refusal::invalid(format!("{alone} may not be part of a batch: send it alone")));
        }
        let mut answers = Vec::new();
        for message in messages {
            let body = Bytes::from(serde_json::to_vec(&message).unwrap_or_default());
            let response = match self.one(parts.clone(), body, has_connection).await {
                Ok(Answer::Whole(response)) => response,
                Ok(Answer::Stream(stream)) => stream.collect().await,
                Err(refusal) => refusal.into_response(),
            };
            let Ok(body) = response.into_body().collect().await else { continue };
            // What only tells something gets no answer.
            if let Ok(mut answer) = serde_json::from_slice::<Json>(&body.to_bytes()) {
                if let (Some(id @ Json::Null), Some(own)) = (answer.get_mut("id"), message.get("id")) {
                    *id = own.clone();
                }
                answers.push(answer);
            }
        }
        Ok(if answers.is_empty() { StatusCode::ACCEPTED.into_response() } else { axum::Json(answers).into_response() })
    }
}

/// The method of a message, which has to be an object; answers have none.
fn method(body: &[u8]) -> Result<Option<String>, Refusal> {
    #[derive(serde::Deserialize)]
    struct Message {
        method: Option<Json>,
    }
    let message: json::Object<Message> = serde_json::from_slice(body).map_err(|_| Refusal::invalid("a message is a JSON object"))?;
    Ok(message.0.method.and_then(|method| method.as_str().map(str::to_owned)))
}

/// A refusal of `rmcp`, which are plain text.
async fn refused(response: Response) -> Refusal {
    let status = response.status();
    let text = response.into_body().collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    match status {
        // It says so of bodies that are JSON, but no message.
        StatusCode::UNSUPPORTED_MEDIA_TYPE if text.starts_with("fail to deserialize") => {
            Refusal::invalid("this is no request, notification or response of JSON-RPC 2.0")
        }
        StatusCode::INTERNAL_SERVER_ERROR => {
            tracing::warn!(detail = text, "a request of the protocol failed");
            Refusal::new(status, -32603, "the request failed inside the server")
        }
        _ => Refusal::new(status, INVALID_REQUEST, text),
    }
}

/// Whether a caller accepts this media type. `by_default`: also where it says nothing, or takes anything.
fn takes(headers: &HeaderMap, kind: &str, by_default: bool) -> bool {
    let mut accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).peekable();
    if accepts.peek().is_none() {
        return by_default;
    }
    accepts.any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let named = parts.next().unwrap_or_default();
        let range = kind.split('/').next().unwrap_or_default();
        let is_meant = named.eq_ignore_ascii_case(kind) || by_default && (named == "*/*" || named.strip_suffix("/*") == Some(range));
        is_meant && !parts.any(|parameter| matches!(parameter.to_ascii_lowercase().as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_takes() {
        let of = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            (takes(&headers, "application/json", true), takes(&headers, "text/event-stream", false))
        };
        assert_eq!(of(&[]), (true, false));
        assert_eq!(of(&["*/*"]), (true, false));
        assert_eq!(of(&["application/json"]), (true, false));
        assert_eq!(of(&["application/json, text/event-stream"]), (true, true));
        assert_eq!(of(&["text/event-stream", "application/json;q=0.5"]), (true, true));
        assert_eq!(of(&["application/*"]), (true, false));
        assert_eq!(of(&["text/html"]), (false, false));
        assert_eq!(of(&["application/json;q=0, text/event-stream"]), (false, true));
    }

    #[test]
    fn a_message_is_an_object() {
        assert_eq!(method(br#"{"jsonrpc": "2.0", "method": "ping"}"#).unwrap().as_deref(), Some("ping"));
        assert_eq!(method(br#"{"method": 1}"#).unwrap(), None);
        assert_eq!(method(b"{}").unwrap(), None);
        for bad in [&b"1"[..], b"\"x\"", b"null", b"[]"] {
            assert!(method(bad).is_err());
        }
    }
}
