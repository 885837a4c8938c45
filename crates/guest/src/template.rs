//! A template's process: an interpreter with its libraries imported, from which workers are forked.
//!
//! It runs the code of packages, so it is held like a sandbox: a user of its own, a user namespace of its own, no network, the
//! read-only tree, a filter, control groups where there are any. It has one right that sandboxes have not: `CAP_SYS_ADMIN` in its own user namespace, to enter the
//! process namespaces of its sandboxes. Of `/proc` it sees itself only, and it gets no descriptor of a sandbox that is not set up
//! yet but its process namespace: until init has left the host's tree, nobody may follow it there.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::message::{Failure, StartTemplate};
use protocol::template;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::CapabilitySet;

use crate::channel;
use crate::launcher::{failed, join_cgroups};
use crate::sys::{self, Forked};
use crate::{confine, init, runner, users};

/// The descriptor of a template's socket to the launcher.
const CONTROL: i32 = 3;

/// A template's process, as the launcher sees it.
pub(crate) struct TemplateProcess {
    /// Its process.
    pub(crate) pid: Pid,
    /// Its end of the datagrams of [`protocol::template`].
    pub(crate) socket: OwnedFd,
    /// Its user namespace, below which its sandboxes are made.
    pub(crate) namespace: OwnedFd,
    /// Its user.
    pub(crate) user: u32,
    /// Folders of its control groups.
    pub(crate) cgroups: Vec<String>,
}

/// Starts a template's process as `user`, in these control groups.
pub(crate) fn start(start: &StartTemplate, user: u32, privileged: bool, cgroups: &[OwnedFd]) -> Result<TemplateProcess, Failure> {
    const OBJECT: &str = "the template";
    const NAMESPACES: i32 = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let (go, let_go) = failed("make a pipe for", OBJECT, rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC))?;
    let pair = rustix::net::socketpair(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET, rustix::net::SocketFlags::CLOEXEC, None);
    let (socket, theirs) = failed("make a socket for", OBJECT, pair)?;
    let raw = match failed("create the namespaces of", OBJECT, sys::clone_namespaces(NAMESPACES))? {
        Forked::Child => {
            drop((let_go, socket));
            let mut byte = [0_u8; 1];
            if rustix::io::read(&go, &mut byte) == Ok(1) {
                let failure = become_template(start, user, privileged, theirs.as_fd());
                let text = [&[template::FAILED], failure.to_string().as_bytes()].concat();
                let _ = rustix::net::send(&theirs, &text, rustix::net::SendFlags::NOSIGNAL);
            }
            sys::exit_now(127)
        }
        Forked::Parent(pid) => pid,
    };
    let pid = failed("clone", OBJECT, Pid::from_raw(raw).ok_or(rustix::io::Errno::SRCH))?;
    let started = (|| {
        users::map_template(raw, privileged)?;
        join_cgroups(cgroups, raw)?;
        let path = format!("/proc/{raw}/ns/user");
        let namespace = failed("open", &path, rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))?;
        failed("open", "the template's socket", rustix::io::ioctl_fionbio(&socket, true))?;
        failed("start", OBJECT, rustix::io::write(&let_go, b"g"))?;
        Ok(TemplateProcess { pid, socket, namespace, user, cgroups: start.cgroup_paths.clone() })
    })();
    if started.is_err() {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    }
    started
}

/// The new process: gives itself the tree and the rights of a template, then executes the runtime. Returns only on failure.
fn become_template(start: &StartTemplate, user: u32, privileged: bool, control: BorrowedFd<'_>) -> Failure {
    let prepared = (|| {
        let _ = rustix::process::setsid();
        let _ = sys::join_session_keyring();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if privileged {
            failed("become", "the template's user", users::become_user(user, privileged))?;
        }
        init::enter_root(&crate::root::stage(start.root), &start.tmpfs, &start.rebinds, only_self_in_proc)?;
        init::own_streams()?;
        failed("name", "the template", rustix::system::sethostname(b"template"))?;
        for (resource, value) in [(4, 1), (8, 0), (12, 0), (sys::LIMIT_DATA, start.memory_bytes)] {
            init::set_limit(resource, value)?;
        }
        failed("enter", init::WORKSPACE, rustix::process::chdir(init::WORKSPACE))?;
        let control = failed("copy", "the template's socket", rustix::io::fcntl_dupfd_cloexec(control, 10))?;
        failed("place", "the template's socket", sys::dup2(control.as_fd(), CONTROL))?;
        sys::reset_signals();
        failed("close", "descriptors", sys::close_range(CONTROL + 1, i32::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default()))?;
        failed("keep", "capabilities", users::keep_over_exec(CapabilitySet::SYS_ADMIN))?;
        failed("set", "no_new_privs", rustix::thread::set_no_new_privs(true))?;
        failed("enter", "the template's Landlock domain", confine::enter_signal_domain())?;
        let strings = |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
        let command = failed("name", "the runtime", strings(&start.command).map_err(io::Error::from))?;
        let environment = failed("name", "the runtime", runner::environment(&start.environment))?;
        if !start.filter.is_empty() {
            failed("install", "the template's filter", sys::set_seccomp_filter(&start.filter))?;
        }
        Ok((command, environment))
    })();
    match prepared {
        Err(failure) => failure,
        Ok((command, environment)) => {
            let name = start.command.first().map_or("", String::as_str);
            let error = command.first().map_or_else(|| io::ErrorKind::InvalidInput.into(), |program| sys::execve(program, &command, &environment));
            failed::<(), _>("execute", name, Err(error)).err().unwrap_or_else(|| Failure { step: String::new(), object: String::new(), errno: 0 })
        }
    }
}

/// `/proc` with nothing but this process: a template looks at its own threads and descriptors, and at nobody else.
fn only_self_in_proc() -> Result<(), Failure> {
    let own = format!("/proc/{}", rustix::process::getpid().as_raw_nonzero());
    failed("mount tmpfs on", "/proc", rustix::mount::mount("tmpfs", "./proc", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"size=4k,mode=0755"))?;
    failed("create", "/proc/self", rustix::fs::mkdir("./proc/self", Mode::from_raw_mode(0o755)))?;
    failed("bind", &own, rustix::mount::mount_bind(&own, "./proc/self"))
}

impl TemplateProcess {
    /// Asks for a worker: `processes` is the sandbox's process namespace, `channel` the worker's end of its channel to init.
    pub(crate) fn ask(&self, sandbox: u64, processes: BorrowedFd<'_>, channel: BorrowedFd<'_>) -> io::Result<()> {
        let request = [&[template::FORK][..], &sandbox.to_le_bytes()].concat();
        channel::send_datagram(self.socket.as_fd(), &request, &[processes, channel])
    }

    /// The next datagram; `None` where none waits, an error where the process is gone.
    pub(crate) fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; template::MAX_BYTES];
        // Without a control buffer: descriptors sent here are dropped by the kernel.
        match rustix::net::recv(&self.socket, &mut buffer[..], rustix::net::RecvFlags::empty()) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => {
                buffer.truncate(count);
                Ok(Some(buffer))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
