//! The host's end of the launcher: starts it, asks it for roots and sandboxes, hears what has ended.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::FrameReader;
use protocol::message::{self, Exit, FromLauncher, LauncherReady, StartTemplate, ToLauncher};
use protocol::template;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::backend::Error;

/// The guest program, built by `build.rs`.
static PROGRAM: &[u8] = include_bytes!(env!("BELLJAR_GUEST_PROGRAM"));

/// A template's imports together may take this many times what one of them may.
const MOST_IMPORTS: u32 = 10;
/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the launcher may take for one request before it counts as gone, and everybody's sandboxes with it. Where hundreds of them misbehave,
/// the kernel lets it wait in each move into a control group, and a process that it has started has waited for 12 seconds in one `umount`.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running launcher.
#[derive(Debug)]
pub struct Launcher {
    socket: UnixStream,
    /// Requests are answered in order, so one waits at a time.
    request: Mutex<()>,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    child: Child,
    ready: LauncherReady,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    replies: VecDeque<FromLauncher>,
    exits: HashMap<u64, Exit>,
    templates: HashMap<u32, TemplateState>,
    refusals: HashMap<u64, String>,
    gone: bool,
}

/// What was heard of a template's process.
#[derive(Debug, Default)]
struct TemplateState {
    /// What it imports, or did last.
    importing: String,
    /// What it said when it was ready.
    ready: Option<Vec<u8>>,
    failed: Option<String>,
    ended: Option<Exit>,
}

impl State {
    /// Takes what was not asked for; gives back what answers a request.
    fn hear(&mut self, message: FromLauncher) -> Option<FromLauncher> {
        match message {
            FromLauncher::Exited { sandbox, exit } => {
                self.exits.insert(sandbox, exit);
                self.refusals.remove(&sandbox);
            }
            FromLauncher::ForkRefused { sandbox, reason, .. } => drop(self.refusals.insert(sandbox, reason)),
            FromLauncher::TemplateEnded { template, exit } => {
                if let Some(state) = self.templates.get_mut(&template) {
                    state.ended = Some(exit);
                }
            }
            FromLauncher::TemplateSays { template, kind, text } => match (self.templates.get_mut(&template), kind) {
                (Some(state), template::READY) => state.ready = Some(text),
                (Some(state), template::FAILED) => state.failed = Some(printable(&text)),
                (Some(state), _) => state.importing = printable(&text),
                // Nobody waits for it any more.
                (None, _) => {}
            },
            answer => return Some(answer),
        }
        None
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `find` finds something, the launcher is gone, or time is up.
    fn wait_for<T>(&self, patience: Duration, mut find: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&mut state) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.gone || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A sealed, executable copy of the guest program that nothing can write to.
fn program() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    const EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag, and need none.
    let memory = rustix::fs::memfd_create("belljar-guest", flags | EXEC).or_else(|_| rustix::fs::memfd_create("belljar-guest", flags))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(PROGRAM)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

impl Launcher {
    /// Starts the launcher and waits until it is up.
    ///
    /// # Errors
    /// Where this host does not let us: the step that failed, with its object.
    pub fn start() -> Result<Self, Error> {
        let program = program().map_err(|error| Error::start("create", "the guest program", &error))?;
        let (socket, theirs) = UnixStream::pair().map_err(|error| Error::start("create", "a socket pair", &error))?;
        // Belljar never forks itself: this is one exec of a program without threads.
        let child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("belljar-launcher")
            .arg("launcher")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(|error| Error::start("start", "the launcher", &error))?;
        let shared = Arc::new(Shared::default());
        let for_reader = (socket.try_clone().map_err(|error| Error::start("copy", "a socket", &error))?, Arc::clone(&shared));
        let reader = std::thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || read_all(for_reader.0, &for_reader.1))
            .map_err(|error| Error::start("start", "a thread", &error))?;
        let mut launcher = Self { socket, request: Mutex::new(()), shared, reader: Some(reader), child, ready: LauncherReady { privileged: false } };
        launcher.ready = match launcher.reply()? {
            FromLauncher::Ready(ready) => ready,
            other => return Err(Error::Unexpected(format!("{other:?}"))),
        };
        Ok(launcher)
    }

    /// What it said of itself.
    #[must_use]
    pub fn ready(&self) -> &LauncherReady {
        &self.ready
    }

    fn reply(&self) -> Result<FromLauncher, Error> {
        match self.shared.wait_for(PATIENCE, |state| state.replies.pop_front()) {
            Some(FromLauncher::Failed(failure)) => Err(Error::Step(failure)),
            Some(reply) => Ok(reply),
            None => {
                // An answer that is overdue would be taken for that of the next request.
                let _ = self.socket.shutdown(Shutdown::Both);
                self.shared.lock().gone = true;
                Err(Error::Gone)
            }
        }
    }

    /// Sends a request with descriptors and waits for its answer.
    ///
    /// # Errors
    /// The step that failed in the launcher, or that it is gone.
    pub fn ask(&self, request: &ToLauncher, descriptors: &[BorrowedFd<'_>]) -> Result<FromLauncher, Error> {
        let _turn = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(request, descriptors)?;
        self.reply()
    }

    fn send(&self, request: &ToLauncher, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let frame = message::encode(request).map_err(|error| Error::Unexpected(error.to_string()))?;
        send_with_descriptors(&self.socket, &frame, descriptors).map_err(|_| Error::Gone)
    }

    /// Ends a sandbox; [`Self::wait`] tells when it is over.
    pub fn kill(&self, sandbox: u64) {
        let _turn = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.send(&ToLauncher::Kill { sandbox }, &[]);
    }

    /// Starts a template's process; [`Self::template_ready`] tells when it is ready, [`Self::end_template`] ends it.
    ///
    /// # Errors
    /// The step that failed in the launcher, or that it is gone.
    pub fn start_template(&self, start: StartTemplate, cgroups: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let template = start.template;
        self.shared.lock().templates.insert(template, TemplateState::default());
        match self.ask(&ToLauncher::StartTemplate(Box::new(start)), cgroups) {
            Ok(FromLauncher::TemplateStarted { template: started }) if started == template => Ok(()),
            answer => {
                self.shared.lock().templates.remove(&template);
                Err(answer.map_or_else(|error| error, |other| Error::Unexpected(format!("{other:?}"))))
            }
        }
    }

    /// Asks for a new worker of a sandbox.
    ///
    /// # Errors
    /// Where the launcher is gone.
    pub fn fork(&self, sandbox: u64, template: u32) -> Result<(), Error> {
        let _turn = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.lock().refusals.remove(&sandbox);
        self.send(&ToLauncher::Fork { sandbox, template }, &[])
    }

    /// Why a sandbox's worker was not forked.
    #[must_use]
    pub fn refusal(&self, sandbox: u64) -> Option<String> {
        self.shared.lock().refusals.get(&sandbox).cloned()
    }

    /// Whether it is gone: nothing that it held is left, and nothing more can be asked of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shared.lock().gone
    }

    /// Whether a template's process is ready and lives.
    #[must_use]
    pub fn template_lives(&self, template: u32) -> bool {
        let state = self.shared.lock();
        !state.gone && state.templates.get(&template).is_some_and(|state| state.ready.is_some() && state.ended.is_none())
    }

    /// Ends a template's process, and waits until it is gone.
    pub fn end_template(&self, template: u32) {
        let turn = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.send(&ToLauncher::EndTemplate { template }, &[]);
        drop(turn);
        let _ = self.shared.wait_for(KILL_PATIENCE, |state| state.templates.get(&template).is_none_or(|known| known.ended.is_some()).then_some(()));
        self.shared.lock().templates.remove(&template);
    }

    /// Waits until a template's process is ready; no single import may take longer than `patience`.
    ///
    /// # Errors
    /// What it was doing when it hung or ended.
    pub fn template_ready(&self, template: u32, patience: Duration) -> Result<Vec<u8>, Error> {
        enum News {
            Ready(Vec<u8>),
            Importing(String),
            Ended(String),
        }
        let mut importing = String::new();
        let deadline = Instant::now() + patience.saturating_mul(MOST_IMPORTS);
        loop {
            if Instant::now() > deadline {
                return Err(Error::Template(format!(
                    "it does not come to an end of its imports: nothing is ready after {} s",
                    patience.saturating_mul(MOST_IMPORTS).as_secs()
                )));
            }
            let news = self.shared.wait_for(patience, |state| {
                let known = state.templates.get(&template)?;
                match (&known.ready, &known.failed, known.ended) {
                    (Some(report), ..) => Some(News::Ready(report.clone())),
                    (None, Some(reason), _) => Some(News::Ended(reason.clone())),
                    (None, None, Some(exit)) => Some(News::Ended(ending(exit))),
                    (None, None, None) if known.importing != importing => Some(News::Importing(known.importing.clone())),
                    (None, None, None) => None,
                }
            });
            let during = if importing.is_empty() { String::new() } else { format!(" while importing `{importing}`") };
            match news {
                Some(News::Ready(report)) => return Ok(report),
                Some(News::Importing(name)) => importing = name,
                Some(News::Ended(reason)) => return Err(Error::Template(format!("{reason}{during}"))),
                None if self.shared.lock().gone => return Err(Error::Gone),
                None => return Err(Error::Template(format!("it hangs{during}: nothing for {} s", patience.as_secs()))),
            }
        }
    }

    /// Whether a sandbox has ended, and nobody waited for it.
    #[must_use]
    pub fn has_ended(&self, sandbox: u64) -> bool {
        let state = self.shared.lock();
        state.gone || state.exits.contains_key(&sandbox)
    }

    /// Waits until a sandbox is gone; `None` where it is not within `patience`.
    #[must_use]
    pub fn wait(&self, sandbox: u64, patience: Duration) -> Option<Exit> {
        self.shared.wait_for(patience, |state| state.exits.remove(&sandbox))
    }
}

/// Text of a template, whose packages chose it: short, in one line, without what a terminal would act on.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(500).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// How a process ended, in words.
fn ending(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("it ended with code {code}"),
        Exit::Signal(9) => "it was killed (signal 9; out of memory?)".to_owned(),
        Exit::Signal(signal) => format!("it was ended by signal {signal}"),
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let _ = self.child.wait();
    }
}

fn read_all(mut socket: UnixStream, shared: &Shared) {
    let mut reader = FrameReader::default();
    let mut buffer = [0; 16 * 1024];
    'read: while let Ok(count) = socket.read(&mut buffer) {
        if count == 0 {
            break;
        }
        reader.push(buffer.get(..count).unwrap_or_default());
        loop {
            let message = match reader.next_frame() {
                Ok(Some((kind, payload))) => message::decode::<FromLauncher>(kind, &payload),
                Ok(None) => break,
                Err(_) => break 'read,
            };
            let Ok(message) = message else { break 'read };
            let mut state = shared.lock();
            if let Some(answer) = state.hear(message) {
                state.replies.push_back(answer);
            }
            drop(state);
            shared.changed.notify_all();
        }
    }
    shared.lock().gone = true;
    shared.changed.notify_all();
}

/// Sends bytes with descriptors on the first of them.
fn send_with_descriptors(mut socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    socket.write_all(bytes.get(sent..).unwrap_or_default())
}
