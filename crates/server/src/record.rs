//! The engine's record, kept in the [`store`].

use std::sync::Arc;

use engine::record::{Concluded, Intent, Note, RecordError, Recorder};
use serde_json::{Value as Json, json};
use store::{Event, EventKind, Store, StoreError};

/// Puts on record what the engine does: what is about to run is durable before it runs.
#[derive(Debug, Clone)]
pub struct StoreRecorder(pub Arc<Store>);

impl Recorder for StoreRecorder {
    fn intend(&self, intent: &Intent) -> Result<(), RecordError> {
        let event = Event::new(EventKind::ExecutionIntended)
            .by(&intent.principal)
            .with("surface", intent.surface)
            .with("language", json!(intent.language))
            .with("code_sha256", intent.code_sha256.as_str())
            .with("code_bytes", intent.code_bytes)
            .with("limits", serde_json::from_str(&intent.limits).unwrap_or_else(|_| Json::from(intent.limits.as_str())))
            .with("isolation", intent.isolation)
            .with("environment", intent.environment.as_str());
        let event = Event {
            pool: Some(intent.pool.clone()),
            session: Some(intent.session.clone()),
            session_guid: Some(intent.session_guid.clone()),
            execution: Some(intent.execution.clone()),
            ..event
        };
        self.0.append(event).map(|_| ()).map_err(|error| RecordError(explain(&error)))
    }

    fn conclude(&self, concluded: &Concluded) {
        let event = Event::new(EventKind::ExecutionConcluded).by(&concluded.principal).with("execution_time_ms", concluded.execution_time_ms);
        let event = match (&concluded.outcome, &concluded.failure) {
            (Some(outcome), _) => event.with("outcome", json!(outcome)),
            (None, reason) => event.with("outcome", "failed").with("reason", reason.as_deref()),
        };
        let event = if concluded.limits_hit.is_empty() { event } else { event.with("limits_hit", json!(concluded.limits_hit)) };
        self.enqueue(Event { execution: Some(concluded.execution.clone()), ..event });
    }

    fn note(&self, note: &Note) {
        let Some(kind) = EventKind::of(note.kind) else {
            tracing::error!(kind = note.kind, "the record knows no such event");
            return;
        };
        let event = Event::new(kind).by(&note.principal);
        let event = match kind {
            _ if note.detail.is_empty() => event,
            EventKind::FileWritten | EventKind::FileRead | EventKind::FileRemoved => event.with("path", note.detail.as_str()),
            _ => event.with("reason", note.detail.as_str()),
        };
        let (pool, session, session_guid) = (note.pool.clone(), note.session.clone(), note.session_guid.clone());
        self.enqueue(Event { at: note.at, pool: Some(pool), session: Some(session), session_guid: Some(session_guid), ..event });
    }
}

impl StoreRecorder {
    fn enqueue(&self, event: Event) {
        let kind = event.kind.name();
        if let Err(error) = self.0.enqueue(event) {
            tracing::error!(kind, error = explain(&error), "an event came too late for the record");
        }
    }
}

/// An error of the store with its causes and its remedy, for the operator.
pub(crate) fn explain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    match error.hint() {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use engine::{Language, Outcome};
    use store::{Filter, Options};

    use super::*;

    fn recorder() -> (tempfile::TempDir, StoreRecorder) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), Options::default()).unwrap();
        (home, StoreRecorder(store))
    }

    fn intent(execution: &str) -> Intent {
        Intent {
            execution: execution.to_owned(),
            principal: "alice".to_owned(),
            pool: "default".to_owned(),
            session: "s 1".to_owned(),
            session_guid: "ses_1".to_owned(),
            surface: "rest",
            language: Language::Shell,
            code_sha256: "ab".repeat(32),
            code_bytes: 3,
            limits: r#"{"wallSeconds":120,"cpus":1.0}"#.to_owned(),
            isolation: "namespace",
            environment: "core".to_owned(),
        }
    }

    fn concluded(execution: &str, outcome: Option<Outcome>) -> Concluded {
        let failure = outcome.is_none().then(|| "no sandbox".to_owned());
        let (execution, principal) = (execution.to_owned(), "alice".to_owned());
        Concluded { execution, principal, outcome, failure, limits_hit: vec!["wallSeconds"], execution_time_ms: 7, queued: Duration::ZERO }
    }

    #[test]
    fn an_execution_is_on_record_before_and_after() {
        let (_home, recorder) = recorder();
        recorder.intend(&intent("exe_1")).unwrap();
        assert_eq!(recorder.0.status().last_seq, 1, "durable before it runs");
        recorder.conclude(&concluded("exe_1", Some(Outcome::TimedOut)));
        recorder.intend(&intent("exe_2")).unwrap();
        recorder.conclude(&concluded("exe_2", None));
        recorder.0.flush().unwrap();
        let events = recorder.0.query(&Filter { session: Some("ses_1".to_owned()), ..Filter::default() }).unwrap();
        let details: Vec<_> = events.iter().map(|event| event.detail.to_string()).collect();
        let sha256 = "ab".repeat(32);
        let begin = format!(
            r#"{{"code_bytes":3,"code_sha256":"{sha256}","environment":"core","isolation":"namespace","language":"shell","limits":{{"cpus":1.0,"wallSeconds":120}},"surface":"rest"}}"#
        );
        assert_eq!(
            details,
            [
                begin.as_str(),
                r#"{"execution_time_ms":7,"limits_hit":["wallSeconds"],"outcome":"timed_out"}"#,
                begin.as_str(),
                r#"{"execution_time_ms":7,"limits_hit":["wallSeconds"],"outcome":"failed","reason":"no sandbox"}"#
            ]
        );
    }

    #[test]
    fn every_note_of_the_engine_is_known() {
        let (_home, recorder) = recorder();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        for kind in ["session_created", "session_ended", "file_written", "file_read", "file_removed"] {
            let detail = if kind == "session_created" { String::new() } else { "a\nb".to_owned() };
            let (principal, pool, session) = ("alice".to_owned(), "default".to_owned(), "s-1".to_owned());
            recorder.note(&Note { kind, principal, pool, session, session_guid: "ses_1".to_owned(), detail, at, took: Duration::ZERO });
        }
        recorder.0.flush().unwrap();
        let events = recorder.0.query(&Filter::default()).unwrap();
        let seen: Vec<_> = events.iter().map(|event| (event.kind.clone(), event.at.clone(), event.detail.to_string())).collect();
        let at = "1970-01-01T00:00:01.000Z";
        let expected = [
            ("session_created", "{}"),
            ("session_ended", r#"{"reason":"a\nb"}"#),
            ("file_written", r#"{"path":"a\nb"}"#),
            ("file_read", r#"{"path":"a\nb"}"#),
            ("file_removed", r#"{"path":"a\nb"}"#),
        ];
        assert_eq!(seen, expected.map(|(kind, detail)| (kind.to_owned(), at.to_owned(), detail.to_owned())));
    }

    #[test]
    fn what_cannot_be_recorded_does_not_run() {
        let (_home, recorder) = recorder();
        recorder.0.close();
        let error = recorder.intend(&intent("exe_1")).unwrap_err();
        assert_eq!(error.to_string(), "cannot be put on record: the record is closed");
        recorder.conclude(&concluded("exe_1", Some(Outcome::Completed)));
        assert!(recorder.0.query(&Filter::default()).unwrap().is_empty());
    }
}
