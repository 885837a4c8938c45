//! Connections of the revisions that have them: each belongs to who began it, and its streams can be taken up again where they broke off.
//!
//! What a server says on a stream is numbered and kept for a while, within bounds: of what was read only as much as a reader that comes back may have
//! missed, of what nobody reads no more than fits. Messages about a request go to that request's stream, all others to the one that the client may
//! have opened for them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::Stream;
use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, GetExtensions, GetMeta, JsonRpcMessage, ProgressToken, ProtocolVersion, RequestId, ServerJsonRpcMessage,
    ServerNotification, ServerResult,
};
use rmcp::transport::Transport;
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager};
use tokio::sync::{Notify, mpsc, oneshot};

/// Connections of one principal, and of all: over that, the one that was silent for longest is forgotten.
const MAX_OF_ONE: usize = 256;
const MAX_CONNECTIONS: usize = 8192;
/// Messages of a client that wait.
const INBOX: usize = 16;
/// Messages that a reader has not taken yet, in bytes: then the writer waits. One message may be larger.
const AHEAD_BYTES: usize = 1024 * 1024;
/// Messages that one stream keeps, and that all keep together, in bytes.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
const ALL_KEPT_BYTES: usize = 256 * 1024 * 1024;
/// How long a stream that is complete can be taken up again.
const KEPT: Duration = Duration::from_secs(60);
/// A client that has heard nothing for so long is told under which number it may come back, and when.
const PRIME: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(2);
/// How often it is looked what is over.
const LOOK: Duration = Duration::from_secs(5);
/// The stream for messages that are about no request.
const STANDING: u64 = 0;

/// A message is about this request.
#[derive(Debug, Clone)]
pub(super) struct About(pub(super) RequestId);

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    all: Mutex<HashMap<SessionId, Arc<Connection>>>,
    kept: Arc<AtomicUsize>,
    /// A connection that is silent for so long is forgotten.
    idle: Duration,
    looking: OnceLock<()>,
    this: Weak<Self>,
}

/// Who began a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) principal: Arc<str>,
    pub(super) pool: String,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// It has ended, or never was.
    #[error("there is no such connection")]
    Unknown,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// What was missed is not kept any more.
    #[error("the stream cannot be taken up again")]
    Missed,
}

#[derive(Debug)]
struct Connection {
    state: Mutex<State>,
    /// Something was said, taken, or is over.
    news: Notify,
    kept: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct State {
    owner: Option<Owner>,
    used: Instant,
    inbox: Option<mpsc::Sender<ClientJsonRpcMessage>>,
    /// Who waits for the answer to `initialize`.
    begun: Option<oneshot::Sender<ServerJsonRpcMessage>>,
    revision: Option<ProtocolVersion>,
    streams: HashMap<u64, Line>,
    requests: HashMap<RequestId, u64>,
    progress: HashMap<ProgressToken, u64>,
    next: u64,
}

/// One stream of messages to the client.
#[derive(Debug)]
struct Line {
    said: VecDeque<Said>,
    /// Bytes of all of it, and of what is not taken yet.
    bytes: usize,
    ahead: usize,
    /// The number of the first message that is kept, of the next that is taken, and of the next that is said. The first of all is 1.
    first: u64,
    taken: u64,
    next: u64,
    /// Who reads: a later reader takes the place of an earlier one. 0: nobody.
    reader: u64,
    readers: u64,
    /// Since when it is complete.
    over: Option<Instant>,
}

#[derive(Debug)]
struct Said {
    message: Arc<ServerJsonRpcMessage>,
    bytes: usize,
}

impl Connections {
    pub(super) fn new(idle: Duration) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { all: Mutex::default(), kept: Arc::default(), idle, looking: OnceLock::new(), this: Weak::clone(this) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Connection>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &SessionId) -> Result<Arc<Connection>, ConnectionError> {
        let connection = self.lock().get(id).cloned().ok_or(ConnectionError::Unknown)?;
        connection.lock().used = Instant::now();
        Ok(connection)
    }

    /// The revision that a connection of this owner has settled on; `None` where it is not this owner's, or is not there.
    pub(super) fn revision(&self, id: &str, owner: &Owner) -> Option<ProtocolVersion> {
        let connection = self.lock().get(id).cloned()?;
        let state = connection.lock();
        state.revision.clone().filter(|_| state.owner.as_ref() == Some(owner))
    }

    /// Says who began a connection, and forgets those that are too many.
    pub(super) fn belongs(&self, id: &str, owner: Owner) {
        let mut all = self.lock();
        if let Some(connection) = all.get(id) {
            connection.lock().owner = Some(owner.clone());
        }
        let last_use = |connection: &Arc<Connection>, owner: Option<&Owner>| {
            let state = connection.lock();
            owner.is_none_or(|owner| state.owner.as_ref().is_some_and(|of| of.principal == owner.principal)).then_some(state.used)
        };
        for (most, owner) in [(MAX_OF_ONE, Some(&owner)), (MAX_CONNECTIONS, None)] {
            let mut used: Vec<(Instant, SessionId)> = all.iter().filter_map(|(id, connection)| Some((last_use(connection, owner)?, Arc::clone(id)))).collect();
            let over = used.len().saturating_sub(most);
            used.sort();
            for (_, id) in used.into_iter().take(over) {
                if let Some(connection) = all.remove(&id) {
                    connection.end();
                }
            }
        }
    }

    /// Forgets what nobody needs any more.
    fn look(&self) {
        let now = Instant::now();
        self.lock().retain(|_, connection| {
            let mut state = connection.lock();
            let is_complete = |line: &Line| line.over.is_some_and(|over| now.saturating_duration_since(over) >= KEPT);
            let over: Vec<u64> = state.streams.iter().filter(|(_, line)| is_complete(line)).map(|(number, _)| *number).collect();
            for number in over {
                state.streams.remove(&number).iter().for_each(|line| connection.forget(line.bytes));
            }
            let is_used = !state.requests.is_empty() || state.streams.values().any(|line| line.reader > 0);
            // Who began it is known as soon as it has begun.
            let most = if state.owner.is_some() { self.idle } else { KEPT };
            let is_idle = !is_used && now.saturating_duration_since(state.used) >= most;
            drop(state);
            if is_idle {
                connection.end();
            }
            !is_idle
        });
    }

    /// Looks again and again, as long as there is something to look at.
    fn keep_looking(&self) {
        self.looking.get_or_init(|| {
            let this = Weak::clone(&self.this);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOOK).await;
                    let Some(this) = this.upgrade() else { return };
                    this.look();
                }
            });
        });
    }
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, line: &mut Line) {
        let most = if self.kept.load(Ordering::Relaxed) > ALL_KEPT_BYTES { 0 } else { KEPT_BYTES };
        self.forget(line.shrink(most));
    }

    /// Ends it: nothing more is taken or said.
    fn end(&self) {
        let mut state = self.lock();
        (state.inbox, state.begun) = (None, None);
        for line in state.streams.values_mut() {
            line.over.get_or_insert_with(Instant::now);
            line.readers = line.readers.saturating_add(1);
            line.reader = 0;
        }
        drop(state);
        self.news.notify_waiters();
    }

    async fn take(&self, message: ClientJsonRpcMessage) -> Result<(), ConnectionError> {
        let inbox = self.lock().inbox.clone().ok_or(ConnectionError::Unknown)?;
        inbox.send(message).await.map_err(|_| ConnectionError::Unknown)
    }

    /// Says something to the client; waits where its reader is behind.
    async fn say(&self, message: ServerJsonRpcMessage) {
        let (number, is_last) = {
            let mut state = self.lock();
            if state.begun.is_some() {
                return state.begin(message);
            }
            let number = state.line_of(&message);
            let is_last = matches!(message, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_)) && number != STANDING;
            (number, is_last)
        };
        let bytes = serde_json::to_vec(&message).map_or(0, |text| text.len());
        let mut said = Some(Said { message: Arc::new(message), bytes });
        loop {
            let news = self.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            {
                let mut state = self.lock();
                let Some(line) = state.streams.get_mut(&number) else { return };
                let has_room = line.reader == 0 || line.ahead == 0 || line.ahead.saturating_add(bytes) <= AHEAD_BYTES;
                if line.over.is_some() {
                    return;
                }
                if let Some(said) = said.take_if(|_| has_room) {
                    // What nobody reads is kept where there is room for it.
                    if line.reader > 0 || self.kept.load(Ordering::Relaxed).saturating_add(bytes) <= ALL_KEPT_BYTES {
                        self.kept.fetch_add(bytes, Ordering::Relaxed);
                        line.push(said);
                    } else {
                        self.forget(line.pass());
                    }
                    if is_last {
                        line.over = Some(Instant::now());
                    }
                    self.shrink(line);
                    break;
                }
            }
            news.await;
        }
        self.news.notify_waiters();
    }

    /// What a reader gets of a stream from this message on, until it is complete or another reader has come.
    fn read(self: Arc<Self>, number: u64, from: u64, prime: Option<Duration>) -> impl Stream<Item = ServerSseMessage> + Send + Sync + 'static {
        let reader = {
            let mut state = self.lock();
            let line = state.streams.entry(number).or_default();
            line.readers = line.readers.saturating_add(1);
            line.reader = line.readers;
            line.seek(from);
            line.reader
        };
        self.news.notify_waiters();
        let reading = Reading { connection: self, number, reader, prime };
        futures_util::stream::unfold(reading, |mut reading| async move { reading.next().await.map(|event| (event, reading)) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let bytes = self.lock().streams.values().map(|line| line.bytes).sum();
        self.forget(bytes);
    }
}

/// A reader of a stream.
struct Reading {
    connection: Arc<Connection>,
    number: u64,
    reader: u64,
    /// After so long without a message the client hears a number to come back with; once.
    prime: Option<Duration>,
}

impl Reading {
    async fn next(&mut self) -> Option<ServerSseMessage> {
        let deadline = self.prime.map(|prime| tokio::time::Instant::now() + prime);
        loop {
            let news = self.connection.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            {
                let mut state = self.connection.lock();
                state.used = Instant::now();
                let line = state.streams.get_mut(&self.number).filter(|line| line.reader == self.reader)?;
                if let Some((number, message)) = line.take() {
                    self.connection.shrink(line);
                    drop(state);
                    self.prime = None;
                    self.connection.news.notify_waiters();
                    return Some(event(number, self.number, Some(message)));
                }
                if line.over.is_some() {
                    return None;
                }
            }
            match deadline {
                None => news.await,
                Some(deadline) => {
                    if tokio::time::timeout_at(deadline, news).await.is_err() {
                        self.prime = None;
                        return Some(event(0, self.number, None));
                    }
                }
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        if let Some(line) = state.streams.get_mut(&self.number).filter(|line| line.reader == self.reader) {
            line.reader = 0;
        }
        drop(state);
        self.connection.news.notify_waiters();
    }
}

/// A message, or without one the number under which its stream can be taken up again.
fn event(number: u64, stream: u64, message: Option<Arc<ServerJsonRpcMessage>>) -> ServerSseMessage {
    let mut event = ServerSseMessage::default();
    event.event_id = Some(format!("{number}/{stream}"));
    event.retry = message.is_none().then_some(RETRY);
    event.message = message;
    event
}

impl State {
    /// The answer to `initialize`, for who waits for it.
    fn begin(&mut self, message: ServerJsonRpcMessage) {
        if let JsonRpcMessage::Response(response) = &message
            && let ServerResult::InitializeResult(result) = &response.result
        {
            self.revision = Some(result.protocol_version.clone());
        }
        if let Some(begun) = self.begun.take() {
            // Who waited may be gone.
            let _ = begun.send(message);
        }
    }

    /// Where a message is said.
    fn line_of(&mut self, message: &ServerJsonRpcMessage) -> u64 {
        let number = match message {
            JsonRpcMessage::Response(response) => self.answered(Some(&response.id)),
            JsonRpcMessage::Error(error) => self.answered(error.id.as_ref()),
            JsonRpcMessage::Notification(notification) => match &notification.notification {
                ServerNotification::ProgressNotification(progress) => self.progress.get(&progress.params.progress_token).copied(),
                other => other.extensions().get::<About>().and_then(|about| self.requests.get(&about.0).copied()),
            },
            JsonRpcMessage::Request(_) => None,
        };
        let number = number.unwrap_or(STANDING);
        self.streams.entry(number).or_default();
        number
    }

    /// A stream for a request.
    fn ask(&mut self, message: &ClientJsonRpcMessage) -> u64 {
        self.next = self.next.saturating_add(1);
        let number = self.next;
        self.streams.insert(number, Line::default());
        if let JsonRpcMessage::Request(request) = message {
            self.requests.insert(request.id.clone(), number);
            if let Some(token) = request.request.get_meta().get_progress_token() {
                self.progress.insert(token, number);
            }
        }
        number
    }

    /// A request that there is nothing more to say about, and its stream.
    fn answered(&mut self, id: Option<&RequestId>) -> Option<u64> {
        let number = self.requests.remove(id?)?;
        self.progress.retain(|_, stream| *stream != number);
        Some(number)
    }

    /// A request that its caller has given up gets no answer.
    fn give_up(&mut self, message: &ClientJsonRpcMessage) {
        let JsonRpcMessage::Notification(notification) = message else { return };
        let ClientNotification::CancelledNotification(cancelled) = &notification.notification else { return };
        let number = self.answered(cancelled.params.request_id.as_ref());
        if let Some(line) = number.and_then(|number| self.streams.get_mut(&number)) {
            line.over = Some(Instant::now());
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self { said: VecDeque::new(), bytes: 0, ahead: 0, first: 1, taken: 1, next: 1, reader: 0, readers: 0, over: None }
    }
}

impl Line {
    fn push(&mut self, said: Said) {
        self.bytes = self.bytes.saturating_add(said.bytes);
        self.ahead = self.ahead.saturating_add(said.bytes);
        self.said.push_back(said);
        self.next = self.next.saturating_add(1);
    }

    /// A message that is not kept: nobody who comes back gets what was before it.
    fn pass(&mut self) -> usize {
        let forgotten = std::mem::take(&mut self.bytes);
        self.said.clear();
        self.ahead = 0;
        self.next = self.next.saturating_add(1);
        (self.first, self.taken) = (self.next, self.next);
        forgotten
    }

    /// Drops what is kept over this many bytes, oldest first: what was taken, and where nobody reads all but the last. Tells how many bytes that is.
    fn shrink(&mut self, most: usize) -> usize {
        let before = self.bytes;
        while self.bytes > most && (self.first < self.taken || (self.reader == 0 && self.said.len() > 1)) {
            let Some(said) = self.said.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(said.bytes);
            self.first = self.first.saturating_add(1);
            if self.taken < self.first {
                self.taken = self.first;
                self.ahead = self.ahead.saturating_sub(said.bytes);
            }
        }
        before.saturating_sub(self.bytes)
    }

    /// The next message is this one.
    fn seek(&mut self, number: u64) {
        self.taken = number.clamp(self.first, self.next);
        let skipped = usize::try_from(self.taken.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.ahead = self.said.iter().skip(skipped).map(|said| said.bytes).sum();
    }

    fn take(&mut self) -> Option<(u64, Arc<ServerJsonRpcMessage>)> {
        let place = usize::try_from(self.taken.checked_sub(self.first)?).ok()?;
        let said = self.said.get(place)?;
        let number = self.taken;
        self.taken = self.taken.saturating_add(1);
        self.ahead = self.ahead.saturating_sub(said.bytes);
        Some((number, Arc::clone(&said.message)))
    }
}

impl SessionManager for Connections {
    type Error = ConnectionError;
    type Transport = Outlet;

    async fn create_session(&self) -> Result<(SessionId, Outlet), ConnectionError> {
        self.keep_looking();
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|_| ConnectionError::NoRandom)?;
        let id: SessionId = random.iter().fold("mcp_".to_owned(), |id, byte| format!("{id}{byte:02x}")).into();
        let (inbox, messages) = mpsc::channel(INBOX);
        let state = State {
            owner: None,
            used: Instant::now(),
            inbox: Some(inbox),
            begun: None,
            revision: None,
            streams: HashMap::new(),
            requests: HashMap::new(),
            progress: HashMap::new(),
            next: STANDING,
        };
        let connection = Arc::new(Connection { state: Mutex::new(state), news: Notify::new(), kept: Arc::clone(&self.kept) });
        self.lock().insert(Arc::clone(&id), Arc::clone(&connection));
        Ok((id, Outlet { connection, messages }))
    }

    async fn initialize_session(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<ServerJsonRpcMessage, ConnectionError> {
        let connection = self.find(id)?;
        let (begun, answer) = oneshot::channel();
        connection.lock().begun = Some(begun);
        connection.take(message).await?;
        answer.await.map_err(|_| ConnectionError::Unknown)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, ConnectionError> {
        Ok(self.find(id).is_ok())
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), ConnectionError> {
        let connection = self.lock().remove(id);
        if let Some(connection) = connection {
            connection.end();
        }
        Ok(())
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, ConnectionError> {
        let connection = self.find(id)?;
        // Older clients know no message without content; and other requests than calls are answered at once.
        let is_call = matches!(&message, JsonRpcMessage::Request(request) if matches!(request.request, rmcp::model::ClientRequest::CallToolRequest(_)));
        let (number, is_told) = {
            let mut state = connection.lock();
            (state.ask(&message), is_call && state.revision.as_ref().is_some_and(|revision| *revision >= ProtocolVersion::V_2025_11_25))
        };
        let stream = Arc::clone(&connection).read(number, 1, is_told.then_some(PRIME));
        connection.take(message).await?;
        Ok(stream)
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), ConnectionError> {
        let connection = self.find(id)?;
        connection.lock().give_up(&message);
        connection.news.notify_waiters();
        connection.take(message).await
    }

    async fn create_standalone_stream(&self, id: &SessionId) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, ConnectionError> {
        let connection = self.find(id)?;
        let (from, is_told) = {
            let mut state = connection.lock();
            let is_told = state.revision.as_ref().is_some_and(|revision| *revision >= ProtocolVersion::V_2025_11_25);
            let line = state.streams.entry(STANDING).or_default();
            (line.taken, is_told)
        };
        Ok(connection.read(STANDING, from, is_told.then_some(Duration::ZERO)))
    }

    async fn resume(&self, id: &SessionId, last: String) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, ConnectionError> {
        let connection = self.find(id)?;
        let (number, stream) =
            last.split_once('/').and_then(|(number, stream)| Some((number.parse::<u64>().ok()?, stream.parse().ok()?))).ok_or(ConnectionError::Missed)?;
        let from = number.saturating_add(1);
        let is_kept = connection.lock().streams.get(&stream).is_some_and(|line: &Line| (line.first..=line.next).contains(&from));
        if is_kept { Ok(connection.read(stream, from, None)) } else { Err(ConnectionError::Missed) }
    }
}

/// Where `rmcp` hears the client, and says what it has to say.
#[derive(Debug)]
pub(super) struct Outlet {
    connection: Arc<Connection>,
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
}

impl Transport<RoleServer> for Outlet {
    type Error = ConnectionError;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = Result<(), ConnectionError>> + Send + 'static {
        let connection = Arc::clone(&self.connection);
        async move {
            connection.say(message).await;
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        self.messages.recv().await
    }

    async fn close(&mut self) -> Result<(), ConnectionError> {
        self.connection.end();
        Ok(())
    }
}

#[cfg(test)]
#[expect(deprecated, reason = "messages of the log are deprecated, and spoken")]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use rmcp::model::{EmptyResult, JsonRpcResponse, JsonRpcVersion2_0, LoggingMessageNotification, ProgressNotification, ProgressNotificationParam};
    use serde_json::json;

    fn owner(principal: &str) -> Owner {
        Owner { principal: principal.into(), pool: "default".to_owned() }
    }

    fn ask(id: i64) -> ClientJsonRpcMessage {
        let text = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "x", "_meta": {"progressToken": id}}});
        serde_json::from_value(text).unwrap()
    }

    fn answer(id: i64) -> ServerJsonRpcMessage {
        JsonRpcMessage::Response(JsonRpcResponse { jsonrpc: JsonRpcVersion2_0, id: RequestId::Number(id), result: ServerResult::EmptyResult(EmptyResult {}) })
    }

    fn progress(token: i64, text: String) -> ServerJsonRpcMessage {
        let param = ProgressNotificationParam::new(ProgressToken(RequestId::Number(token)), 1.0).with_message(text);
        JsonRpcMessage::notification(ProgressNotification::new(param).into())
    }

    /// A connection that somebody has begun, with its server's end.
    async fn begun(connections: &Arc<Connections>, principal: &str) -> (SessionId, Outlet) {
        let (id, outlet) = connections.create_session().await.unwrap();
        connections.belongs(&id, owner(principal));
        (id, outlet)
    }

    #[tokio::test]
    async fn messages_go_to_the_stream_that_they_are_about_and_can_be_read_again() {
        let connections = Connections::new(Duration::from_secs(300));
        let (id, mut outlet) = begun(&connections, "a").await;
        let (one, two) = (connections.create_stream(&id, ask(1)).await.unwrap(), connections.create_stream(&id, ask(2)).await.unwrap());
        assert!(outlet.receive().await.is_some() && outlet.receive().await.is_some());
        let mut log = LoggingMessageNotification::new(rmcp::model::LoggingMessageNotificationParam::new(rmcp::model::LoggingLevel::Info, json!("x")));
        log.extensions.insert(About(RequestId::Number(1)));
        outlet.send(JsonRpcMessage::notification(log.into())).await.unwrap();
        outlet.send(progress(2, "two".to_owned())).await.unwrap();
        for id in [2, 1] {
            outlet.send(answer(id)).await.unwrap();
        }
        let ids = |events: Vec<ServerSseMessage>| events.into_iter().filter_map(|event| event.event_id).collect::<Vec<_>>();
        assert_eq!(ids(one.collect().await), ["1/1", "2/1"]);
        assert_eq!(ids(two.collect().await), ["1/2", "2/2"]);
        assert_eq!(ids(connections.resume(&id, "1/2".to_owned()).await.unwrap().collect().await), ["2/2"]);
        assert!(ids(connections.resume(&id, "2/2".to_owned()).await.unwrap().collect().await).is_empty());
        for missed in ["3/2", "1/3", "1", "x/y", ""] {
            assert!(connections.resume(&id, missed.to_owned()).await.is_err(), "{missed}");
        }
    }

    #[tokio::test]
    async fn who_reads_nothing_makes_the_writer_wait_and_nothing_grow() {
        let connections = Connections::new(Duration::from_secs(300));
        let (id, mut outlet) = begun(&connections, "a").await;
        let mut stream = Box::pin(connections.create_stream(&id, ask(1)).await.unwrap());
        let piece = "x".repeat(AHEAD_BYTES / 4);
        let mut written = 0;
        while tokio::time::timeout(Duration::from_millis(50), outlet.send(progress(1, piece.clone()))).await.is_ok() {
            written += 1;
            assert!(written < 10, "nobody reads, and still it is written");
        }
        assert!(written >= 3);
        let waiting = outlet.send(answer(1));
        let reading = async { while stream.next().await.is_some() {} };
        tokio::join!(async { waiting.await.unwrap() }, reading);
    }

    #[tokio::test]
    async fn what_nobody_reads_is_bounded_and_forgotten_in_the_end() {
        let connections = Connections::new(Duration::from_secs(300));
        let (id, mut outlet) = begun(&connections, "a").await;
        drop(connections.create_stream(&id, ask(1)).await.unwrap());
        let piece = "x".repeat(KEPT_BYTES / 4);
        for _ in 0..20 {
            outlet.send(progress(1, piece.clone())).await.unwrap();
        }
        assert!(connections.kept.load(Ordering::Relaxed) <= KEPT_BYTES);
        outlet.send(answer(1)).await.unwrap();
        let last = connections.resume(&id, "20/1".to_owned()).await.unwrap().collect::<Vec<_>>().await;
        assert_eq!(last.len(), 1, "the answer is there for who comes back in time");
        assert!(connections.resume(&id, "1/1".to_owned()).await.is_err(), "and what is gone is not passed over in silence");
        // As if others kept as much as there is room for.
        connections.kept.fetch_add(ALL_KEPT_BYTES, Ordering::Relaxed);
        drop(connections.create_stream(&id, ask(2)).await.unwrap());
        outlet.send(answer(2)).await.unwrap();
        assert!(connections.resume(&id, "0/2".to_owned()).await.is_err());
        connections.close_session(&id).await.unwrap();
        drop(outlet);
        assert_eq!(connections.kept.load(Ordering::Relaxed), ALL_KEPT_BYTES, "nothing is kept of a connection that is gone");
    }

    #[tokio::test]
    async fn too_many_connections_of_one_make_its_own_oldest_go() {
        let connections = Connections::new(Duration::from_secs(300));
        let (other, _outlet) = begun(&connections, "b").await;
        let mut outlets = Vec::new();
        for _ in 0..=MAX_OF_ONE {
            outlets.push(begun(&connections, "a").await);
        }
        let known = |id: &SessionId| connections.lock().contains_key(id);
        assert!(!known(&outlets[0].0) && known(&outlets[1].0) && known(&other));
        assert!(outlets[0].1.receive().await.is_none(), "its server hears that it is over");
    }

    #[tokio::test]
    async fn idle_connections_are_forgotten_and_used_ones_are_not() {
        let connections = Connections::new(Duration::ZERO);
        let (read, mut outlet) = begun(&connections, "a").await;
        let (silent, _silent) = begun(&connections, "a").await;
        let (asked, mut busy) = begun(&connections, "a").await;
        let stream = connections.create_standalone_stream(&read).await.unwrap();
        drop(connections.create_stream(&asked, ask(1)).await.unwrap());
        connections.look();
        let known = |id: &SessionId| connections.lock().contains_key(id);
        assert!(known(&read) && !known(&silent) && known(&asked), "one is read, one is silent, one waits for an answer");
        drop(stream);
        busy.send(answer(1)).await.unwrap();
        connections.look();
        assert!(!known(&read) && !known(&asked));
        assert!(outlet.receive().await.is_none());
    }
}
