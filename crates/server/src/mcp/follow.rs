//! A tool at work, as its caller hears of it: that it goes on, what it writes, and how it is stopped.
#![expect(deprecated, reason = "messages of the log are deprecated since revision 2026-07-28, and part of all that are spoken here")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Error, Observer, Output, Stream, Value};
use rmcp::model::{LoggingLevel, LoggingMessageNotification, LoggingMessageNotificationParam, ProgressNotificationParam, RequestId};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer};
use serde_json::json;

use super::connection::About;
use crate::queue::{Decoder, PATIENCE, PIECE_BYTES, Queue, Reader};

/// First word that something goes on, and between two.
const FIRST: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(2);

/// What the code wrote.
#[derive(Debug)]
pub(super) struct Piece {
    stream: Stream,
    text: String,
}

/// Sees what the code writes, on a thread that may block.
struct Watcher {
    queue: Arc<Queue<Piece>>,
    stdout: Decoder,
    stderr: Decoder,
}

impl Watcher {
    fn push(&self, stream: Stream, text: String) {
        let bytes = text.len();
        if bytes > 0 {
            self.queue.push(Piece { stream, text }, bytes);
        }
    }
}

impl Observer for Watcher {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES) {
            let text = match stream {
                Stream::Stdout => self.stdout.decode(piece),
                Stream::Stderr => self.stderr.decode(piece),
            };
            self.push(stream, text);
        }
    }

    fn showed(&mut self, _: &Output) {}

    fn result(&mut self, _: &Value) {}
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for (stream, rest) in [(Stream::Stdout, self.stdout.rest()), (Stream::Stderr, self.stderr.rest())] {
            self.push(stream, rest.unwrap_or_default());
        }
        self.queue.end();
    }
}

/// What watches an execution, and where what it writes can be read.
pub(super) fn channel() -> (Box<dyn Observer + Send>, Reader<Piece>) {
    let queue = Arc::new(Queue::new(PATIENCE));
    (Box::new(Watcher { queue: Arc::clone(&queue), stdout: Decoder::default(), stderr: Decoder::default() }), Reader(queue))
}

/// Tells the client what the code writes, as messages of the log, until nothing more comes or nobody takes it.
pub(super) async fn tell(reader: Reader<Piece>, peer: &Peer<RoleServer>, (request, least): (&RequestId, LoggingLevel)) {
    while let Ok(Some(piece)) = reader.0.pop().await {
        let (level, logger) = match piece.stream {
            Stream::Stdout => (LoggingLevel::Info, "stdout"),
            Stream::Stderr => (LoggingLevel::Warning, "stderr"),
        };
        if (level as u8) < (least as u8) {
            continue;
        }
        let mut message = LoggingMessageNotification::new(LoggingMessageNotificationParam::new(level, json!(piece.text)).with_logger(logger));
        message.extensions.insert(About(request.clone()));
        let told = tokio::time::timeout(PATIENCE, peer.send_notification(message.into())).await;
        if !matches!(told, Ok(Ok(()))) {
            return;
        }
    }
}

/// Since when progress is told of a request.
#[derive(Debug, Clone)]
struct Begun(Instant);

/// Tells the client again and again that the work goes on, where it asked for that. Never ends by itself.
pub(super) async fn progress(context: &RequestContext<RoleServer>, what: impl Fn(Duration) -> String) -> Error {
    let Some(token) = context.meta.get_progress_token() else { return std::future::pending().await };
    // The same for all parts of the work: what is told only grows.
    let begun = context.extensions.get::<Begun>().map_or_else(Instant::now, |begun| begun.0);
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = PAUSE;
        let passed = begun.elapsed();
        let param = ProgressNotificationParam::new(token.clone(), passed.as_secs_f64()).with_message(what(passed));
        // Nobody has to listen.
        let _ = tokio::time::timeout(PATIENCE, context.peer.notify_progress(param)).await;
    }
}

/// Notes when a request began.
pub(super) fn begin(context: &mut RequestContext<RoleServer>) {
    context.extensions.insert(Begun(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_comes_in_order_and_whole() {
        let (mut watcher, reader) = channel();
        watcher.wrote(Stream::Stdout, b"a\xe2\x82");
        watcher.wrote(Stream::Stderr, b"");
        watcher.wrote(Stream::Stderr, b"e");
        watcher.wrote(Stream::Stdout, b"\xac\xff");
        watcher.wrote(Stream::Stdout, b"\xe2");
        drop(watcher);
        let mut seen = Vec::new();
        while let Some(piece) = reader.0.pop().await.unwrap() {
            seen.push((piece.stream, piece.text));
        }
        let expected = [(Stream::Stdout, "a"), (Stream::Stderr, "e"), (Stream::Stdout, "€\u{fffd}"), (Stream::Stdout, "\u{fffd}")];
        assert_eq!(seen, expected.map(|(stream, text)| (stream, text.to_owned())));
    }
}
