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
use protocol::message::{self, Exit, FromLauncher, LauncherReady, ToLauncher};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::backend::Error;

/// The guest program, built by `build.rs`.
static PROGRAM: &[u8] = include_bytes!(env!("BELLJAR_GUEST_PROGRAM"));

/// How long the launcher may take for one request before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(20);

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
    gone: bool,
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
            None => Err(Error::Gone),
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

    /// Waits until a sandbox is gone; `None` where it is not within `patience`.
    #[must_use]
    pub fn wait(&self, sandbox: u64, patience: Duration) -> Option<Exit> {
        self.shared.wait_for(patience, |state| state.exits.remove(&sandbox))
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
            match message {
                FromLauncher::Exited { sandbox, exit } => drop(state.exits.insert(sandbox, exit)),
                reply => state.replies.push_back(reply),
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
