//! What belljar says to the launcher and to init, and what they answer; encoded with postcard inside one frame.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::frame::{self, FrameError};

/// The frame kind of every message of this module: the type itself is inside the payload.
pub const MESSAGE_KIND: u8 = 0;

/// Encodes a message as one frame.
///
/// # Errors
/// [`FrameError::TooLarge`] over the frame limit, [`FrameError::Malformed`] where it cannot be serialized.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let payload = postcard::to_allocvec(message).map_err(|_| FrameError::Malformed)?;
    frame::encode(MESSAGE_KIND, &payload)
}

/// Decodes the payload of a frame that carries a message; bytes left over are an error.
///
/// # Errors
/// [`FrameError::Malformed`] for anything that is not exactly one message of type `M`.
pub fn decode<M: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<M, FrameError> {
    if kind != MESSAGE_KIND {
        return Err(FrameError::Malformed);
    }
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

/// belljar → launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLauncher {
    /// Build a root that sandboxes start from; answered by [`FromLauncher::Prepared`].
    Prepare(Root),
    /// Start a sandbox; one descriptor comes along: init's end of its channel. Then the descriptors of
    /// the cgroups' `cgroup.procs`, `cgroups` many. Answered by [`FromLauncher::Spawned`].
    Spawn(Spawn),
    /// Start the process that workers of this root are forked from; answered by [`FromLauncher::TemplateStarted`].
    StartTemplate(Box<StartTemplate>),
    /// End a template's process. Workers that it forked live on.
    EndTemplate {
        /// Its number.
        template: u32,
    },
    /// Fork a new worker for a sandbox that lost its own. Not answered: init gets the worker, or hears that there is none.
    Fork {
        /// The sandbox's number.
        sandbox: u64,
        /// The template to fork.
        template: u32,
    },
    /// End a sandbox now (SIGKILL of its init); answered by [`FromLauncher::Exited`] when nothing of it is left.
    Kill {
        /// The sandbox's number.
        sandbox: u64,
    },
}

/// The file tree of a sandbox before anything private is mounted on it. Paths are absolute, inside the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The number by which [`Spawn::root`] names it.
    pub root: u32,
    /// Folders to make.
    pub directories: Vec<String>,
    /// Files to write: path, content. Mode 0444.
    pub files: Vec<(String, Vec<u8>)>,
    /// Symbolic links: path, target.
    pub links: Vec<(String, String)>,
    /// Folders and files of the host, read-only inside.
    pub binds: Vec<Bind>,
}

/// A folder or file of the host made visible inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: String,
    /// Absolute path inside.
    pub target: String,
    /// A device node: the only binds on which device files work.
    pub device: bool,
}

/// How to start a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// The sandbox's number, unique for the launcher's life.
    pub sandbox: u64,
    /// The root to start from.
    pub root: u32,
    /// How many cgroup descriptors follow init's channel.
    pub cgroups: u8,
    /// Folders of the cgroups on the host, removed by the launcher if belljar is gone.
    pub cgroup_paths: Vec<String>,
    /// The template to fork the worker from; `None`: init starts it by exec.
    pub template: Option<u32>,
}

/// How to start a template's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTemplate {
    /// The number by which [`Spawn::template`] names it, unique for the launcher's life.
    pub template: u32,
    /// The root that it and its sandboxes share.
    pub root: u32,
    /// Private memory file systems, at the places where sandboxes have theirs.
    pub tmpfs: Vec<Tmpfs>,
    /// Folders bound from one of those file systems to a second place: (from, to).
    pub rebinds: Vec<(String, String)>,
    /// The complete environment.
    pub environment: Vec<(String, String)>,
    /// The command line.
    pub command: Vec<String>,
    /// Private data it may have, in bytes (`RLIMIT_DATA`).
    pub memory_bytes: u64,
    /// Seccomp program (bytes of `sock_filter`); empty: none.
    pub filter: Vec<u8>,
    /// How many cgroup descriptors come along.
    pub cgroups: u8,
    /// Folders of the cgroups on the host, removed by the launcher if belljar is gone.
    pub cgroup_paths: Vec<String>,
}

/// launcher → belljar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLauncher {
    /// The launcher is up.
    Ready(LauncherReady),
    /// The root stands.
    Prepared {
        /// Its number.
        root: u32,
    },
    /// The sandbox's init was started.
    Spawned {
        /// Its number.
        sandbox: u64,
    },
    /// The sandbox is gone: init has been reaped, so nothing of its process namespace is left.
    Exited {
        /// Its number.
        sandbox: u64,
        /// How init ended.
        exit: Exit,
    },
    /// A request failed.
    Failed(Failure),
    /// The process of the template was started. What it does next, it says itself.
    TemplateStarted {
        /// Its number.
        template: u32,
    },
    /// A template said something of itself: text of the runtime, not checked.
    TemplateSays {
        /// Its number.
        template: u32,
        /// What: see [`crate::template`].
        kind: u8,
        /// The text.
        text: Vec<u8>,
    },
    /// A template's process ended.
    TemplateEnded {
        /// Its number.
        template: u32,
        /// How.
        exit: Exit,
    },
    /// A worker could not be forked; init starts it by exec instead.
    ForkRefused {
        /// The sandbox's number.
        sandbox: u64,
        /// The template's number.
        template: u32,
        /// Why.
        reason: String,
    },
}

impl FromLauncher {
    /// Whether this answers a request; what does not comes at any time.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Ready(_) | Self::Prepared { .. } | Self::Spawned { .. } | Self::Failed(_) | Self::TemplateStarted { .. })
    }
}

/// launcher → init, where the worker is forked from a template: one datagram each, on a socket that the launcher never reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Supply {
    /// A worker was forked; one descriptor comes along: init's end of its channel.
    Worker,
    /// The worker ended.
    Ended(Exit),
    /// There will be no worker.
    Refused,
}

/// Facts about the launcher that only it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherReady {
    /// It runs as root of the host's first user namespace and gives each sandbox a user id of its own.
    pub privileged: bool,
}

/// A step of ours that failed, with the kernel's error number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step} `{object}` failed with error {errno}")]
pub struct Failure {
    /// What was tried, as a verb with its call, e.g. `mount tmpfs on`.
    pub step: String,
    /// On what.
    pub object: String,
    /// The error number (`errno`), 0 where there is none.
    pub errno: i32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// belljar → init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToInit {
    /// The first message: everything init must know to build the sandbox.
    Configure(Box<Configuration>),
    /// The second message: the sandbox is in its control groups. Init finishes its set-up and answers with [`FromInit::Ready`].
    Attached,
    /// Write a file beneath the workspace: begins it. Nothing of it is seen before [`Self::FileEnd`].
    FileBegin {
        /// A number of the host's for this upload. Several may go on at once.
        upload: u64,
        /// Path within the workspace, whose folders are made where they are not there.
        path: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// The next bytes of a file that was begun.
    FileData {
        /// Which upload.
        upload: u64,
        /// What.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The file is complete and takes its place; answered by [`FromInit::FileWritten`].
    FileEnd {
        /// Which upload.
        upload: u64,
    },
    /// The file will not be complete: what there is of it goes. Not answered.
    FileAbort {
        /// Which upload.
        upload: u64,
    },
    /// Code is about to come: whoever sleeps may wake up. Not answered.
    Wake,
    /// Run code; answered by outputs and [`FromInit::Done`].
    Execute(Execute),
    /// From now on an execution may use no more CPU time than this.
    LimitCpu {
        /// Not above what a process of the sandbox may use in its whole life.
        seconds: u64,
    },
    /// Interrupt the running execution (SIGINT to what runs).
    Interrupt,
    /// Kill what runs. The worker is replaced at the next execution.
    KillExecution,
}

/// One execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execute {
    /// The execution's number within the sandbox, made by the host. 0 is a rehearsal: before the sandbox is handed out to anybody.
    pub execution: u64,
    /// What runs it.
    pub work: Work,
}

/// What an execution runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// The payload of an `execute` frame for the worker, as the driver expects it.
    Code(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A shell command, as bash reads it from `-c`.
    Shell(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// Everything init needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Name of the host inside.
    pub hostname: String,
    /// Private memory file systems.
    pub tmpfs: Vec<Tmpfs>,
    /// Folders bound from one of those file systems to a second place: (from, to).
    pub rebinds: Vec<(String, String)>,
    /// The complete environment of worker and shell.
    pub environment: Vec<(String, String)>,
    /// The worker's command line; empty: no worker in this sandbox.
    pub worker: Vec<String>,
    /// The payload of the worker's `setup` frame.
    pub worker_setup: Vec<u8>,
    /// The worker comes from a template, through the descriptor after the host's channel; the command line is for the case that none comes.
    pub forked: bool,
    /// The shell's command line before the command itself; empty: no shell here.
    pub shell: Vec<String>,
    /// Code of a worker may start processes.
    pub process_spawning: bool,
    /// Rules for init, the worker and the shell.
    pub confinement: Confinement,
    /// Limits for each process and for the watchdog.
    pub limits: ProcessLimits,
}

/// A private memory file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where, inside.
    pub target: String,
    /// Size limit in bytes.
    pub bytes: u64,
    /// Limit of files and folders.
    pub inodes: u64,
    /// Permission bits of its root.
    pub mode: u32,
    /// Folders made in it.
    pub directories: Vec<String>,
    /// Symbolic links made in it: path, target.
    pub links: Vec<(String, String)>,
}

/// The rules put on processes, last before they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Seccomp program of init itself (bytes of `sock_filter`); its children inherit it.
    pub init_filter: Vec<u8>,
    /// Seccomp program of the worker, on before its exec.
    pub worker_filter: Vec<u8>,
    /// Seccomp program of shell commands.
    pub shell_filter: Vec<u8>,
    /// Landlock: folders that the worker may read and execute from.
    pub worker_execute: Vec<String>,
    /// Landlock: folders that the shell may read and execute from.
    pub shell_execute: Vec<String>,
    /// Landlock: readable only.
    pub read: Vec<String>,
    /// Landlock: readable and writable.
    pub write: Vec<String>,
    /// Leave Landlock off. For controls of the containment suite and kernels without it.
    pub without_landlock: bool,
    /// Leave seccomp off. For controls of the containment suite.
    pub without_seccomp: bool,
}

/// Private data that an interpreter with its libraries has before it does anything, in bytes: on top of a sandbox's memory limit where no cgroup holds it.
pub const BASELINE_BYTES: u64 = 128 * 1024 * 1024;

/// Limits init enforces, per process by rlimits and for all by a watchdog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// CPU seconds of one execution, all its processes together.
    pub cpu_seconds: u64,
    /// CPU seconds of one process in its whole life (`RLIMIT_CPU`).
    pub cpu_total_seconds: u64,
    /// Processes and threads of the sandbox.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Set where no cgroup bounds memory: bytes of private data of one process (`RLIMIT_DATA`) and of all together (watchdog).
    pub memory_bytes: Option<u64>,
}

impl ProcessLimits {
    /// Limits of every process inside, as (number of the resource on Linux, soft and hard value).
    #[must_use]
    pub fn resources(&self) -> Vec<(u32, u64)> {
        vec![
            // RLIMIT_CORE, not 0: a host whose core pattern is a pipe would still start its helper for us. With 1 the kernel refuses either way.
            (4, 1),
            // RLIMIT_CPU, a belt for the watchdog: children that the kernel collects by itself leave no account.
            (0, self.cpu_total_seconds),
            // RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO
            (8, 0),
            (12, 0),
            (13, 0),
            (14, 0),
            // RLIMIT_SIGPENDING, RLIMIT_LOCKS
            (11, 1024),
            (10, 1024),
            // RLIMIT_NOFILE, RLIMIT_NPROC
            (7, self.open_files),
            (6, self.processes),
        ]
    }
}

/// The streams of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// init → belljar. `execution` numbers are init's own account of what the host asked it to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromInit {
    /// Set up; every layer is on. One descriptor comes along: the workspace's folder.
    Ready(InitReady),
    /// The set-up failed; init ends.
    Failed(Failure),
    /// A file was written, or not.
    FileWritten {
        /// Which upload.
        upload: u64,
        /// Whether it took the place of one that was there; `Err` carries the error number, e.g. 28 for a full workspace.
        result: Result<bool, i32>,
    },
    /// Bytes that the execution wrote.
    Output {
        /// Which execution.
        execution: u64,
        /// Which stream.
        stream: Stream,
        /// What.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// A `display`, `result` or `error` frame of the worker, unread.
    Worker {
        /// Which execution.
        execution: u64,
        /// The worker's frame kind.
        kind: u8,
        /// The worker's payload.
        #[serde(with = "serde_bytes")]
        payload: Vec<u8>,
    },
    /// The worker is up and waits for code.
    WorkerReady,
    /// The worker died between two executions; its state is lost.
    WorkerLost(Exit),
    /// The execution is over.
    Done {
        /// Which execution.
        execution: u64,
        /// How it ended, as init saw it.
        end: End,
    },
}

/// What init can say once it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReady {
    /// The Landlock ABI in force, 0 for none.
    pub landlock_abi: u32,
}

/// How an execution ended, as init saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The worker said it is done.
    Completed,
    /// The shell command ended.
    ShellExited(Exit),
    /// The worker died; its state is lost.
    WorkerExited(Exit),
    /// The worker broke the channel's format and was killed; its state is lost.
    WorkerBroken,
    /// The watchdog killed what ran for its memory.
    MemoryLimit {
        /// The worker was killed with it.
        state_lost: bool,
    },
    /// The watchdog killed what ran for its CPU time.
    CpuLimit {
        /// The worker was killed with it.
        state_lost: bool,
    },
    /// The worker could not be started: the sandbox's runtime is at fault.
    WorkerFailed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_survives_the_way() {
        let message = FromInit::Output { execution: 7, stream: Stream::Stderr, bytes: b"x\0y".to_vec() };
        let frame = encode(&message).unwrap();
        let mut reader = crate::FrameReader::default();
        reader.push(&frame);
        let (kind, payload) = reader.next_frame().unwrap().unwrap();
        assert_eq!(decode::<FromInit>(kind, &payload).unwrap(), message);
        assert_eq!(decode::<FromInit>(1, &payload), Err(FrameError::Malformed));
        let mut long = payload;
        long.push(0);
        assert_eq!(decode::<FromInit>(kind, &long), Err(FrameError::Malformed));
    }

    proptest! {
        #[test]
        fn any_payload_is_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = decode::<FromInit>(MESSAGE_KIND, &bytes);
            let _ = decode::<FromLauncher>(MESSAGE_KIND, &bytes);
        }
    }
}
