//! One session: its sandbox, its queue of executions, and the thread that works the queue off while there is something in it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sandbox::{FromInit, Lifeline, Limits, Remote, Stream, ToInit, Workspace};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::history::History;
use super::share::{Kind, Share, Shares};
use super::{Caller, ExecuteRequest, ExecutionEntry, Finished, SessionInfo, Started, TIMEOUT_SECONDS, Timings, no_session};
use crate::artifact::Before;
use crate::error::{Error, ErrorKind};
use crate::execution::{Execution, Language, Outcome, Output, Value};
use crate::pool::Taken;
use crate::record::{Concluded, Intent, Note, Recorder};
use crate::run::{self, Control, MAX_CODE_BYTES, Observer, RunRequest, Turn, UPLOAD_PATIENCE};

/// Executions of one session that may wait.
const MAX_QUEUED: usize = 32;
/// A worker that has done nothing for so long is woken while its next execution is put on record.
const RESTED: Duration = Duration::from_millis(2);
/// Where files fill a session's memory to this part after the kernel killed for it, the next execution would find no room either.
const FULL: f64 = 0.8;

/// What makes a session one caller's: nobody reaches one with another key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) principal: Arc<str>,
    pub(super) pool: String,
    pub(super) id: String,
}

/// What sessions of one service share.
pub(super) struct Common {
    pub(super) recorder: Arc<dyn Recorder>,
    pub(super) shares: Arc<Shares>,
    /// Bytes that histories keep.
    pub(super) kept: Arc<AtomicU64>,
    /// Folder for the whole of long streams.
    pub(super) spool: PathBuf,
}

/// What a session is made from.
pub(super) struct Made {
    pub(super) key: Key,
    pub(super) environment: String,
    pub(super) limits: Limits,
    pub(super) process_spawning: bool,
    pub(super) idle_timeout: Duration,
    pub(super) max_lifetime: Duration,
    pub(super) taken: Taken,
    pub(super) place: OwnedSemaphorePermit,
    pub(super) share: Share,
}

/// A session.
pub struct Session {
    pub(super) key: Key,
    guid: String,
    environment: String,
    limits: Limits,
    process_spawning: bool,
    idle_timeout: Duration,
    max_lifetime: Duration,
    created_at: SystemTime,
    created: Instant,
    accessed: Mutex<(SystemTime, Instant)>,
    pub(super) workspace: Arc<Workspace>,
    pub(super) remote: Remote,
    lifeline: Arc<dyn Lifeline>,
    isolation: &'static str,
    common: Arc<Common>,
    state: Mutex<State>,
    /// Uploads that wait for init's word.
    pub(super) uploads: Mutex<HashMap<u64, oneshot::Sender<Result<bool, i32>>>>,
    pub(super) next_upload: AtomicU64,
    /// Files were changed by the host: they are no news of the next execution.
    pub(super) changed: AtomicBool,
    /// Transfers that go on.
    pub(super) transfers: AtomicUsize,
    destroyed: watch::Sender<bool>,
}

/// The sandbox, in the hands of whoever works the queue off.
struct Live {
    taken: Taken,
    number: u64,
    before: Option<Before>,
    cpu_seconds: u64,
    /// The worker died while nothing ran.
    lost: bool,
    /// When the last execution ended.
    ended: Option<Instant>,
    _place: OwnedSemaphorePermit,
    _share: Share,
}

struct State {
    /// `None`: a thread has it, or it is gone.
    live: Option<Live>,
    queue: VecDeque<Job>,
    history: History,
    executions: u64,
    /// Why it has ended.
    over: Option<String>,
}

/// What waits for the sandbox.
enum Job {
    Execute(Box<Execute>),
    /// Hear init until an upload is over.
    Hear(u64),
}

struct Execute {
    id: String,
    request: ExecuteRequest,
    timeout: u64,
    control: Arc<Control>,
    observer: Option<Box<dyn Observer + Send>>,
    clock: Instant,
    _share: Share,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("key", &self.key).field("guid", &self.guid).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(made: Made, common: Arc<Common>) -> Result<Arc<Self>, Error> {
        let Made { key, environment, limits, process_spawning, idle_timeout, max_lifetime, mut taken, place, share } = made;
        let isolation = taken.isolation();
        let sandbox = taken.sandbox();
        let (workspace, remote, lifeline) = (Arc::clone(sandbox.workspace()), sandbox.remote(), sandbox.lifeline());
        let live =
            Live { taken, number: 0, before: Some(Before::default()), cpu_seconds: limits.cpu_seconds, lost: false, ended: None, _place: place, _share: share };
        let history = History::new(Arc::clone(&common.kept));
        let now = (SystemTime::now(), Instant::now());
        Ok(Arc::new(Self {
            key,
            guid: run::new_id("ses")?,
            environment,
            limits,
            process_spawning,
            idle_timeout,
            max_lifetime,
            created_at: now.0,
            created: now.1,
            accessed: Mutex::new(now),
            workspace,
            remote,
            lifeline,
            isolation,
            common,
            state: Mutex::new(State { live: Some(live), queue: VecDeque::new(), history, executions: 0, over: None }),
            uploads: Mutex::default(),
            next_upload: AtomicU64::new(1),
            changed: AtomicBool::new(false),
            transfers: AtomicUsize::new(0),
            destroyed: watch::Sender::new(false),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its caller may know.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        let (last_accessed_at, accessed) = *self.accessed.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.lock();
        let busy = state.live.is_none() && state.over.is_none();
        let idle = self.idle_timeout.saturating_sub(if busy { Duration::ZERO } else { accessed.elapsed() });
        let left = idle.min(self.max_lifetime.saturating_sub(self.created.elapsed()));
        SessionInfo {
            id: self.key.id.clone(),
            pool: self.key.pool.clone(),
            guid: self.guid.clone(),
            created_at: self.created_at,
            last_accessed_at,
            expires_at: SystemTime::now() + left,
            executions: state.executions,
            busy,
            environment: self.environment.clone(),
            limits: self.limits,
        }
    }

    /// Notes a call: the idle time begins anew.
    pub(super) fn touch(&self) {
        *self.accessed.lock().unwrap_or_else(PoisonError::into_inner) = (SystemTime::now(), Instant::now());
    }

    /// Whether it has ended; then nothing is left to be had from it.
    #[must_use]
    pub(super) fn is_over(&self) -> bool {
        self.lock().over.is_some()
    }

    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.live.is_none() && state.over.is_none()
    }

    /// Why it should end now, if it should.
    pub(super) fn expiry(&self) -> Option<&'static str> {
        if self.created.elapsed() >= self.max_lifetime {
            return Some("it reached the age at which sessions of its pool end");
        }
        let (_, accessed) = *self.accessed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_busy() || self.transfers.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if self.lifeline.has_ended() {
            return Some("its sandbox ended by itself");
        }
        (accessed.elapsed() >= self.idle_timeout).then_some("nobody called it for the time after which sessions of its pool end")
    }

    pub(super) fn not_over(&self) -> Result<(), Error> {
        if self.is_over() { Err(no_session(&self.key.id)) } else { Ok(()) }
    }

    /// Starts an execution, or queues it behind those of this session that were asked for before. `observer` sees outputs as they come, on
    /// a thread that may block.
    ///
    /// # Errors
    /// `invalid_request` for code that is empty, too long or not UTF-8, or a time out of range; `limit` where too many wait.
    pub fn start(self: &Arc<Self>, caller: &Caller, request: ExecuteRequest, observer: Option<Box<dyn Observer + Send>>) -> Result<Started, Error> {
        check(&request)?;
        let timeout = request.timeout.map_or(self.limits.wall_seconds, |timeout| timeout.as_secs());
        if !TIMEOUT_SECONDS.contains(&timeout) {
            let (first, last) = (TIMEOUT_SECONDS.start(), TIMEOUT_SECONDS.end());
            let message = format!("a time-out of {timeout} seconds is out of range");
            return Err(Error::new(ErrorKind::InvalidRequest, message).hint(format!("ask for {first} to {last} seconds")));
        }
        let share = self.common.shares.take(caller, Kind::Execution)?;
        let id = run::new_id("exe")?;
        let control = Arc::new(Control::default());
        let job = Execute { id: id.clone(), request, timeout, control: Arc::clone(&control), observer, clock: Instant::now(), _share: share };
        self.touch();
        let mut state = self.lock();
        if state.over.is_some() {
            return Err(no_session(&self.key.id));
        }
        if state.queue.len() >= MAX_QUEUED {
            let error = Error::new(ErrorKind::Limit, format!("{MAX_QUEUED} executions of this session wait already")).hint("wait until some of them are over");
            return Err(Error { retry_after: Some(Duration::from_secs(1)), ..error });
        }
        state.executions += 1;
        let progress = state.history.add(id.clone(), control);
        self.enqueue(state, Job::Execute(Box::new(job)));
        Ok(Started { id, progress })
    }

    /// Puts a job into the queue, and a thread to work where there is none.
    fn enqueue(self: &Arc<Self>, mut state: MutexGuard<'_, State>, job: Job) {
        state.queue.push_back(job);
        if let Some(live) = state.live.take() {
            drop(state);
            let session = Arc::clone(self);
            tokio::task::spawn_blocking(move || Working { session: &session, live: Some(live) }.work());
        }
    }

    /// Has init heard until it has told how this upload ended.
    pub(super) fn hear(self: &Arc<Self>, upload: u64) {
        let state = self.lock();
        if state.over.is_none() {
            self.enqueue(state, Job::Hear(upload));
        }
    }

    /// Interrupts an execution; a second time kills what runs. An execution that is over is left as it is, and that is no error.
    ///
    /// # Errors
    /// `not_found`.
    pub fn interrupt(&self, execution: &str) -> Result<(), Error> {
        self.touch();
        let control = self.lock().history.control(execution).ok_or_else(|| no_execution(execution))?;
        control.ask();
        // Init may not read for a while, since it shares the processor with the code: who serves requests must not wait for that.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || control.pass_on())),
            Err(_) => {
                control.pass_on();
            }
        }
        Ok(())
    }

    /// The latest executions, oldest first.
    #[must_use]
    pub fn executions(&self) -> Vec<ExecutionEntry> {
        self.lock().history.list()
    }

    /// One of the latest executions.
    ///
    /// # Errors
    /// `not_found`: never was, or too long ago.
    pub fn execution(&self, id: &str) -> Result<ExecutionEntry, Error> {
        self.lock().history.get(id).ok_or_else(|| no_execution(id))
    }

    /// All that an execution wrote to a stream, however long. Blocking for a moment.
    ///
    /// # Errors
    /// `not_found`: of an execution that is unknown, not over, or too long ago.
    pub fn written(&self, execution: &str, stream: Stream) -> Result<File, Error> {
        use std::io::{Seek, Write};
        use std::os::fd::AsRawFd;
        let state = self.lock();
        let entry = state.history.get(execution).ok_or_else(|| no_execution(execution))?;
        let super::Progressed::Finished(finished) = entry.progress else {
            return Err(Error::new(ErrorKind::NotFound, format!("the execution `{execution}` is not over")).hint("ask again when it is"));
        };
        let failed = |error: std::io::Error| Error { detail: Some(error.to_string()), ..Error::new(ErrorKind::Internal, "what was written cannot be read") };
        if let Some(file) = state.history.whole(execution, stream) {
            // Opened anew, so that readers do not share their place in it.
            return File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed);
        }
        drop(state);
        let text = if stream == Stream::Stdout { &finished.execution.stdout } else { &finished.execution.stderr };
        let mut file = tempfile::tempfile_in(&self.common.spool).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(failed)?;
        Ok(file)
    }

    /// Ends it: what runs is killed, what waits fails. False where it had ended before.
    pub(super) fn end(&self, reason: &str) -> bool {
        let (live, queue) = {
            let mut state = self.lock();
            if state.over.is_some() {
                return false;
            }
            state.over = Some(reason.to_owned());
            (state.live.take(), std::mem::take(&mut state.queue))
        };
        self.lifeline.kill();
        self.fail(queue);
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if live.is_some() {
            drop(live);
            self.destroyed.send_replace(true);
        }
        true
    }

    /// Puts a fact about it on record. May wait for the record.
    pub(super) fn note(&self, kind: &'static str, detail: &str) {
        self.note_time(kind, detail, Duration::ZERO);
    }

    /// The same of something that took a time.
    pub(super) fn note_time(&self, kind: &'static str, detail: &str, took: Duration) {
        self.common.recorder.note(&Note {
            kind,
            principal: self.key.principal.to_string(),
            pool: self.key.pool.clone(),
            session: self.key.id.clone(),
            session_guid: self.guid.clone(),
            detail: detail.to_owned(),
            took,
            at: SystemTime::now(),
        });
    }

    /// Waits until its sandbox is no longer in anybody's hands.
    pub(super) async fn destroyed(&self) {
        // The sender is our own, so this ends with `true`.
        let _ = self.destroyed.subscribe().wait_for(|destroyed| *destroyed).await;
    }

    fn fail(&self, queue: VecDeque<Job>) {
        for job in queue {
            if let Job::Execute(execute) = job {
                drop(execute.observer);
                self.lock().history.failed(&execute.id, no_session(&self.key.id));
            }
        }
    }

    /// Hands init's word on an upload to who waits for it.
    fn uploaded(&self, upload: u64, result: Result<bool, i32>) {
        if let Some(waiting) = self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&upload) {
            let _ = waiting.send(result);
        }
    }
}

fn no_execution(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("this session knows no execution `{id}`")).hint("only the latest ones are kept")
}

fn check(request: &ExecuteRequest) -> Result<(), Error> {
    let code = &request.code;
    if code.len() > MAX_CODE_BYTES {
        return Err(
            Error::new(ErrorKind::TooLarge, format!("the code is over the limit of {MAX_CODE_BYTES} bytes")).hint("put data into files and upload them")
        );
    }
    let refused = |message: String| Err(Error::new(ErrorKind::InvalidRequest, message));
    if code.iter().all(u8::is_ascii_whitespace) {
        return refused("the code is empty".to_owned());
    }
    if let (Err(error), Language::Python) = (std::str::from_utf8(code), request.language) {
        return refused(format!("the code is not UTF-8: byte {} is not valid", error.valid_up_to()));
    }
    if code.contains(&0) {
        return refused("the code contains a NUL byte".to_owned());
    }
    Ok(())
}

/// A thread at work on a session's queue.
struct Working<'a> {
    session: &'a Session,
    live: Option<Live>,
}

impl Working<'_> {
    /// Works the queue off, or what is left of the session where it has ended.
    fn work(mut self) {
        loop {
            let mut state = self.session.lock();
            if state.over.is_some() {
                return;
            }
            let Some(job) = state.queue.pop_front() else {
                state.live = self.live.take();
                return;
            };
            drop(state);
            let Some(live) = &mut self.live else { return };
            let gone = match job {
                Job::Execute(execute) => self.session.perform(live, *execute),
                Job::Hear(upload) => self.session.listen(live, upload),
            };
            self.session.touch();
            if gone && self.session.end("its sandbox ended") {
                self.session.note("session_ended", "its sandbox ended");
            }
        }
    }
}

impl Drop for Working<'_> {
    /// Also on the way of a panic: a session that nobody works on any more ends.
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            self.session.end("our own failure");
            drop(live);
            self.session.destroyed.send_replace(true);
        }
    }
}

impl Session {
    /// Runs one execution; true where the sandbox is gone after it.
    fn perform(&self, live: &mut Live, job: Execute) -> bool {
        let Execute { id, request, timeout, control, observer, clock, .. } = job;
        let queued = clock.elapsed();
        if control.asked() > 0 {
            drop(observer);
            let execution = run::never_began(self.isolation, (&id, &self.key.id), self.limits);
            let timings = Timings { queued, total: clock.elapsed(), ..Timings::default() };
            self.lock().history.finished(&id, Finished { execution, timings }, [None, None]);
            return false;
        }
        self.lock().history.began(&id);
        // Time on the processor goes along with a longer time-out, but not where it was meant to be the shorter of the two.
        let cpu_seconds = if self.limits.cpu_seconds < self.limits.wall_seconds { self.limits.cpu_seconds } else { self.limits.cpu_seconds.max(timeout) };
        let limits = Limits { wall_seconds: timeout, cpu_seconds, ..self.limits };
        let recording = Instant::now();
        if request.language == Language::Python && live.ended.is_none_or(|ended| ended.elapsed() >= RESTED) {
            // While the disk is at work, so that the code finds everybody awake. Nothing of the code is in it.
            let _ = self.remote.send(&ToInit::Wake);
        }
        if let Err(error) = self.common.recorder.intend(&self.intent(&id, &request, &limits)) {
            let failure =
                Error::new(ErrorKind::Unavailable, "the execution cannot be put on record, so it does not run").hint("tell the operator of this server");
            drop(observer);
            self.lock().history.failed(&id, Error { detail: Some(error.to_string()), ..failure });
            return false;
        }
        let recorded = recording.elapsed();
        live.number += 1;
        if cpu_seconds != live.cpu_seconds && self.remote.send(&ToInit::LimitCpu { seconds: cpu_seconds }).is_ok() {
            live.cpu_seconds = cpu_seconds;
        }
        let before = if self.changed.swap(false, Ordering::AcqRel) { None } else { live.before.take() };
        let turn = Turn { number: live.number, before, ids: Some((&id, &self.key.id)), whole: Some(&self.common.spool), ..Turn::default() };
        let request = RunRequest {
            language: request.language,
            code: request.code,
            filename: request.filename,
            inputs: request.inputs,
            fresh: request.fresh,
            files: Vec::new(),
            limits,
            environment: self.environment.clone(),
            process_spawning: self.process_spawning,
            out: None,
        };
        let mut watching = Watching { session: self, observer };
        let running = Instant::now();
        let ran = live.taken.run_turn(turn, &request, &mut watching, &control);
        let took = running.elapsed();
        live.ended = Some(Instant::now());
        drop(watching);
        match ran {
            Ok(mut ran) => {
                ran.execution.state_lost |= std::mem::take(&mut live.lost);
                live.before = Some(ran.before);
                let timings = Timings { queued, recorded, ran: took, total: clock.elapsed() };
                let lost = ran.execution.state_lost && !ran.worker_ready;
                let gone = self.conclude(live, &id, (ran.execution, timings), (ran.gone, ran.whole));
                // After the answer: the next execution finds an interpreter with its libraries instead of starting one. Where that fails, init starts
                // one. Not where init has started one already: it would not take another, and there would be nothing to wait for.
                if lost && !gone {
                    let _ = live.taken.replace_worker();
                }
                gone
            }
            Err(error) => {
                let concluded = self.concluded(&id, queued, None, Some(&error));
                self.lock().history.failed(&id, error);
                self.common.recorder.conclude(&concluded);
                // Nobody knows what state it is in.
                true
            }
        }
    }

    /// Tells how an execution ended; true where the sandbox is gone, or of no use any more.
    fn conclude(&self, live: &mut Live, id: &str, (mut execution, timings): (Execution, Timings), (gone, whole): (bool, [Option<File>; 2])) -> bool {
        let reason = self.lock().over.clone();
        if let (true, Some(reason), Some(error)) = (gone, reason, &mut execution.error) {
            error.message = format!("the session ended: {reason}");
        }
        let full = !gone && execution.outcome == Outcome::MemoryLimit && self.is_full(live);
        if let (true, Some(error)) = (full, &mut execution.error) {
            error.message = "the memory limit was reached, and files fill the session's memory, so the session has ended".to_owned();
            execution.state_lost = true;
        }
        execution.state_lost |= gone;
        let concluded = self.concluded(id, timings.queued, Some(&execution), None);
        self.lock().history.finished(id, Finished { execution, timings }, whole);
        // Whoever waits for the answer comes first: this one is not waited for anyway.
        self.common.recorder.conclude(&concluded);
        gone || full
    }

    /// Whether files take most of the memory that the sandbox may have.
    fn is_full(&self, live: &mut Live) -> bool {
        let all = self.limits.memory_bytes.saturating_add(self.limits.files_bytes());
        #[expect(clippy::cast_precision_loss, reason = "a part, to the percent")]
        live.taken.sandbox().memory_bytes().is_some_and(|used| used as f64 > all as f64 * FULL)
    }

    fn intent(&self, id: &str, request: &ExecuteRequest, limits: &Limits) -> Intent {
        let digest = Sha256::digest(&request.code);
        Intent {
            execution: id.to_owned(),
            principal: self.key.principal.to_string(),
            pool: self.key.pool.clone(),
            session: self.key.id.clone(),
            session_guid: self.guid.clone(),
            surface: request.surface,
            language: request.language,
            code_sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            code_bytes: u64::try_from(request.code.len()).unwrap_or(u64::MAX),
            limits: serde_json::to_string(limits).unwrap_or_default(),
            isolation: self.isolation,
            environment: self.environment.clone(),
        }
    }

    fn concluded(&self, id: &str, queued: Duration, execution: Option<&Execution>, failure: Option<&Error>) -> Concluded {
        Concluded {
            execution: id.to_owned(),
            principal: self.key.principal.to_string(),
            outcome: execution.map(|execution| execution.outcome),
            failure: failure.map(|error| error.message.clone()),
            limits_hit: execution.map(|execution| execution.limits_hit.clone()).unwrap_or_default(),
            execution_time_ms: execution.map_or(0, |execution| execution.execution_time_ms),
            queued,
        }
    }

    /// Hears init until an upload is over; true where the sandbox is gone.
    fn listen(&self, live: &mut Live, upload: u64) -> bool {
        let deadline = Instant::now() + UPLOAD_PATIENCE;
        while self.uploads.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&upload) {
            match live.taken.sandbox().receive(Some(deadline)) {
                Ok(Some(FromInit::FileWritten { upload, result })) => self.uploaded(upload, result),
                Ok(Some(FromInit::WorkerLost(_))) => live.lost = true,
                Ok(Some(_)) => {}
                // Init does not answer: it is of no use any more.
                Ok(None) | Err(_) => return true,
            }
        }
        false
    }
}

/// Passes on what an execution shows, and keeps what is ours.
struct Watching<'a> {
    session: &'a Session,
    observer: Option<Box<dyn Observer + Send>>,
}

impl Observer for Watching<'_> {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(observer) = &mut self.observer {
            observer.wrote(stream, bytes);
        }
    }

    fn showed(&mut self, output: &Output) {
        if let Some(observer) = &mut self.observer {
            observer.showed(output);
        }
    }

    fn result(&mut self, value: &Value) {
        if let Some(observer) = &mut self.observer {
            observer.result(value);
        }
    }

    fn uploaded(&mut self, upload: u64, result: Result<bool, i32>) {
        self.session.uploaded(upload, result);
    }
}
