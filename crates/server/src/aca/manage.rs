//! Sessions as such: one, all, none any more; and what their pool is made of.

use std::time::SystemTime;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::environment::Environment;
use engine::session::SessionInfo;
use serde_json::{Value as Json_, json};

use super::Call;
use super::error::Refusal;

/// Sessions on one page.
const PAGE: usize = 100;

/// A time as this surface writes it.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// The session. Asking for it makes none.
pub(super) fn session(call: &Call<'_>) -> Result<Response, Refusal> {
    let session = call.find(&call.query.identifier(None)?)?;
    Ok(Json(shown(&session.info())).into_response())
}

/// Ends it. One that is gone already is what was wanted.
pub(super) async fn delete(call: &Call<'_>) -> Result<Response, Refusal> {
    if let Ok(session) = call.find(&call.query.identifier(None)?) {
        call.app.sessions.close(&session).await;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn stop(call: &Call<'_>) -> Result<Response, Refusal> {
    let identifier = call.query.identifier(None)?;
    let session = call.find(&identifier)?;
    call.app.sessions.close(&session).await;
    let text = format!("Session {identifier} in session pool {} stopped.", call.pool);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

pub(super) fn list(call: &Call<'_>) -> Result<Response, Refusal> {
    // What does not exist has no sessions either, and says so.
    call.app.sessions.pool(&call.pool)?;
    let skip = call.query.number("skip").unwrap_or_default();
    let sessions = call.app.sessions.list(&call.identity.caller, Some(&call.pool));
    let (page, more) = page(&sessions, skip);
    let page: Vec<Json_> = page.iter().map(shown).collect();
    let version = call.query.raw("api-version").unwrap_or_default();
    let next = more.map(|skip| format!("{}/listSessions?api-version={version}&skip={skip}", call.prefix));
    Ok(Json(json!({"sessions": page, "nextLink": next})).into_response())
}

/// A page, and where the next one begins.
fn page<T>(all: &[T], skip: usize) -> (&[T], Option<usize>) {
    let end = skip.saturating_add(PAGE).min(all.len());
    (all.get(skip..end).unwrap_or_default(), (skip < all.len() && end < all.len()).then_some(end))
}

fn shown(info: &SessionInfo) -> Json_ {
    json!({
        "identifier": info.id,
        "createdAt": time(info.created_at),
        "lastAccessedAt": time(info.last_accessed_at),
        "expireAt": time(info.expires_at),
        "etag": info.guid,
    })
}

/// What sessions of this pool have.
pub(super) async fn metadata(call: &Call<'_>) -> Result<Response, Refusal> {
    let environment = call.app.sessions.pool(&call.pool)?.environment;
    let body = tokio::task::spawn_blocking(move || described(&environment, environment.built().unwrap_or_else(|_| SystemTime::now()))).await;
    body.map(|body| Json(body).into_response())
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the environment cannot be described"))
}

fn described(environment: &Environment, built: SystemTime) -> Json_ {
    let packages: Vec<Json_> = environment.packages.iter().map(|(name, version)| json!({"name": name, "version": version})).collect();
    let ipython = environment.packages.iter().find(|(name, _)| name == "ipython").map_or("", |(_, version)| version.as_str());
    json!({
        "runtimes": [{"name": "python", "version": environment.python_version}],
        "preInstalledPackages": packages,
        "createdAt": time(built),
        "lastUpdatedAt": time(built),
        "jupyterKernel": {
            "name": "python3",
            "version": if ipython.is_empty() { &environment.python_version } else { ipython },
            "projectUrl": "https://ipython.org",
            "description": "IPython's semantics in an interpreter of the session's own; no messages of Jupyter are spoken",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all: Vec<usize> = (0..250).collect();
        let (mut seen, mut next) = (Vec::new(), Some(0));
        while let Some(skip) = next {
            let (page, more) = page(&all, skip);
            assert!(page.len() <= PAGE && !page.is_empty());
            seen.extend_from_slice(page);
            next = more;
        }
        assert_eq!(seen, all);
        assert_eq!(page(&all, 250), (&[][..], None));
        assert_eq!(page(&all, usize::MAX), (&[][..], None));
        assert_eq!(page::<u8>(&[], 0), (&[][..], None));
    }

    #[test]
    fn the_environment_is_described_with_every_field() {
        let environment: Environment = serde_json::from_value(json!({
            "name": "core", "digest": "0", "python_version": "3.12.1", "interpreter": {"kind": "copied"}, "library_path": [],
            "packages": [["ipython", "9.1.0"], ["numpy", "2.4.0"]], "layout": 1, "lock_digest": "0",
        }))
        .unwrap();
        let body = described(&environment, SystemTime::UNIX_EPOCH);
        assert_eq!(body["runtimes"], json!([{"name": "python", "version": "3.12.1"}]));
        assert_eq!(body["preInstalledPackages"][1], json!({"name": "numpy", "version": "2.4.0"}));
        assert_eq!((&body["createdAt"], &body["lastUpdatedAt"]), (&json!("1970-01-01T00:00:00.000000Z"), &json!("1970-01-01T00:00:00.000000Z")));
        assert_eq!(body["jupyterKernel"]["version"], "9.1.0");
        assert!(["name", "projectUrl", "description"].iter().all(|name| body["jupyterKernel"][name].is_string()));
    }
}
