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
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::{Error, ErrorKind};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::ApiError;

/// The routes.
pub(crate) fn router() -> Router<Arc<App>> {
    let (router, _) = described().split_for_parts();
    router.method_not_allowed_fallback(no_method)
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
pub(crate) async fn no_route(OriginalUri(_): OriginalUri) -> Response {
    ApiError(Error::new(ErrorKind::NotFound, "there is no such route").hint("see `GET /openapi.json`")).into_response()
}

/// The answer where a route has other methods.
async fn no_method(method: Method) -> Response {
    let error = Error::new(ErrorKind::InvalidRequest, format!("this route does not take {method}")).hint("see the header `Allow`");
    (StatusCode::METHOD_NOT_ALLOWED, ApiError(error)).into_response()
}
