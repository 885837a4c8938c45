//! Messages as lines, as standard input and output carry them. Several at once in one line are of revision 2025-03-26: they are taken apart, and what
//! they are answered with is put together again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ErrorData, JsonRpcMessage, ProtocolVersion, RequestId, ServerJsonRpcMessage, ServerResult};
use rmcp::transport::Transport;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::answer::words;
use crate::json;

/// A line may be this long: a file as base64, and something around it.
const MAX_LINE: usize = 65 * 1024 * 1024;
/// Messages of one batch.
const MAX_BATCH: usize = 32;

/// Lines that are messages.
pub(super) struct Lines<R, W> {
    input: BufReader<R>,
    partial: Partial,
    output: Arc<tokio::sync::Mutex<W>>,
    /// Messages of a batch that are yet to be heard.
    heard: VecDeque<ClientJsonRpcMessage>,
    state: Arc<Mutex<State>>,
    /// Nobody takes what is written any more.
    broken: CancellationToken,
}

#[derive(Default)]
struct State {
    revision: Option<ProtocolVersion>,
    batches: Vec<Batch>,
}

/// Answers that go together.
struct Batch {
    open: Vec<RequestId>,
    answers: Vec<Json>,
}

/// What a line is.
enum Line {
    Message(Box<ClientJsonRpcMessage>),
    Several(Vec<Json>),
    /// Nothing that can be answered, and nothing that has to be.
    Nothing,
    /// What it is to be answered with.
    Wrong(Json),
}

impl<R: AsyncRead + Unpin, W> Lines<R, W> {
    pub(super) fn new(input: R, output: W) -> Self {
        Self {
            input: BufReader::new(input),
            partial: Partial::default(),
            output: Arc::new(tokio::sync::Mutex::new(output)),
            heard: VecDeque::new(),
            state: Arc::default(),
            broken: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the messages of a batch; what it is to be answered with, where that can be told at once.
    fn take_apart(&mut self, messages: Vec<Json>) -> Option<Json> {
        if self.lock().revision != Some(ProtocolVersion::V_2025_03_26) {
            return Some(wrong(ErrorData::invalid_request("only revision 2025-03-26 takes several messages at once: send them one by one", None), None));
        }
        if messages.is_empty() || messages.len() > MAX_BATCH {
            let message = format!("a batch has {} messages, and may have 1 to {MAX_BATCH}", messages.len());
            return Some(wrong(ErrorData::invalid_request(message, None), None));
        }
        let mut batch = Batch { open: Vec::new(), answers: Vec::new() };
        for message in messages {
            match parse(message.to_string().as_bytes()) {
                Line::Message(message) => {
                    if let JsonRpcMessage::Request(request) = message.as_ref() {
                        batch.open.push(request.id.clone());
                    }
                    self.heard.push_back(*message);
                }
                Line::Wrong(error) => batch.answers.push(error),
                Line::Several(_) => batch.answers.push(wrong(ErrorData::invalid_request("a batch within a batch", None), None)),
                Line::Nothing => {}
            }
        }
        if batch.open.is_empty() {
            return (!batch.answers.is_empty()).then_some(Json::Array(batch.answers));
        }
        self.lock().batches.push(batch);
        None
    }
}

impl State {
    /// A message as a line; `None` where it is kept until its batch is complete.
    fn line(&mut self, message: &ServerJsonRpcMessage) -> Option<String> {
        if let JsonRpcMessage::Response(response) = message
            && let ServerResult::InitializeResult(result) = &response.result
        {
            self.revision = Some(result.protocol_version.clone());
        }
        let id = match message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            JsonRpcMessage::Notification(_) | JsonRpcMessage::Request(_) => None,
        };
        let found = id.and_then(|id| self.batches.iter().enumerate().find_map(|(place, batch)| Some((place, batch.open.iter().position(|open| open == id)?))));
        let Some((place, open)) = found else { return serde_json::to_string(message).ok() };
        let batch = self.batches.get_mut(place)?;
        batch.open.swap_remove(open);
        batch.answers.push(json!(message));
        batch.open.is_empty().then(|| Json::Array(self.batches.swap_remove(place).answers).to_string())
    }

    /// A request that was given up gets no answer, so its batch does not wait for one.
    fn give_up(&mut self, message: &ClientJsonRpcMessage) -> Option<String> {
        let JsonRpcMessage::Notification(notification) = message else { return None };
        let rmcp::model::ClientNotification::CancelledNotification(cancelled) = &notification.notification else { return None };
        let id = cancelled.params.request_id.as_ref()?;
        let place = self.batches.iter().position(|batch| batch.open.contains(id))?;
        let batch = self.batches.get_mut(place)?;
        batch.open.retain(|open| open != id);
        if !batch.open.is_empty() {
            return None;
        }
        let answers = self.batches.swap_remove(place).answers;
        (!answers.is_empty()).then(|| Json::Array(answers).to_string())
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (output, state, broken) = (Arc::clone(&self.output), Arc::clone(&self.state), self.broken.clone());
        async move {
            let line = state.lock().unwrap_or_else(PoisonError::into_inner).line(&message);
            match line {
                Some(line) => write(&output, line).await.inspect_err(|_| broken.cancel()),
                None => Ok(()),
            }
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return Some(message);
            }
            let line = tokio::select! {
                line = self.partial.read(&mut self.input, MAX_LINE) => line.ok()??,
                () = self.broken.cancelled() => return None,
            };
            let answer = match line.as_deref().map_or_else(|| Line::Wrong(wrong(too_long(), None)), parse) {
                Line::Message(message) => {
                    let complete = self.lock().give_up(&message);
                    if let Some(complete) = complete {
                        self.answer(complete);
                    }
                    return Some(*message);
                }
                Line::Several(messages) => self.take_apart(messages),
                Line::Nothing => None,
                Line::Wrong(error) => Some(error),
            };
            if let Some(answer) = answer {
                self.answer(answer.to_string());
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output.lock().await.flush().await
    }
}

async fn write<W: AsyncWrite + Unpin>(output: &tokio::sync::Mutex<W>, mut line: String) -> io::Result<()> {
    line.push('\n');
    let mut output = output.lock().await;
    output.write_all(line.as_bytes()).await?;
    output.flush().await
}

impl<R, W: AsyncWrite + Send + Unpin + 'static> Lines<R, W> {
    /// Writes an answer of our own. By itself: the hearing may be called off in the middle of it.
    fn answer(&self, line: String) {
        let (output, broken) = (Arc::clone(&self.output), self.broken.clone());
        tokio::spawn(async move { write(&output, line).await.inspect_err(|_| broken.cancel()) });
    }
}

/// A line on its way. Kept beside the reading of it, which may be called off at any time.
#[derive(Debug, Default)]
struct Partial {
    line: Vec<u8>,
    is_long: bool,
}

impl Partial {
    /// Reads on to the end of a line, which does not belong to it; `None` after the last, and `Some(None)` in the place of one that is too long.
    async fn read(&mut self, input: &mut (impl AsyncBufRead + Unpin), most: usize) -> io::Result<Option<Option<Vec<u8>>>> {
        loop {
            let buffer = input.fill_buf().await?;
            if buffer.is_empty() {
                return Ok(if self.line.is_empty() && !self.is_long { None } else { Some(self.take()) });
            }
            let (piece, ended) = match memchr::memchr(b'\n', buffer) {
                Some(end) => (buffer.get(..end).unwrap_or_default(), true),
                None => (buffer, false),
            };
            self.is_long |= self.line.len().saturating_add(piece.len()) > most;
            if self.is_long {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(piece);
            }
            let taken = piece.len().saturating_add(usize::from(ended));
            input.consume(taken);
            if ended {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let Self { line, is_long } = std::mem::take(self);
        (!is_long).then_some(line)
    }
}

fn too_long() -> ErrorData {
    ErrorData::invalid_request(format!("a line is longer than {MAX_LINE} bytes"), None)
}

fn wrong(error: ErrorData, id: Option<RequestId>) -> Json {
    json!(ServerJsonRpcMessage::error(error, id))
}

fn parse(line: &[u8]) -> Line {
    /// What has to be known of a message that cannot be read.
    #[derive(serde::Deserialize)]
    struct Known<'a> {
        id: Option<RequestId>,
        #[serde(borrow)]
        method: Option<&'a RawValue>,
    }
    let line = line.trim_ascii();
    if line.is_empty() {
        return Line::Nothing;
    }
    if let Err(error) = json::check(line) {
        return Line::Wrong(wrong(ErrorData::parse_error(words(&error), None), None));
    }
    if line.first() == Some(&b'[') {
        return serde_json::from_slice(line).map_or(Line::Nothing, Line::Several);
    }
    if let Ok(message) = serde_json::from_slice(line) {
        return Line::Message(Box::new(message));
    }
    match serde_json::from_slice::<Known>(line) {
        // What only tells something is never answered.
        Ok(Known { id: None, method: Some(_) }) => Line::Nothing,
        Ok(Known { id, .. }) => Line::Wrong(wrong(ErrorData::invalid_request("this is no request, notification or response of JSON-RPC 2.0", None), id)),
        Err(_) => Line::Wrong(wrong(ErrorData::invalid_request("a message is a JSON object", None), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::{EmptyResult, InitializeResult, JsonRpcResponse, JsonRpcVersion2_0, ServerCapabilities};
    use tokio::io::DuplexStream;

    fn response(id: i64, result: ServerResult) -> ServerJsonRpcMessage {
        JsonRpcMessage::Response(JsonRpcResponse { jsonrpc: JsonRpcVersion2_0, id: RequestId::Number(id), result })
    }

    /// A connection of a revision: the lines as the server has them, and the client's ends.
    async fn lines(revision: ProtocolVersion) -> (Lines<DuplexStream, DuplexStream>, DuplexStream, BufReader<DuplexStream>) {
        let ((client, input), (output, heard)) = (tokio::io::duplex(1 << 20), tokio::io::duplex(1 << 20));
        let (mut lines, mut heard) = (Lines::new(input, output), BufReader::new(heard));
        let hello = InitializeResult::new(ServerCapabilities::default()).with_protocol_version(revision);
        lines.send(response(0, ServerResult::InitializeResult(hello))).await.unwrap();
        line(&mut heard).await;
        (lines, client, heard)
    }

    async fn line(heard: &mut BufReader<DuplexStream>) -> Json {
        let mut text = String::new();
        heard.read_line(&mut text).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    const BATCH: &[u8] =
        br#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},{"id":9},{"jsonrpc":"2.0","id":2,"method":"ping"}]
"#;

    #[tokio::test]
    async fn several_messages_are_answered_together() {
        let (mut lines, mut client, mut heard) = lines(ProtocolVersion::V_2025_03_26).await;
        client.write_all(BATCH).await.unwrap();
        for _ in 0..3 {
            assert!(lines.receive().await.is_some());
        }
        for id in [2, 1] {
            lines.send(response(id, ServerResult::EmptyResult(EmptyResult {}))).await.unwrap();
        }
        let answers = line(&mut heard).await;
        let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect();
        assert_eq!(ids, [json!(9), json!(2), json!(1)], "{answers}");
    }

    #[tokio::test]
    async fn a_batch_does_not_wait_for_what_was_given_up() {
        let (mut lines, mut client, mut heard) = lines(ProtocolVersion::V_2025_03_26).await;
        client.write_all(BATCH).await.unwrap();
        for _ in 0..3 {
            lines.receive().await.unwrap();
        }
        lines.send(response(1, ServerResult::EmptyResult(EmptyResult {}))).await.unwrap();
        client.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":2}}\n").await.unwrap();
        lines.receive().await.unwrap();
        assert_eq!(line(&mut heard).await.as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_is_no_message_is_told_so_and_the_next_line_is_heard() {
        let (mut lines, mut client, mut heard) = lines(ProtocolVersion::V_2025_11_25).await;
        let bad: [(&[u8], i64); 6] = [
            (b"GET / HTTP/1.1", -32700),
            (b"{\"a\":1,\"a\":2}", -32700),
            (b"1", -32600),
            (b"{}", -32600),
            (b"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", -32600),
            (b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", -32600),
        ];
        for (text, _) in bad {
            client.write_all(text).await.unwrap();
            client.write_all(b"\r\n\n").await.unwrap();
        }
        client.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"no/such\",\"params\":1}\n{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\"}").await.unwrap();
        drop(client);
        let heard_of = async {
            loop {
                match lines.receive().await {
                    Some(JsonRpcMessage::Request(request)) => break request.id,
                    Some(_) => {}
                    None => panic!("the last line is heard without its end"),
                }
            }
        };
        assert_eq!(heard_of.await, RequestId::Number(5));
        for (text, code) in bad {
            assert_eq!(line(&mut heard).await["error"]["code"], code, "{}", String::from_utf8_lossy(text));
        }
        assert!(lines.receive().await.is_none());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over() {
        let text = [vec![b'x'; 41], b"\n".to_vec(), vec![b'y'; 40], b"\n".to_vec(), vec![b'z'; 41]].concat();
        let mut input = BufReader::with_capacity(8, text.as_slice());
        let mut partial = Partial::default();
        for expected in [Some(None), Some(Some(vec![b'y'; 40])), Some(None), None] {
            assert_eq!(partial.read(&mut input, 40).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn what_has_been_read_of_a_line_is_not_lost_when_the_reading_is_called_off() {
        let (mut lines, mut client, _heard) = lines(ProtocolVersion::V_2025_11_25).await;
        let text = br#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#;
        for byte in text {
            client.write_all(&[*byte]).await.unwrap();
            assert!(tokio::time::timeout(std::time::Duration::from_millis(1), lines.receive()).await.is_err());
        }
        client.write_all(b"\n").await.unwrap();
        assert!(matches!(lines.receive().await, Some(JsonRpcMessage::Request(request)) if request.id == RequestId::Number(5)));
    }

    #[tokio::test]
    async fn who_takes_nothing_any_more_is_gone() {
        let (mut lines, _client, heard) = lines(ProtocolVersion::V_2025_11_25).await;
        drop(heard);
        assert!(lines.send(response(1, ServerResult::EmptyResult(EmptyResult {}))).await.is_err());
        assert!(lines.receive().await.is_none(), "although its input is open");
    }
}
