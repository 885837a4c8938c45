//! One execution in a session of its own that is destroyed after, however it ends: the action of a workflow.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use engine::session::{Create, ExecuteRequest, LimitsRequest, Session, Sessions, parse_path};
use engine::{Error, ErrorKind, Execution};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::Body;
use super::call::Call;
use super::executions::{self, LanguageName};
use super::view::ExecutionView;
use crate::error::ApiError;
use crate::files::{decode, put};
use crate::json::{Object, Whole};

/// The body, with files as base64, may be this long.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Files of one request.
const MAX_FILES: usize = 1000;
/// A file that was made comes back within the answer up to this size, in bytes…
const INLINE_BYTES: u64 = 1024 * 1024;
/// …and all of them together up to this.
const INLINE_TOTAL_BYTES: u64 = 8 * 1024 * 1024;

/// What to run, with its files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RunRequest, example = json!({"code": "print(open('a.txt').read())", "files": [{"name": "a.txt", "contentBase64": "aGVsbG8="}]}))]
pub(crate) struct RunBody {
    /// The code, at most 1 MiB.
    #[schema(min_length = 1, max_length = 1_048_576)]
    code: String,
    /// In which language.
    #[schema(value_type = Option<LanguageName>)]
    language: Option<LanguageName>,
    /// Readable in Python as the variable `inputs`.
    #[schema(value_type = Option<Object>)]
    inputs: Option<Map<String, Value>>,
    /// Files that are there when the code starts.
    #[schema(value_type = Option<Vec<InputFile>>, max_items = 1000)]
    files: Option<Vec<Object<InputFile>>>,
    /// How long it may run.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 900)]
    timeout_seconds: Option<Whole>,
    /// The pool, where it is not the default one.
    pool: Option<String>,
}

/// A file for the code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InputFile {
    /// Its path in the workspace.
    #[schema(min_length = 1, example = "data.csv")]
    name: String,
    /// Its bytes.
    #[schema(format = Byte, example = "aGVsbG8=")]
    content_base64: String,
}

/// Run code once
///
/// One execution in a fresh session that is destroyed after. Files that the code makes come back as `data:` URLs in the artifacts, up to 1 MiB each and
/// 8 MiB together; larger ones have no URL.
#[utoipa::path(
    post,
    path = "/v1/run",
    operation_id = "run",
    tag = "executions",
    params(("pool" = Option<String>, Query, description = "The pool, where it is not the default one")),
    request_body = RunBody,
    responses((status = 200, description = "What it came to", body = ExecutionView<'static>))
)]
pub(crate) async fn run(call: Call, Body(body): Body<RunBody, BODY_BYTES>) -> Result<Response, ApiError> {
    let query = call.query(&["pool"])?;
    let pool = call.pool(&query, body.pool.as_deref())?;
    let files = files(body.files.unwrap_or_default())?;
    let request = executions::request(body.language, body.code, body.timeout_seconds, body.inputs)?;
    let (sessions, caller) = (Arc::clone(&call.app.sessions), call.identity.caller.clone());
    // A task of its own: where the caller leaves meanwhile, what comes of it is dropped, and ends too.
    let opening = tokio::spawn(async move {
        let opened = sessions.open(&caller, &pool, None, Create::New, &LimitsRequest::default()).await?;
        Ok::<_, Error>(Ends { sessions: Arc::clone(&sessions), session: opened.session })
    });
    let ends = opening.await.map_err(|_| Error::new(ErrorKind::Internal, "the making of a session was lost"))??;
    once(&call, &ends.session, files, request).await
}

async fn once(call: &Call, session: &Arc<Session>, files: Vec<(PathBuf, Vec<u8>)>, request: ExecuteRequest) -> Result<Response, ApiError> {
    for (path, bytes) in files {
        put(session, &path, &bytes).await?;
    }
    let finished = session.start(&call.identity.caller, request, None)?.finished().await?;
    let execution = &finished.execution;
    let inline = inline(session, execution).await;
    let mut view = ExecutionView::of(execution, &execution.session_id, |_| None);
    for (artifact, url) in view.artifacts.iter_mut().zip(inline) {
        artifact.url = url;
    }
    Ok(Json(view).into_response())
}

/// Ends its session when it is dropped.
struct Ends {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let (sessions, session) = (Arc::clone(&self.sessions), Arc::clone(&self.session));
        // Not waited for: the caller has its answer already. Without a runtime the server has ended, and all sessions with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { sessions.close(&session).await });
        }
    }
}

/// Checks and decodes files.
fn files(files: Vec<Object<InputFile>>) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
    if files.len() > MAX_FILES {
        return Err(Error::new(ErrorKind::InvalidRequest, format!("`files` has more than {MAX_FILES} entries")));
    }
    let mut names = HashSet::new();
    let mut decoded = Vec::with_capacity(files.len());
    for (number, Object(file)) in files.into_iter().enumerate() {
        let named = |error: Error| Error { message: format!("`files[{number}]`: {}", error.message), ..error };
        let path = parse_path(file.name.as_bytes()).map_err(named)?;
        if !names.insert(path.clone()) {
            return Err(named(Error::new(ErrorKind::InvalidRequest, "another file has the same name")));
        }
        decoded.push((path, decode(&file.content_base64).map_err(named)?));
    }
    Ok(decoded)
}

/// The artifacts' bytes as `data:` URLs, as far as they are small.
async fn inline(session: &Arc<Session>, execution: &Execution) -> Vec<Option<String>> {
    let mut left = INLINE_TOTAL_BYTES;
    let mut urls = Vec::with_capacity(execution.artifacts.len());
    for artifact in &execution.artifacts {
        let fits = artifact.size_bytes <= INLINE_BYTES.min(left);
        let opened = if fits { session.open_file(&artifact.raw_path).await.ok() } else { None };
        let Some((file, entry)) = opened.filter(|(_, entry)| entry.size <= INLINE_BYTES.min(left)) else {
            urls.push(None);
            continue;
        };
        left = left.saturating_sub(entry.size);
        let media_type = artifact.media_type.clone();
        let url = tokio::task::spawn_blocking(move || data_url(file, entry.size, &media_type)).await;
        urls.push(url.ok().flatten());
    }
    urls
}

fn data_url(file: File, size: u64, media_type: &str) -> Option<String> {
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes).ok()?;
    let mut url = format!("data:{media_type};base64,");
    base64::engine::general_purpose::STANDARD.encode_string(&bytes, &mut url);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_in_refusals() {
        let file = |name: &str, content: &str| Object(InputFile { name: name.to_owned(), content_base64: content.to_owned() });
        let error = files(vec![file("a", "AA=="), file("b", "?")]).unwrap_err();
        assert!(error.message.starts_with("`files[1]`: "), "{error}");
        let error = files(vec![file("a", "AA=="), file("a", "AA==")]).unwrap_err();
        assert_eq!(error.message, "`files[1]`: another file has the same name");
        let error = files(vec![file("../a", "AA==")]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidRequest);
        assert!(files((0..=MAX_FILES).map(|n| file(&n.to_string(), "")).collect()).is_err());
    }
}
