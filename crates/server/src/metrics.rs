//! What is counted, for Prometheus: every metric there is stands here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use engine::record::{Concluded, Intent, Note, RecordError, Recorder};
use engine::{Error, ErrorKind, Language, Outcome};
use metrics::{Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::app::App;
use crate::error::ApiError;
use crate::identity::Identity;

/// Of histograms of time, in seconds.
const BUCKETS: [f64; 18] = [0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 900.0];

/// The route.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(metrics))
}

/// Starts counting; needed once in a process, and harmless after.
pub fn install() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Somebody else's recorder, where there is one, stays: ours then shows nothing.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        handle
    })
}

fn describe() {
    metrics::describe_gauge!("belljar_sessions", "sessions, by pool and state");
    metrics::describe_gauge!("belljar_pool_parked", "sandboxes that wait, by pool");
    metrics::describe_gauge!("belljar_pool_wanted", "sandboxes that should wait, by pool");
    metrics::describe_gauge!("belljar_pool_taken", "sandboxes in use, by pool");
    metrics::describe_gauge!("belljar_pool_problems", "problems of a pool at the moment");
    metrics::describe_counter!("belljar_executions_total", "executions that have ended, by pool, surface, language and outcome");
    metrics::describe_histogram!("belljar_execution_seconds", Unit::Seconds, "time that code ran");
    metrics::describe_histogram!("belljar_queue_seconds", Unit::Seconds, "time that executions waited for others of their session");
    metrics::describe_histogram!("belljar_allocation_seconds", Unit::Seconds, "time that making a session took");
    metrics::describe_counter!("belljar_file_operations_total", "requests for files, by operation and result");
    metrics::describe_counter!("belljar_requests_total", "requests, by status");
    metrics::describe_counter!("belljar_request_bytes_total", Unit::Bytes, "bytes of requests' bodies");
    metrics::describe_counter!("belljar_response_bytes_total", Unit::Bytes, "bytes of answers' bodies");
    metrics::describe_counter!("belljar_refused_total", "requests that were refused before anything was done, by reason");
    metrics::describe_gauge!("belljar_connections", "connections that are open");
    metrics::describe_counter!("belljar_connections_refused_total", "connections that were closed for want of room, by what was short");
    metrics::describe_gauge!("belljar_process_resident_bytes", Unit::Bytes, "memory of the server itself");
    metrics::describe_gauge!("belljar_process_open_files", "descriptors of the server itself");
    metrics::describe_gauge!("belljar_process_start_time_seconds", Unit::Seconds, "when the server was started, in seconds since 1970");
}

/// An outcome's name on the wire.
fn word(outcome: Outcome) -> String {
    serde_json::to_value(outcome).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn executed(begun: &Begun, outcome: String, ran: Duration) {
    let Begun { pool, surface, language } = begun;
    counter!("belljar_executions_total", "pool" => pool.clone(), "surface" => *surface, "language" => *language, "outcome" => outcome).increment(1);
    histogram!("belljar_execution_seconds", "pool" => pool.clone()).record(ran.as_secs_f64());
}

fn allocated(pool: &str, time: Duration) {
    histogram!("belljar_allocation_seconds", "pool" => pool.to_owned()).record(time.as_secs_f64());
}

/// A recorder that counts what passes: the one place that every execution comes through, whatever its surface.
pub struct Counted<R> {
    inner: R,
    running: Mutex<HashMap<String, Begun>>,
}

/// What is known of an execution from its beginning.
struct Begun {
    pool: String,
    surface: &'static str,
    language: &'static str,
}

impl<R: Recorder> Counted<R> {
    /// Counts what this one is given.
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self { inner, running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Begun>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Recorder> Recorder for Counted<R> {
    fn intend(&self, intent: &Intent) -> Result<(), RecordError> {
        self.inner.intend(intent)?;
        let language = match intent.language {
            Language::Python => "python",
            Language::Shell => "shell",
        };
        self.running().insert(intent.execution.clone(), Begun { pool: intent.pool.clone(), surface: intent.surface, language });
        Ok(())
    }

    fn conclude(&self, concluded: &Concluded) {
        if let Some(begun) = self.running().remove(&concluded.execution) {
            let outcome = concluded.outcome.map_or_else(|| "failed".to_owned(), word);
            executed(&begun, outcome, Duration::from_millis(concluded.execution_time_ms));
            histogram!("belljar_queue_seconds").record(concluded.queued.as_secs_f64());
        }
        self.inner.conclude(concluded);
    }

    fn note(&self, note: &Note) {
        if note.kind == "session_created" {
            allocated(&note.pool, note.took);
        }
        self.inner.note(note);
    }
}

/// A request that was refused before anything was done.
pub(crate) fn refused(reason: &'static str) {
    counter!("belljar_refused_total", "reason" => reason).increment(1);
}

/// A request that was answered.
pub(crate) fn answered(method: &Method, route: Option<&str>, status: StatusCode) {
    counter!("belljar_requests_total", "status" => status.as_u16().to_string()).increment(1);
    if route.is_some_and(|route| route.contains("/files")) {
        let operation = match *method {
            Method::GET | Method::HEAD => "read",
            Method::DELETE => "remove",
            _ => "write",
        };
        let result = match status.as_u16() {
            ..400 => "ok",
            401 | 403 => "denied",
            404 => "not_found",
            413 => "too_large",
            429 => "limit",
            400..500 => "invalid_request",
            _ => "failed",
        };
        counter!("belljar_file_operations_total", "operation" => operation, "result" => result).increment(1);
    }
}

/// Bytes of a body.
pub(crate) fn bytes(up: bool, count: u64) {
    if up { counter!("belljar_request_bytes_total").increment(count) } else { counter!("belljar_response_bytes_total").increment(count) }
}

/// Connections that are open.
pub(crate) fn connections(count: usize) {
    gauge!("belljar_connections").set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// A connection that was closed for want of room.
pub(crate) fn connection_refused(short: &'static str) {
    counter!("belljar_connections_refused_total", "short" => short).increment(1);
}

async fn metrics(State(app): State<Arc<App>>, Extension(identity): Extension<Identity>) -> Response {
    if !identity.roles.observe && !identity.roles.admin {
        return ApiError(Error::new(ErrorKind::Denied, "this key may not see metrics").hint("use a key with the role `observe`")).into_response();
    }
    let handle = install();
    measure(&app);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response()
}

/// What is not counted as it happens, as it is now.
fn measure(app: &App) {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    for pool in app.sessions.pools() {
        let name = pool.settings.name;
        gauge!("belljar_sessions", "pool" => name.clone(), "state" => "busy").set(number(pool.busy));
        gauge!("belljar_sessions", "pool" => name.clone(), "state" => "idle").set(number(pool.sessions.saturating_sub(pool.busy)));
        gauge!("belljar_pool_parked", "pool" => name.clone()).set(number(pool.sandboxes.parked));
        gauge!("belljar_pool_wanted", "pool" => name.clone()).set(number(pool.settings.sandboxes.ready));
        gauge!("belljar_pool_taken", "pool" => name.clone()).set(number(pool.sandboxes.taken));
        gauge!("belljar_pool_problems", "pool" => name).set(number(pool.sandboxes.problems.len()));
    }
    process(app);
}

fn process(app: &App) {
    if let Some(bytes) = resident_bytes() {
        gauge!("belljar_process_resident_bytes").set(bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!("belljar_process_open_files").set(f64::from(u32::try_from(files.count()).unwrap_or(u32::MAX)));
    }
    let started = app.started_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    gauge!("belljar_process_start_time_seconds").set(started.as_secs_f64());
}

fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u32 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(f64::from(pages) * f64::from(u32::try_from(rustix::param::page_size()).ok()?))
}

/// Forgets what histograms have taken in already; to be called now and then, since nobody may ever ask for metrics.
pub(crate) async fn upkeep() {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        install().run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_written_down() {
        let handle = install();
        executed(&Begun { pool: "default".to_owned(), surface: "rest", language: "python" }, word(Outcome::Completed), Duration::from_millis(3));
        histogram!("belljar_queue_seconds").record(0.0);
        allocated("default", Duration::from_millis(3));
        refused("unauthenticated");
        answered(&Method::GET, Some("/v1/sessions/{id}/files/{*path}"), StatusCode::OK);
        bytes(true, 1);
        bytes(false, 1);
        connections(1);
        connection_refused("total");
        gauge!("belljar_process_resident_bytes").set(resident_bytes().unwrap());
        let text = handle.render();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        names.sort_unstable();
        names.dedup();
        let golden: Vec<&str> = include_str!("metrics.golden.txt").lines().filter(|line| !line.is_empty()).collect();
        let unknown: Vec<&&str> = names.iter().filter(|name| !golden.contains(name)).collect();
        assert!(unknown.is_empty(), "not in metrics.golden.txt: {unknown:?}");
        for name in names.iter().filter_map(|name| name.split_whitespace().next()) {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is described");
        }
        assert!(text.contains("belljar_execution_seconds_bucket{pool=\"default\",le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("belljar_file_operations_total{operation=\"read\",result=\"ok\"} 1"), "{text}");
    }

    #[test]
    fn a_file_operation_is_told_by_method_and_status() {
        let handle = install();
        answered(&Method::PUT, Some("/v1/sessions/{id}/files/{*path}"), StatusCode::PAYLOAD_TOO_LARGE);
        answered(&Method::DELETE, Some("/files/{name}"), StatusCode::NOT_FOUND);
        let text = handle.render();
        assert!(text.contains("operation=\"write\",result=\"too_large\"") && text.contains("operation=\"remove\",result=\"not_found\""), "{text}");
    }
}
