//! An execution as server-sent events. What a reader has not taken yet is bounded in bytes; a reader that takes nothing is left behind,
//! and the execution goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use engine::session::{Finished, Started};
use engine::{Error, Observer, Output, Stream, Value};
use serde::Serialize;
use serde_json::json;

use super::call::Links;
use super::view::{ArtifactView, ExecutionView};
use crate::error;
use crate::queue::{Behind, Decoder, PATIENCE, PIECE_BYTES, Queue, Reader};

/// Comments keep the connection alive while nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event as it goes over the wire. JSON has no line breaks of its own, so one line holds it.
fn frame(number: &mut u64, name: &str, data: &impl Serialize) -> Bytes {
    *number = number.saturating_add(1);
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    Bytes::from(format!("id: {number}\nevent: {name}\ndata: {data}\n\n"))
}

/// Sees the execution, on a thread that may block.
struct Watcher {
    queue: Arc<Queue<Bytes>>,
    /// Of the last event.
    number: u64,
    stdout: Decoder,
    stderr: Decoder,
}

impl Watcher {
    fn new(queue: &Arc<Queue<Bytes>>) -> Self {
        // `started` is number 1, and written without waiting.
        Self { queue: Arc::clone(queue), number: 1, stdout: Decoder::default(), stderr: Decoder::default() }
    }

    fn push(&mut self, name: &str, data: &impl Serialize) {
        let event = frame(&mut self.number, name, data);
        let bytes = event.len();
        self.queue.push(event, bytes);
    }
}

impl Observer for Watcher {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) {
        let (name, decoder) = match stream {
            Stream::Stdout => ("stdout", &mut self.stdout),
            Stream::Stderr => ("stderr", &mut self.stderr),
        };
        // Escaped, a piece may be six times as long.
        let texts: Vec<String> = bytes.chunks(PIECE_BYTES).map(|piece| decoder.decode(piece)).collect();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            self.push(name, &json!({"text": text}));
        }
    }

    fn showed(&mut self, output: &Output) {
        self.push("display", output);
    }

    fn result(&mut self, value: &Value) {
        self.push("result", value);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let rests = [("stdout", self.stdout.rest()), ("stderr", self.stderr.rest())];
        for (name, rest) in rests {
            if let Some(text) = rest {
                self.push(name, &json!({"text": text}));
            }
        }
        self.queue.end();
    }
}

/// The watcher to give to the engine, and what makes the answer of it.
pub(crate) fn channel() -> (Box<dyn Observer + Send>, Events) {
    let queue = Arc::new(Queue::new(PATIENCE));
    (Box::new(Watcher::new(&queue)), Events(Reader(queue)))
}

/// The reader's end.
pub(crate) struct Events(Reader<Bytes>);

impl Events {
    /// The answer: `started`, everything that is watched, `error` and `artifact`s, `done`.
    pub(crate) fn into_response(self, started: Started, links: Links) -> Response {
        let mut number = 0;
        let first = frame(&mut number, "started", &json!({"id": started.id, "sessionId": links.id}));
        let source = Source { reader: self.0, number, step: Step::First(first), finished: Box::pin(started.finished()), links };
        let body = Body::from_stream(futures_util::stream::unfold(source, |mut source| async move { source.next().await.map(|event| (event, source)) }));
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Proxies that collect answers would hold events back.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

type Finish = std::pin::Pin<Box<dyn Future<Output = Result<Arc<Finished>, Arc<Error>>> + Send>>;

enum Step {
    First(Bytes),
    Watching,
    Last(VecDeque<Bytes>),
}

struct Source {
    reader: Reader<Bytes>,
    /// Of the last event.
    number: u64,
    step: Step,
    finished: Finish,
    links: Links,
}

impl Source {
    async fn next(&mut self) -> Option<Result<Bytes, Behind>> {
        loop {
            match &mut self.step {
                Step::First(event) => {
                    let event = std::mem::take(event);
                    self.step = Step::Watching;
                    return Some(Ok(event));
                }
                Step::Watching => match tokio::time::timeout(KEEP_ALIVE, self.reader.0.pop()).await {
                    Err(_) => return Some(Ok(Bytes::from_static(b": still here\n\n"))),
                    Ok(Ok(Some(event))) => {
                        self.number = self.number.saturating_add(1);
                        return Some(Ok(event));
                    }
                    Ok(Err(behind)) => return Some(Err(behind)),
                    // The watcher is gone, so the end is near.
                    Ok(Ok(None)) => match tokio::time::timeout(KEEP_ALIVE, &mut self.finished).await {
                        Err(_) => return Some(Ok(Bytes::from_static(b": still here\n\n"))),
                        Ok(finished) => self.step = Step::Last(last(finished, &self.links, &mut self.number)),
                    },
                },
                Step::Last(events) => return events.pop_front().map(Ok),
            }
        }
    }
}

/// The events after the code's end.
fn last(finished: Result<Arc<Finished>, Arc<Error>>, links: &Links, number: &mut u64) -> VecDeque<Bytes> {
    let mut events = VecDeque::new();
    match finished {
        Ok(finished) => {
            let execution = &finished.execution;
            if let Some(error) = &execution.error {
                events.push_back(frame(number, "error", error));
            }
            for artifact in &execution.artifacts {
                events.push_back(frame(number, "artifact", &ArtifactView::of(artifact, Some(links.file(&artifact.raw_path)))));
            }
            events.push_back(frame(number, "done", &ExecutionView::linked(execution, links)));
        }
        Err(failure) => {
            let code = error::status(failure.kind).0;
            tracing::warn!(code, detail = failure.detail, "execution failed");
            events.push_back(frame(number, "failed", &json!({"error": {"code": code, "message": failure.message, "hint": failure.hint}})));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_numbered_lines() {
        let queue = Arc::new(Queue::new(PATIENCE));
        let mut watcher = Watcher::new(&queue);
        watcher.wrote(Stream::Stdout, b"a\r\n\ndata: x\xe2\x82");
        watcher.wrote(Stream::Stderr, b"e");
        watcher.result(&Value { text: "1".to_owned(), json: json!(1) });
        drop(watcher);
        let mut events = Vec::new();
        while let Some(event) = queue.pop().await.unwrap() {
            events.push(String::from_utf8(event.to_vec()).unwrap());
        }
        let expected = [
            "id: 2\nevent: stdout\ndata: {\"text\":\"a\\r\\n\\ndata: x\"}\n\n",
            "id: 3\nevent: stderr\ndata: {\"text\":\"e\"}\n\n",
            "id: 4\nevent: result\ndata: {\"text\":\"1\",\"json\":1}\n\n",
            "id: 5\nevent: stdout\ndata: {\"text\":\"\u{fffd}\"}\n\n",
        ];
        assert_eq!(events, expected);
    }
}
