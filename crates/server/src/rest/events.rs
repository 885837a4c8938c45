//! An execution as server-sent events. What a reader has not taken yet is bounded in bytes; a reader that takes nothing is left behind,
//! and the execution goes on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use engine::session::{Finished, Started};
use engine::{Error, Observer, Output, Stream, Value};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Notify;

use super::call::Links;
use super::view::{ArtifactView, ExecutionView};
use crate::error;

/// Bytes that wait for a reader at most; a single larger event waits alone.
const WAITING_BYTES: usize = 1024 * 1024;
/// A reader that takes nothing for so long while its room is used up is gone. Less than any proxy would wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// Comments keep the connection alive while nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Of what the code writes, one event takes so many bytes; escaped they may be six times as many.
const EVENT_BYTES: usize = 64 * 1024;

/// Between the thread that watches an execution and the reader.
#[derive(Debug)]
struct Queue {
    state: Mutex<Waiting>,
    /// The reader has taken something, or is gone.
    room: Condvar,
    /// Something waits, or nothing more will come.
    news: Notify,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Events written so far: the last one's id.
    number: u64,
    taken: u64,
    /// Nobody reads any more.
    gone: bool,
    /// Nothing more will be written.
    ended: bool,
}

impl Queue {
    fn new(patience: Duration) -> Self {
        // `started` is number 1, and written without waiting.
        Self { state: Mutex::new(Waiting { number: 1, ..Waiting::default() }), room: Condvar::new(), news: Notify::new(), patience }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event, waiting for room. Nothing happens where nobody reads.
    fn push(&self, name: &str, data: &impl Serialize) {
        let mut state = self.lock();
        if state.gone {
            return;
        }
        let event = frame(&mut state.number, name, data);
        let mut taken = state.taken;
        let mut until = Instant::now() + self.patience;
        while state.bytes > 0 && state.bytes.saturating_add(event.len()) > WAITING_BYTES && !state.gone {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.gone = true;
                state.events.clear();
                state.bytes = 0;
                break;
            }
            state = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if state.taken != taken {
                taken = state.taken;
                until = Instant::now() + self.patience;
            }
        }
        if !state.gone {
            state.bytes = state.bytes.saturating_add(event.len());
            state.events.push_back(event);
        }
        drop(state);
        self.news.notify_one();
    }

    /// The next event; `None` after the last, `Err` where the reader was left behind.
    async fn pop(&self) -> Result<Option<Bytes>, Behind> {
        loop {
            let news = self.news.notified();
            {
                let mut state = self.lock();
                if state.gone {
                    return Err(Behind);
                }
                if let Some(event) = state.events.pop_front() {
                    state.bytes = state.bytes.saturating_sub(event.len());
                    state.taken = state.taken.saturating_add(1);
                    self.room.notify_all();
                    return Ok(Some(event));
                }
                if state.ended {
                    return Ok(None);
                }
            }
            news.await;
        }
    }
}

/// The reader took too long.
#[derive(Debug, thiserror::Error)]
#[error("the reader was too slow")]
struct Behind;

/// One event as it goes over the wire. JSON has no line breaks of its own, so one line holds it.
fn frame(number: &mut u64, name: &str, data: &impl Serialize) -> Bytes {
    *number = number.saturating_add(1);
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    Bytes::from(format!("id: {number}\nevent: {name}\ndata: {data}\n\n"))
}

/// Turns bytes that come in pieces into text: characters that are cut wait for their rest, bytes that are none become U+FFFD.
#[derive(Debug, Default)]
struct Decoder(Vec<u8>);

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            let is_cut = chunks.peek().is_none() && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if is_cut {
                self.0 = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What was held back, which nothing will complete.
    fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

/// Sees the execution, on a thread that may block.
struct Watcher {
    queue: Arc<Queue>,
    stdout: Decoder,
    stderr: Decoder,
}

impl Observer for Watcher {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) {
        let (name, decoder) = match stream {
            Stream::Stdout => ("stdout", &mut self.stdout),
            Stream::Stderr => ("stderr", &mut self.stderr),
        };
        for bytes in bytes.chunks(EVENT_BYTES) {
            let text = decoder.decode(bytes);
            if !text.is_empty() {
                self.queue.push(name, &json!({"text": text}));
            }
        }
    }

    fn showed(&mut self, output: &Output) {
        self.queue.push("display", output);
    }

    fn result(&mut self, value: &Value) {
        self.queue.push("result", value);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for (name, decoder) in [("stdout", &mut self.stdout), ("stderr", &mut self.stderr)] {
            if let Some(text) = decoder.rest() {
                self.queue.push(name, &json!({"text": text}));
            }
        }
        self.queue.lock().ended = true;
        self.queue.news.notify_one();
    }
}

/// Gone with the body that is read from it.
struct Reader(Arc<Queue>);

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone = true;
        state.events.clear();
        state.bytes = 0;
        self.0.room.notify_all();
    }
}

/// The watcher to give to the engine, and what makes the answer of it.
pub(crate) fn channel() -> (Box<dyn Observer + Send>, Events) {
    let queue = Arc::new(Queue::new(PATIENCE));
    let watcher = Watcher { queue: Arc::clone(&queue), stdout: Decoder::default(), stderr: Decoder::default() };
    (Box::new(watcher), Events(Reader(queue)))
}

/// The reader's end.
pub(crate) struct Events(Reader);

impl Events {
    /// The answer: `started`, everything that is watched, `error` and `artifact`s, `done`.
    pub(crate) fn into_response(self, started: Started, links: Links) -> Response {
        let mut number = 0;
        let first = frame(&mut number, "started", &json!({"id": started.id, "sessionId": links.id}));
        let source = Source { reader: self.0, step: Step::First(first), finished: Box::pin(started.finished()), links };
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
    reader: Reader,
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
                    Ok(Ok(Some(event))) => return Some(Ok(event)),
                    Ok(Err(behind)) => return Some(Err(behind)),
                    // The watcher is gone, so the end is near.
                    Ok(Ok(None)) => match tokio::time::timeout(KEEP_ALIVE, &mut self.finished).await {
                        Err(_) => return Some(Ok(Bytes::from_static(b": still here\n\n"))),
                        Ok(finished) => {
                            let mut number = self.reader.0.lock().number;
                            self.step = Step::Last(last(finished, &self.links, &mut number));
                        }
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

    fn watcher(patience: Duration) -> (Watcher, Arc<Queue>) {
        let queue = Arc::new(Queue::new(patience));
        (Watcher { queue: Arc::clone(&queue), stdout: Decoder::default(), stderr: Decoder::default() }, queue)
    }

    #[test]
    fn characters_stay_whole_and_bytes_become_text() {
        let mut decoder = Decoder::default();
        let text = "aé😀z".as_bytes();
        let pieces: String = text.chunks(1).map(|piece| decoder.decode(piece)).collect();
        assert_eq!(pieces, "aé😀z");
        assert_eq!(decoder.rest(), None);
        assert_eq!(decoder.decode(b"\xffa\xc3\x28\xe2\x82"), "\u{fffd}a\u{fffd}(");
        assert_eq!(decoder.decode(b"\xac!"), "€!");
        assert_eq!(decoder.decode(b"\xf0\x9f"), "");
        assert_eq!(decoder.rest().as_deref(), Some("\u{fffd}"));
    }

    #[tokio::test]
    async fn events_are_numbered_lines() {
        let (mut watcher, queue) = watcher(PATIENCE);
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

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_left_behind() {
        let (mut watcher, queue) = watcher(Duration::from_millis(1));
        let piece = vec![b'x'; EVENT_BYTES];
        for _ in 0..100 {
            watcher.wrote(Stream::Stdout, &piece);
            assert!(queue.lock().bytes <= WAITING_BYTES);
        }
        assert!(queue.lock().gone, "its room was used up");
        assert!(queue.pop().await.is_err());
        assert_eq!(queue.lock().bytes, 0, "nothing is kept for it");
    }

    #[tokio::test]
    async fn a_reader_that_keeps_reading_gets_everything() {
        let (mut watcher, queue) = watcher(PATIENCE);
        let thread = std::thread::spawn(move || {
            let piece = vec![b'x'; EVENT_BYTES];
            for _ in 0..100 {
                watcher.wrote(Stream::Stdout, &piece);
            }
            watcher.showed(&Output { media_type: "image/png".to_owned(), name: "p".to_owned(), data: "A".repeat(3 * WAITING_BYTES) });
        });
        let mut total = 0;
        while let Some(event) = queue.pop().await.unwrap() {
            total += event.len();
        }
        assert!(total > 100 * EVENT_BYTES + 3 * WAITING_BYTES);
        thread.join().unwrap();
    }

    #[test]
    fn a_watcher_does_not_wait_for_a_reader_that_has_left() {
        let (mut watcher, queue) = watcher(Duration::from_secs(3600));
        watcher.wrote(Stream::Stdout, &vec![b'x'; WAITING_BYTES / 2]);
        drop(Reader(queue));
        watcher.wrote(Stream::Stdout, &vec![b'x'; 2 * WAITING_BYTES]);
    }
}
