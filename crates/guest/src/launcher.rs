//! The launcher: starts sandboxes for belljar and takes them along when it ends, however belljar ended.
//!
//! It is the first process of an outer process namespace, so the kernel ends everything below it when it leaves, and it leaves
//! when its control channel (descriptor 0) closes. It parses nothing that comes from inside a sandbox.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use protocol::message::{self, Exit, Failure, FromLauncher, LauncherReady, Spawn, ToLauncher};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::channel::{Channel, Read};
use crate::sys::{self, Forked};
use crate::users::{self, UserIds};

/// Where the host's file tree stands in the launcher's own mount namespace.
pub(crate) const HOST: &str = "/host";

/// Names a step that failed.
pub(crate) fn failed<T, E: Into<io::Error>>(step: &str, object: &str, result: Result<T, E>) -> Result<T, Failure> {
    result.map_err(|error| Failure { step: step.to_owned(), object: object.to_owned(), errno: error.into().raw_os_error().unwrap_or_default() })
}

/// Runs the launcher; returns when belljar is gone and everything below has ended.
#[must_use]
pub fn main() -> ExitCode {
    let control = sys::inherited(0);
    match separate(&control) {
        Ok(Side::Outside(code)) => code,
        Ok(Side::Inside { privileged, outside }) => serve(control, outside, privileged),
        Err(failure) => {
            tell(&control, &FromLauncher::Failed(failure));
            ExitCode::from(4)
        }
    }
}

/// The two processes that come out of [`separate`].
enum Side {
    /// The one belljar started: it only waits.
    Outside(ExitCode),
    /// The first process of the outer namespace; `outside` closes when the other one dies.
    Inside { privileged: bool, outside: OwnedFd },
}

/// Enters the outer namespaces. The process that was started stays outside and waits for the one inside.
fn separate(control: &OwnedFd) -> Result<Side, Failure> {
    // A new session: signals of a terminal go to belljar, which decides.
    let _ = rustix::process::setsid();
    let privileged = users::may_map_any_user();
    if !privileged && users::is_root_above() {
        // A sandbox's user would be host user 0.
        return Err(Failure { step: "give a user of its own to".to_owned(), object: "the sandbox".to_owned(), errno: libc::EPERM });
    }
    if !privileged {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        failed("create a user namespace for", "the launcher", sys::unshare(libc::CLONE_NEWUSER))?;
        users::map_self(uid, gid)?;
    }
    failed("create namespaces for", "the launcher", sys::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS))?;
    let (outside, alive) = failed("make a pipe for", "the launcher", rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC))?;
    match failed("fork", "the launcher", sys::fork())? {
        Forked::Child => {
            drop(alive);
            Ok(Side::Inside { privileged, outside })
        }
        Forked::Parent(_) => {
            drop(outside);
            // Belljar must see its channel close when the process inside ends, so this one gives its copy up.
            let _ = sys::dup2(alive.as_fd(), rustix::fd::AsRawFd::as_raw_fd(control));
            let _ = rustix::process::wait(WaitOptions::empty());
            Ok(Side::Outside(ExitCode::SUCCESS))
        }
    }
}

/// A message outside the loop, on the still blocking channel.
fn tell(control: &OwnedFd, message: &FromLauncher) {
    if let Ok(frame) = message::encode(message) {
        let _ = rustix::io::write(control, &frame);
    }
}

fn serve(control: OwnedFd, outside: OwnedFd, privileged: bool) -> ExitCode {
    let control_copy = control.try_clone();
    match Launcher::start(control, outside, privileged) {
        Ok(mut launcher) => {
            launcher.run();
            launcher.leave();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if let Ok(control) = control_copy {
                tell(&control, &FromLauncher::Failed(failure));
            }
            ExitCode::from(4)
        }
    }
}

/// Gives the launcher a root of its own: a small tmpfs with the host's tree at [`HOST`] and roots of sandboxes under `/stage`.
fn own_root() -> Result<(), Failure> {
    const STEP: &str = "build the launcher's root at";
    failed(STEP, "/", rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC))?;
    failed(STEP, "/tmp", rustix::mount::mount("tmpfs", "/tmp", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"size=64m,mode=0755"))?;
    for folder in ["host", "stage", "proc"] {
        let path = format!("/tmp/{folder}");
        failed("create", &path, rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)))?;
    }
    failed(STEP, "/host", rustix::process::pivot_root("/tmp", "/tmp/host"))?;
    failed(STEP, "/", rustix::process::chdir("/"))?;
    failed("mount proc on", "/proc", rustix::mount::mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None))
}

/// A sandbox that runs.
struct Running {
    init: Pid,
    user: u32,
    cgroups: Vec<String>,
}

struct Launcher {
    control: Channel,
    outside: OwnedFd,
    signals: OwnedFd,
    /// This very program, for init.
    program: OwnedFd,
    users: UserIds,
    sandboxes: BTreeMap<u64, Running>,
}

impl Launcher {
    fn start(control: OwnedFd, outside: OwnedFd, privileged: bool) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let program = failed("open", "/proc/self/exe", rustix::fs::open("/proc/self/exe", flags, Mode::empty()))?;
        own_root()?;
        let signals = failed("watch signals of", "the launcher", sys::signal_descriptor(&[libc::SIGCHLD]))?;
        let control = failed("open", "the control channel", Channel::new(control, true))?;
        let users = UserIds::new(privileged);
        let mut launcher = Self { control, outside, signals, program, users, sandboxes: BTreeMap::new() };
        launcher.say(&FromLauncher::Ready(LauncherReady { privileged }));
        Ok(launcher)
    }

    fn say(&mut self, message: &FromLauncher) {
        if let Ok(frame) = message::encode(message) {
            self.control.queue(&frame);
            let _ = self.control.flush();
        }
    }

    /// Serves until belljar, or the process outside, is gone.
    fn run(&mut self) {
        loop {
            let wanted = if self.control.queued_bytes() > 0 { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let mut wait = [
                PollFd::from_borrowed_fd(self.control.as_fd(), wanted),
                PollFd::from_borrowed_fd(self.outside.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut wait, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let [control, outside, signals] = wait.map(|entry| entry.revents());
            if !outside.is_empty() {
                return;
            }
            if !signals.is_empty() {
                self.reap();
            }
            if control.contains(PollFlags::OUT) && self.control.flush().is_err() {
                return;
            }
            if control.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.receive() {
                return;
            }
        }
    }

    /// Reads and serves requests; false when belljar is gone or talks nonsense.
    fn receive(&mut self) -> bool {
        let Ok(Read::Open) = self.control.read() else { return false };
        loop {
            let request = match self.control.next_frame() {
                Ok(Some((kind, payload))) => message::decode::<ToLauncher>(kind, &payload),
                Ok(None) => return true,
                Err(_) => return false,
            };
            let Ok(request) = request else { return false };
            if let Err(failure) = self.serve(request) {
                self.say(&FromLauncher::Failed(failure));
            }
        }
    }

    fn serve(&mut self, request: ToLauncher) -> Result<(), Failure> {
        match request {
            ToLauncher::Prepare(root) => {
                crate::root::build(&root)?;
                self.say(&FromLauncher::Prepared { root: root.root });
            }
            ToLauncher::Spawn(spawn) => self.spawn(spawn)?,
            ToLauncher::Kill { sandbox } => {
                if let Some(running) = self.sandboxes.get(&sandbox) {
                    failed("kill", "the sandbox", rustix::process::kill_process(running.init, Signal::KILL))?;
                    thaw(&running.cgroups);
                }
            }
        }
        Ok(())
    }

    fn spawn(&mut self, spawn: Spawn) -> Result<(), Failure> {
        let missing = || Failure { step: "receive the descriptors of".to_owned(), object: "the sandbox".to_owned(), errno: libc::EBADMSG };
        let channel = self.control.take_descriptor().ok_or_else(missing)?;
        let mut cgroups = Vec::new();
        for _ in 0..spawn.cgroups {
            cgroups.push(self.control.take_descriptor().ok_or_else(missing)?);
        }
        let user = self.users.take()?;
        match self.clone_init(&spawn, user, &channel, &cgroups) {
            Ok(init) => {
                self.sandboxes.insert(spawn.sandbox, Running { init, user, cgroups: spawn.cgroup_paths });
                self.say(&FromLauncher::Spawned { sandbox: spawn.sandbox });
                Ok(())
            }
            Err(failure) => {
                self.users.release(user);
                Err(failure)
            }
        }
    }

    /// Clones init into its namespaces, puts it into its cgroups, writes its user map and lets it go.
    fn clone_init(&self, spawn: &Spawn, user: u32, channel: &OwnedFd, cgroups: &[OwnedFd]) -> Result<Pid, Failure> {
        const NAMESPACES: i32 = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let (go, start) = failed("make a pipe for", "the sandbox", rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC))?;
        let stage = crate::root::stage(spawn.root);
        let pid = match failed("create the namespaces of", "the sandbox", sys::clone_namespaces(NAMESPACES))? {
            Forked::Child => {
                drop(start);
                become_init(&go, channel.as_fd(), self.program.as_fd(), &stage, self.users.privileged());
            }
            Forked::Parent(pid) => pid,
        };
        drop(go);
        let init = Pid::from_raw(pid).ok_or_else(|| Failure { step: "clone".to_owned(), object: "the sandbox".to_owned(), errno: libc::ESRCH })?;
        let ready = join_cgroups(cgroups, pid).and_then(|()| users::map_child(pid, user, self.users.privileged()));
        let ready = ready.and_then(|()| failed("start", "the sandbox", rustix::io::write(&start, b"g")).map(drop));
        if let Err(failure) = ready {
            let _ = rustix::process::kill_process(init, Signal::KILL);
            let _ = rustix::process::waitpid(Some(init), WaitOptions::empty());
            return Err(failure);
        }
        Ok(init)
    }

    /// Collects ended inits and reports them; orphans of the outer namespace are collected on the way.
    fn reap(&mut self) {
        let mut drain = [0_u8; 128];
        while rustix::io::read(&self.signals, &mut drain).is_ok_and(|count| count > 0) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let ended = self.sandboxes.iter().find(|(_, running)| running.init == pid).map(|(number, _)| *number);
            if let Some(sandbox) = ended {
                if let Some(running) = self.sandboxes.remove(&sandbox) {
                    self.users.release(running.user);
                }
                self.say(&FromLauncher::Exited { sandbox, exit: exit_of(status) });
            }
        }
    }

    /// The last act: end what runs and remove its cgroups, which nobody else will.
    fn leave(&mut self) {
        let sandboxes = std::mem::take(&mut self.sandboxes);
        for running in sandboxes.values() {
            let _ = rustix::process::kill_process(running.init, Signal::KILL);
            thaw(&running.cgroups);
        }
        while rustix::process::wait(WaitOptions::empty()).is_ok() {}
        for path in sandboxes.values().flat_map(|running| &running.cgroups) {
            let _ = rustix::fs::rmdir(format!("{HOST}{path}"));
            // Belljar's own folder above goes with the last of them; it is not empty before.
            if let Some((folder, _)) = path.rsplit_once('/') {
                let _ = rustix::fs::rmdir(format!("{HOST}{folder}"));
            }
        }
    }
}

/// Lets the frozen go on: in version 1 of cgroups they would not even die.
fn thaw(cgroups: &[String]) {
    for path in cgroups {
        // Not every tree has these files.
        let _ = write_existing(&format!("{HOST}{path}/freezer.state"), b"THAWED");
        let _ = write_existing(&format!("{HOST}{path}/cgroup.freeze"), b"0");
    }
}

fn write_existing(path: &str, text: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text)?;
    Ok(())
}

/// How a process ended, from its wait status.
pub(crate) fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

fn join_cgroups(cgroups: &[OwnedFd], pid: i32) -> Result<(), Failure> {
    for cgroup in cgroups {
        failed("move into the cgroup", "the sandbox", rustix::io::write(cgroup, pid.to_string().as_bytes()))?;
    }
    Ok(())
}

/// The new process, before it is init: waits for its map, takes its user, and becomes the program of init.
fn become_init(go: &OwnedFd, channel: BorrowedFd<'_>, program: BorrowedFd<'_>, stage: &str, privileged: bool) -> ! {
    let mut byte = [0_u8; 1];
    if rustix::io::read(go, &mut byte) == Ok(1) {
        let _ = prepare_exec(channel, privileged).and_then(|()| {
            let arguments = [c"belljar-init".to_owned(), c"init".to_owned(), std::ffi::CString::new(stage)?];
            Err::<(), _>(sys::execveat(program, &arguments, &[]))
        });
    }
    sys::exit_now(4)
}

fn prepare_exec(channel: BorrowedFd<'_>, privileged: bool) -> io::Result<()> {
    let _ = rustix::process::setsid();
    // A cgroup namespace now, so that its root is the sandbox's own group.
    sys::unshare(libc::CLONE_NEWCGROUP)?;
    let _ = sys::join_session_keyring();
    users::become_inside(privileged)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let channel = rustix::io::fcntl_dupfd_cloexec(channel, 10)?;
    sys::dup2(channel.as_fd(), crate::init::HOST_CHANNEL)?;
    let null = rustix::fs::open("/host/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::dup2(null.as_fd(), 0)?;
    sys::dup2(null.as_fd(), 1)?;
    sys::dup2(null.as_fd(), 2)?;
    sys::reset_signals();
    sys::close_range(crate::init::HOST_CHANNEL + 1, i32::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default())
}

/// Detaches the old root after a pivot of `.` onto itself.
pub(crate) fn detach_old_root() -> io::Result<()> {
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}
