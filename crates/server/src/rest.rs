//! The native routes: `/v1`, JSON, with the description of themselves.

mod body;
mod call;
mod download;
mod events;
mod executions;
mod files;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod openapi;
mod pools;
mod run;
mod sessions;
mod tools;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

pub(crate) use body::Body;
pub(crate) use call::{Call, Links, Query, RESOURCES, encode, open};
pub(crate) use download::unreadable;
pub(crate) use openapi::{components, is_plain_host};
pub(crate) use view::{ExecutionView, FileKind, FileView, schema, time};

use crate::app::App;

/// The routes.
pub(crate) fn router() -> Router<Arc<App>> {
    let (router, _) = described().split_for_parts();
    router
        .route("/v1/sessions/{id}/tools/{tool}", post(tools::call).layer(from_fn(crate::body::upload)))
        .route("/openapi.json", get(openapi::openapi))
        .route("/openapi-2.json", get(openapi::openapi_2))
        .route("/docs", get(openapi::docs))
}

/// Those that describe themselves.
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
        .routes(routes!(files::read, files::write, files::remove).layer(from_fn(crate::body::upload)))
        .routes(routes!(run::run).layer(from_fn(crate::body::upload)))
        .routes(routes!(pools::list))
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
