//! The native routes: `/v1`, JSON, with the description of themselves.

mod body;
mod call;
mod download;
mod events;
mod executions;
mod files;
mod pools;
mod run;
mod sessions;
mod tools;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::{Error, ErrorKind};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use call::{Links, open};
pub(crate) use download::unreadable;
pub(crate) use view::{ExecutionView, FileKind, FileView, schema, time};

use crate::app::App;
use crate::error::ApiError;

/// The routes.
pub(crate) fn router() -> Router<Arc<App>> {
    let (router, _) = described().split_for_parts();
    router.route("/v1/sessions/{id}/tools/{tool}", axum::routing::post(tools::call)).method_not_allowed_fallback(no_method)
}

fn described() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(sessions::create, sessions::list))
        .routes(routes!(sessions::show, sessions::delete))
        .routes(routes!(executions::execute, executions::list))
        .routes(routes!(executions::show))
        .routes(routes!(executions::interrupt))
        .routes(routes!(executions::stdout))
        .routes(routes!(executions::stderr))
        .routes(routes!(files::list))
        .routes(routes!(files::read, files::write, files::remove))
        .routes(routes!(run::run))
        .routes(routes!(pools::list))
}

/// The answer where no route is.
pub(crate) async fn no_route() -> Response {
    ApiError(Error::new(ErrorKind::NotFound, "there is no such route").hint("see `GET /openapi.json`")).into_response()
}

/// The answer where a route has other methods.
async fn no_method(method: Method) -> Response {
    let error = Error::new(ErrorKind::InvalidRequest, format!("this route does not take {method}")).hint("see the header `Allow`");
    (StatusCode::METHOD_NOT_ALLOWED, ApiError(error)).into_response()
}

#[cfg(test)]
pub(crate) mod tests {
    use engine::{Artifact, Execution, Limits, Outcome, Output, Value};
    use serde_json::json;

    use super::*;

    /// An execution with everything in it.
    pub(crate) fn execution() -> Execution {
        Execution {
            id: "exe_1".to_owned(),
            session_id: "ses_1".to_owned(),
            outcome: Outcome::Completed,
            stdout: "out".to_owned(),
            stderr: "err".to_owned(),
            stdout_truncated: false,
            stderr_truncated: false,
            result: Some(Value { text: "1".to_owned(), json: json!(1) }),
            error: None,
            outputs: vec![Output { media_type: "image/png".to_owned(), name: "a.png".to_owned(), data: "AA==".to_owned() }],
            artifacts: vec![Artifact {
                path: "a b".to_owned(),
                raw_path: "a b".into(),
                size_bytes: 1,
                media_type: "text/plain".to_owned(),
                sha256: None,
                url: None,
            }],
            output: Some(json!({"a": 1})),
            output_schema: Some(json!({"type": "object"})),
            state_lost: false,
            exit_code: None,
            limits_hit: Vec::new(),
            isolation: "namespace",
            execution_time_ms: 1,
            started_at: "2026-03-01T12:00:00Z".to_owned(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn the_execution_is_written_as_the_engine_writes_it() {
        let execution = execution();
        let view = ExecutionView::of(&execution, "ses_1", |_| None);
        assert_eq!(serde_json::to_string(&view).unwrap(), serde_json::to_string(&execution).unwrap());
        let links = Links::of("x@y", None);
        let linked = serde_json::to_value(ExecutionView::linked(&execution, &links)).unwrap();
        assert_eq!((linked["sessionId"].as_str(), linked["artifacts"][0]["url"].as_str()), (Some("x@y"), Some("/v1/sessions/x%40y/files/a%20b")));
    }
}
