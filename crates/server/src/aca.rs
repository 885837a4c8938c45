//! The data plane of Azure Container Apps dynamic sessions, as its clients use it unmodified: by the bare root for the default pool, by
//! `/pools/{pool}`, and by the long path of a resource.
//!
//! Routed by path, never by `api-version`: that is how the service does it, and clients of all ages are about. Only the form in which
//! files are listed, shown and removed follows the version, where the path tells nothing. This part knows nothing of native routes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use engine::ErrorKind;
use engine::session::{Create, LimitsRequest, Opened, Session};

use crate::app::App;
use crate::identity::Identity;

mod answer;
mod error;
mod execute;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod manage;
mod multipart;
mod query;
mod request;
mod route;
mod shell;
mod token;

pub(crate) use answer::Shapes;
pub(crate) use error::refusal;
pub(crate) use shell::command_line;

use error::Refusal;
use query::Query;
use route::{Prefix, Route, Target};

/// The routes.
pub(crate) fn router() -> Router<Arc<App>> {
    let bare = ["/code/execute", "/python/execute", "/python/downloadFile", "/executions", "/executions/{id}", "/files", "/files/{*path}"];
    let bare = bare.into_iter().chain(["/session", "/listSessions", "/metadata", "/.management/stopSession"]);
    let named = ["/pools/{pool}/{*path}", "/subscriptions/{subscription}/resourceGroups/{group}/sessionPools/{pool}/{*path}"];
    let surface = bare.chain(named).fold(Router::new(), |router, path| router.route(path, any(handle)));
    surface.route(token::PATH, get(token::token))
}

/// What can be asked, for whoever walks all routes: the method, and the path below each of the ways to name a pool.
#[cfg(test)]
pub(crate) const INVENTORY: &[(&str, &str)] = &[
    ("POST", "/code/execute"),
    ("POST", "/python/execute"),
    ("GET", "/python/downloadFile"),
    ("POST", "/executions"),
    ("GET", "/executions/exe_1"),
    ("GET", "/files"),
    ("POST", "/files"),
    ("POST", "/files/upload"),
    ("GET", "/files/content/a.txt"),
    ("GET", "/files/a.txt/content"),
    ("GET", "/files/a.txt"),
    ("DELETE", "/files/a.txt"),
    ("GET", "/session"),
    ("DELETE", "/session"),
    ("GET", "/listSessions"),
    ("GET", "/metadata"),
    ("POST", "/.management/stopSession"),
];

/// Whether a refusal at this path is worded as this surface words them.
pub(crate) fn is_path(path: &str) -> bool {
    let named = |prefix: &str| path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    named("/pools/") || named("/subscriptions/") || path == token::PATH || Route::parse(path).is_some()
}

/// Puts the path of a request into the form that [`router`] knows: endpoints are configured with a slash at their end, and in any case.
/// To be applied before routing. Paths of other surfaces, and the names of files, stay as they are.
pub(crate) fn rewrite<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    let uri = request.uri();
    let Some(canonical) = Route::parse(uri.path()).map(|route| route.to_string()).filter(|canonical| canonical != uri.path()) else { return request };
    let target = uri.query().map_or_else(|| canonical.clone(), |query| format!("{canonical}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    // What was a path stays one: nothing is added to it.
    if let Ok(uri) = axum::http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

async fn handle(State(app): State<Arc<App>>, Extension(identity): Extension<Identity>, request: Request) -> Response {
    answer(&app, &identity, request).await.unwrap_or_else(IntoResponse::into_response)
}

/// What every operation has at hand.
struct Call<'a> {
    app: &'a App,
    identity: &'a Identity,
    pool: String,
    prefix: Prefix<'a>,
    query: Query<'a>,
}

async fn answer(app: &App, identity: &Identity, request: Request) -> Result<Response, Refusal> {
    let uri = request.uri().clone();
    let Some(route) = Route::parse(uri.path()) else { return Err(Refusal::new(StatusCode::NOT_FOUND, "ResourceNotFound", "there is nothing at this path")) };
    let pool = route.prefix.pool().unwrap_or_else(|| app.default_pool.clone());
    identity.may_use(&pool)?;
    if route.target == Target::Mcp {
        return Ok(crate::mcp::answer_pool(app, identity, &pool, request).await);
    }
    let call = Call { app, identity, pool, prefix: route.prefix, query: Query::new(uri.query().unwrap_or_default()) };
    call.query.version()?;
    let method = match *request.method() {
        Method::HEAD => Method::GET,
        ref other => other.clone(),
    };
    match (route.target, method.as_str()) {
        (Target::CodeExecute, "POST") => execute::execute(&call, execute::Family::Code, request).await,
        (Target::PythonExecute, "POST") => execute::execute(&call, execute::Family::Python, request).await,
        (Target::Executions, "POST") => execute::execute(&call, execute::Family::Executions, request).await,
        (Target::Execution(id), "GET") => execute::find(&call, id, request.headers()),
        (Target::Files, "GET") => files::list(&call).await,
        (Target::Files, "POST") => files::upload(&call, files::Form::New, request).await,
        (Target::File("upload"), "POST") => files::upload(&call, files::Form::Old, request).await,
        (Target::OldContent(name), "GET") => files::content(&call, (name, files::Form::Old), request.headers()).await,
        (Target::NewContent(name), "GET") => files::content(&call, (name, files::Form::New), request.headers()).await,
        (Target::DownloadFile, "GET") => {
            let name = call.query.raw("filename").ok_or_else(|| Refusal::bad("the query needs `filename`"))?;
            files::content(&call, (name, files::Form::Old), request.headers()).await
        }
        (Target::File(name), "GET") => files::show(&call, name).await,
        (Target::File(name), "DELETE") => files::remove(&call, name).await,
        (Target::Session, "GET") => manage::session(&call),
        (Target::Session, "DELETE") => manage::delete(&call).await,
        (Target::Sessions, "GET") => manage::list(&call),
        (Target::Metadata, "GET") => manage::metadata(&call).await,
        (Target::Stop, "POST") => manage::stop(&call).await,
        (target, _) => Ok(wrong_method(target)),
    }
}

fn wrong_method(target: Target<'_>) -> Response {
    let allowed = match target {
        Target::CodeExecute | Target::PythonExecute | Target::Executions | Target::Stop => "POST",
        Target::Files => "GET, HEAD, POST",
        Target::File("upload") => "GET, HEAD, POST, DELETE",
        Target::File(_) | Target::Session => "GET, HEAD, DELETE",
        _ => "GET, HEAD",
    };
    let mut response = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path does not take this method").into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

impl Call<'_> {
    /// The session of the query, made where there is none: on this surface any use makes one.
    async fn open(&self, id: &str) -> Result<Opened, Refusal> {
        let opened = self.app.sessions.open(&self.identity.caller, &self.pool, Some(id), Create::IfMissing, &LimitsRequest::default()).await;
        let opened = opened.map_err(|error| {
            // The documented status of a pool without a free place.
            let full = error.kind == ErrorKind::Limit;
            let refusal = Refusal::from(error);
            if full { refusal.exhausted() } else { refusal }
        })?;
        Ok(opened)
    }

    /// The session of the query, where there is one.
    fn find(&self, id: &str) -> Result<Arc<Session>, Refusal> {
        Ok(self.app.sessions.find(&self.identity.caller, Some(&self.pool), id)?)
    }
}
