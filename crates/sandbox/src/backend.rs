//! What every isolation backend offers, and the table of those there are.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::message::{Exit, Failure, FromInit, InitReady, ToInit};

use crate::cgroup::Counters;
use crate::limits::Limits;
use crate::workspace::Workspace;

pub mod namespace;

/// Starts a backend.
pub type Start = fn(Controls) -> Result<Arc<dyn Backend>, Error>;

/// Backends by name: the first is the default.
pub const BACKENDS: &[(&str, Start)] = &[("namespace", namespace::start)];

/// Why isolation could not do its part. Never caused by code inside.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of ours failed.
    #[error("cannot {} `{}`: {}", .0.step, .0.object, std::io::Error::from_raw_os_error(.0.errno))]
    Step(Failure),
    /// The launcher or init is not there any more.
    #[error("the sandbox's launcher or init is gone")]
    Gone,
    /// Something answered what it should not.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
    /// A template's process does not get ready, or has ended.
    #[error("{0}")]
    Template(String),
    /// A list of system calls is not valid.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::SeccompError),
}

impl Error {
    pub(crate) fn start(step: &str, object: &str, error: &std::io::Error) -> Self {
        Self::Step(Failure { step: step.to_owned(), object: object.to_owned(), errno: error.raw_os_error().unwrap_or_default() })
    }
}

/// Layers that may be left off: each one false is a control of the containment suite, never a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controls {
    /// Seccomp filters.
    pub seccomp: bool,
    /// Landlock domains.
    pub landlock: bool,
    /// Control groups, where the host has them.
    pub cgroups: bool,
}

impl Default for Controls {
    fn default() -> Self {
        Self { seccomp: true, landlock: true, cgroups: true }
    }
}

/// What sandboxes are made from: files and runtime. All paths are the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// The environment's packages, at `/opt/env` inside.
    pub environment: Option<PathBuf>,
    /// The interpreter where it is not below `/usr`, at `/opt/python` inside.
    pub interpreter: Option<PathBuf>,
    /// Prepared caches, at `/opt/cache` inside.
    pub cache: Option<PathBuf>,
    /// The runtime's driver files: name and content, in `/opt/runtime` inside.
    pub driver: Vec<(String, Vec<u8>)>,
    /// The worker's command line; empty: shell only.
    pub worker: Vec<String>,
    /// Variables of the runtime, beyond those that every sandbox has.
    pub variables: Vec<(String, String)>,
}

/// A prepared template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemplateId(pub u32);

/// How to start a template's process: an interpreter with libraries imported, from which workers are forked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preload {
    /// Its command line.
    pub command: Vec<String>,
    /// Private data it may have, in bytes.
    pub memory_bytes: u64,
    /// How long one import, or the warm-up, may take.
    pub patience: Duration,
}

/// A template's process that is ready, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemplateProcess(pub u32);

/// Where a sandbox's worker comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerStart {
    /// There is none: shell commands only.
    None,
    /// Started by exec, at once.
    Exec,
    /// Forked from a template's process.
    Fork(TemplateProcess),
}

/// What may differ between sandboxes of one template.
#[derive(Debug, Clone, PartialEq)]
pub struct SpawnOptions {
    /// Limits.
    pub limits: Limits,
    /// Where the worker comes from.
    pub worker: WorkerStart,
    /// Shell commands are allowed.
    pub shell: bool,
    /// Python code may start processes.
    pub process_spawning: bool,
    /// CPU seconds that one process may use in its whole life; `None`: for one execution.
    pub cpu_total_seconds: Option<u64>,
    /// It is made ahead of need: where a control group can, it gets the processor only when nobody else wants it, until [`Sandbox::adjust`].
    pub background: bool,
}

impl SpawnOptions {
    /// CPU seconds of one process in its whole life: a belt for the watchdog, so a little later than it.
    pub(crate) fn cpu_total(&self) -> u64 {
        self.cpu_total_seconds.unwrap_or(self.limits.cpu_seconds).saturating_add(5)
    }
}

/// What a sandbox used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Counters of its control group; `None` where there is none.
    pub counters: Option<Counters>,
}

/// Ends a sandbox from anywhere, and tells whether it has ended.
pub trait Lifeline: Send + Sync {
    /// Ends everything inside.
    fn kill(&self);

    /// Whether it has ended.
    fn has_ended(&self) -> bool;
}

/// A way to isolate.
pub trait Backend: Send + Sync {
    /// Makes a template ready to spawn from.
    ///
    /// # Errors
    /// The step that failed.
    fn prepare(&self, template: &Template) -> Result<TemplateId, Error>;

    /// Starts a template's process; returns when its imports are done, with what it says of them (JSON of the runtime).
    ///
    /// # Errors
    /// [`Error::Template`] names what it was importing when it hung or ended.
    fn start_process(&self, template: TemplateId, preload: &Preload) -> Result<(TemplateProcess, Vec<u8>), Error>;

    /// Whether a template's process lives.
    fn is_alive(&self, process: TemplateProcess) -> bool;

    /// Ends a template's process. Workers forked from it live on.
    fn end_process(&self, process: TemplateProcess);

    /// Starts a sandbox and returns once every layer is on.
    ///
    /// # Errors
    /// The step that failed.
    fn spawn(&self, template: TemplateId, options: &SpawnOptions) -> Result<Box<dyn Sandbox>, Error>;

    /// Name of the backend, as an execution's record says it.
    fn name(&self) -> &'static str;

    /// Whether each sandbox has a host user of its own.
    fn own_users(&self) -> bool;

    /// Which control groups hold the limits.
    fn cgroups(&self) -> &crate::cgroup::Version;
}

/// One isolated environment. Dropping it ends everything inside.
pub trait Sandbox: Send {
    /// What init said of the layers in force.
    fn ready(&self) -> InitReady;

    /// A handle to send with, usable from other threads.
    fn remote(&self) -> Remote;

    /// The next message of init; `None` when the deadline passes first.
    ///
    /// # Errors
    /// [`Error::Gone`] when init has ended.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<FromInit>, Error>;

    /// The workspace, usable from other threads.
    fn workspace(&self) -> &Arc<Workspace>;

    /// A handle to end it with, usable from other threads.
    fn lifeline(&self) -> Arc<dyn Lifeline>;

    /// Stops or continues everything inside at once; false where this host cannot.
    fn freeze(&self, frozen: bool) -> bool;

    /// Ends everything inside.
    fn kill(&self);

    /// Whether it has ended by itself.
    fn has_ended(&self) -> bool;

    /// Changes limits of a sandbox that has not run anything yet. False, and nothing is changed, where one of them cannot be changed
    /// any more: then only a new sandbox has them.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn adjust(&mut self, limits: &Limits) -> Result<bool, Error>;

    /// Waits until nothing is left; `None` where that is not within `patience`.
    fn wait(&mut self, patience: Duration) -> Option<Exit>;

    /// Forks a new worker for this sandbox, in place of one that died. [`FromInit::WorkerReady`] tells that it is up.
    ///
    /// # Errors
    /// Where the launcher is gone. A template that cannot fork is no error: the worker is then started by exec.
    fn replace_worker(&self, process: TemplateProcess) -> Result<(), Error>;

    /// Whether its first worker was forked from a template: asked for, and not refused.
    fn is_forked(&self) -> bool;

    /// Why this sandbox's worker was not forked but started by exec; `None` where it was not refused.
    fn refusal(&self) -> Option<String>;

    /// What was used so far.
    fn usage(&self) -> Usage;

    /// Memory in use now, files of the workspace and of `/tmp` with it, in bytes; `None` where no control group counts it.
    fn memory_bytes(&self) -> Option<u64>;
}

/// Init may read nothing for so long. It never takes that long, however little of the processor the code leaves it: one that does is of no use.
const SEND_PATIENCE: Duration = Duration::from_secs(30);

/// Sends messages to init.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Mutex<UnixStream>>);

impl Remote {
    pub(crate) fn new(socket: UnixStream) -> Result<Self, Error> {
        Self::patient(socket, SEND_PATIENCE)
    }

    fn patient(socket: UnixStream, patience: Duration) -> Result<Self, Error> {
        socket.set_write_timeout(Some(patience)).map_err(|error| Error::start("set up", "a socket", &error))?;
        Ok(Self(Arc::new(Mutex::new(socket))))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`Error::Gone`] when init has ended, or does not read; then nobody hears it any more.
    pub fn send(&self, message: &ToInit) -> Result<(), Error> {
        use std::io::Write;
        let frame = protocol::message::encode(message).map_err(|error| Error::Unexpected(error.to_string()))?;
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        socket.write_all(&frame).map_err(|_| {
            // After a part of a message, no other can follow.
            let _ = socket.shutdown(std::net::Shutdown::Both);
            Error::Gone
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn an_init_that_does_not_read_is_given_up_by_everybody() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut heard = ours.try_clone().unwrap();
        let remote = Remote::patient(ours, Duration::from_millis(50)).unwrap();
        let sent = remote.send(&ToInit::FileData { upload: 0, bytes: vec![7; 4 << 20] });
        assert!(matches!(sent, Err(Error::Gone)));
        assert!(matches!(remote.send(&ToInit::Interrupt), Err(Error::Gone)), "nothing follows a part of a message");
        assert_eq!(heard.read(&mut [0]).unwrap(), 0, "whoever listens hears that it is over");
        let mut part = Vec::new();
        theirs.read_to_end(&mut part).unwrap();
        assert!(!part.is_empty() && part.len() < 4 << 20);
    }
}
