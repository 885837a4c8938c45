//! The launcher: starts sandboxes for belljar and takes them along when it ends, however belljar ended.
//!
//! It is the first process of an outer process namespace, so the kernel ends everything below it when it leaves, and it leaves
//! when its control channel (descriptor 0) closes. It parses nothing that comes from inside a sandbox; of templates, it reads the
//! fixed-size heads of [`protocol::template`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use protocol::message::{self, Exit, Failure, FromLauncher, LauncherReady, Spawn, StartTemplate, Supply, ToLauncher};
use protocol::template::{self, FromTemplate};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::channel::{Channel, Read, send_datagram};
use crate::sys::{self, Forked};
use crate::template::TemplateProcess;
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
    /// Where init hears of forked workers.
    link: Option<OwnedFd>,
    worker: Worker,
    /// When it was killed.
    killed: Option<Instant>,
}

/// What is known of a sandbox's forked worker.
enum Worker {
    None,
    /// Asked of a template; init's end of its channel, and what it has to join.
    Asked {
        template: u32,
        since: Instant,
        channel: OwnedFd,
        cgroups: Vec<OwnedFd>,
    },
    Lives {
        template: u32,
        pid: Pid,
    },
}

impl Running {
    /// The template that this sandbox waits for, and since when: to fork its worker, or to collect it.
    fn waits_for(&self) -> Option<(u32, Instant)> {
        match (&self.worker, self.killed) {
            (Worker::Asked { template, since, .. }, _) => Some((*template, *since)),
            (Worker::Lives { template, .. }, Some(since)) => Some((*template, since)),
            _ => None,
        }
    }
}

/// How often a template is looked at while others wait for it.
const LOOK: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };

struct Launcher {
    control: Channel,
    outside: OwnedFd,
    signals: OwnedFd,
    /// This very program, for init.
    program: OwnedFd,
    users: UserIds,
    sandboxes: BTreeMap<u64, Running>,
    templates: BTreeMap<u32, TemplateProcess>,
}

impl Launcher {
    fn start(control: OwnedFd, outside: OwnedFd, privileged: bool) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let program = failed("open", "/proc/self/exe", rustix::fs::open("/proc/self/exe", flags, Mode::empty()))?;
        // Out of the way of the numbers that init's descriptors get.
        let program = failed("copy", "/proc/self/exe", rustix::io::fcntl_dupfd_cloexec(&program, 20))?;
        own_root()?;
        raise_descriptor_limit();
        skip_low_process_ids();
        let signals = failed("watch signals of", "the launcher", sys::signal_descriptor(&[libc::SIGCHLD]))?;
        let control = failed("open", "the control channel", Channel::new(control, true))?;
        let users = UserIds::new(privileged);
        let mut launcher = Self { control, outside, signals, program, users, sandboxes: BTreeMap::new(), templates: BTreeMap::new() };
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
            let mut wait = vec![
                PollFd::from_borrowed_fd(self.control.as_fd(), wanted),
                PollFd::from_borrowed_fd(self.outside.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            wait.extend(self.templates.values().map(|template| PollFd::new(&template.socket, PollFlags::IN)));
            // A template that hangs is noticed only by what it does not do.
            let waits = self.sandboxes.values().any(|running| running.waits_for().is_some());
            match rustix::event::poll(&mut wait, waits.then_some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let events: Vec<PollFlags> = wait.iter().map(PollFd::revents).collect();
            let (&[control, outside, signals], templates) = events.split_first_chunk().unwrap_or((&[PollFlags::empty(); 3], &[]));
            if !outside.is_empty() {
                return;
            }
            let talking: Vec<u32> = self.templates.keys().zip(templates).filter(|(_, events)| !events.is_empty()).map(|(number, _)| *number).collect();
            for template in talking {
                self.hear_template(template);
            }
            if !signals.is_empty() {
                self.reap();
            }
            if waits {
                self.end_hanging_templates();
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
            ToLauncher::StartTemplate(start) => self.start_template(&start)?,
            ToLauncher::EndTemplate { template } => {
                if let Some(process) = self.templates.get(&template) {
                    end(process.pid);
                }
            }
            ToLauncher::Fork { sandbox, template } => self.ask_for_worker(sandbox, template, Vec::new()),
            ToLauncher::Kill { sandbox } => {
                if let Some(running) = self.sandboxes.get_mut(&sandbox) {
                    running.killed = running.killed.or_else(|| Some(Instant::now()));
                    end(running.init);
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
        let pair = match spawn.template {
            Some(_) => Some(failed("make a socket for", "the sandbox", datagrams())?),
            None => None,
        };
        let (link, theirs) = pair.unzip();
        let user = self.users.take()?;
        let from = spawn.template.and_then(|template| self.templates.get(&template));
        let ends = Ends { channel, supply: theirs, cgroups };
        match self.clone_init(&spawn, from, user, &ends) {
            Ok(init) => {
                self.sandboxes.insert(spawn.sandbox, Running { init, user, cgroups: spawn.cgroup_paths, link, worker: Worker::None, killed: None });
                // Moving into a group can take the kernel milliseconds: the template forks, and init sets itself up, meanwhile.
                if let Some(template) = spawn.template {
                    self.ask_for_worker(spawn.sandbox, template, ends.cgroups.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>().unwrap_or_default());
                }
                if let Err(failure) = join_cgroups(&ends.cgroups, init.as_raw_nonzero().get()) {
                    let _ = rustix::process::kill_process(init, Signal::KILL);
                    return Err(failure);
                }
                self.say(&FromLauncher::Spawned { sandbox: spawn.sandbox });
                Ok(())
            }
            Err(failure) => {
                self.users.release(user);
                Err(failure)
            }
        }
    }

    /// Clones init into its namespaces, writes its user map and lets it go.
    fn clone_init(&self, spawn: &Spawn, from: Option<&TemplateProcess>, user: u32, ends: &Ends) -> Result<Pid, Failure> {
        let (go, start) = failed("make a pipe for", "the sandbox", rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC))?;
        let stage = crate::root::stage(spawn.root);
        let cloned = match from {
            None => failed("create the namespaces of", "the sandbox", sys::clone_namespaces(NAMESPACES)),
            Some(template) => clone_below(template, user, self.users.privileged()),
        };
        let pid = match cloned? {
            Forked::Child => {
                drop(start);
                become_init(&go, ends, self.program.as_fd(), &stage, self.users.privileged());
            }
            Forked::Parent(pid) => pid,
        };
        drop(go);
        let init = Pid::from_raw(pid).ok_or_else(|| Failure { step: "clone".to_owned(), object: "the sandbox".to_owned(), errno: libc::ESRCH })?;
        let mapped = if from.is_none() { users::map_child(pid, user, self.users.privileged()) } else { Ok(()) };
        let ready = mapped.and_then(|()| failed("start", "the sandbox", rustix::io::write(&start, b"g")).map(drop));
        if let Err(failure) = ready {
            let _ = rustix::process::kill_process(init, Signal::KILL);
            let _ = rustix::process::waitpid(Some(init), WaitOptions::empty());
            return Err(failure);
        }
        Ok(init)
    }

    /// Ends templates that others wait for in vain: what they were asked for is refused, and their workers fall to us.
    fn end_hanging_templates(&self) {
        for running in self.sandboxes.values() {
            if let Some((template, since)) = running.waits_for()
                && since.elapsed() > TEMPLATE_PATIENCE
                && let Some(process) = self.templates.get(&template)
            {
                end(process.pid);
            }
        }
    }

    /// Ends what a template has left behind: processes that its packages started fall to us when it ends.
    fn end_strangers(&self) {
        let own = rustix::process::getpid();
        for process in crate::watchdog::processes().into_iter().filter(|process| process.parent == Some(own) && !process.zombie) {
            let in_sandbox = |running: &Running| running.init == process.pid || matches!(running.worker, Worker::Lives { pid, .. } if pid == process.pid);
            if !self.sandboxes.values().any(in_sandbox) && !self.templates.values().any(|template| template.pid == process.pid) {
                end(process.pid);
            }
        }
    }

    fn start_template(&mut self, start: &StartTemplate) -> Result<(), Failure> {
        let mut cgroups = Vec::new();
        for _ in 0..start.cgroups {
            let missing = || Failure { step: "receive the descriptors of".to_owned(), object: "the template".to_owned(), errno: libc::EBADMSG };
            cgroups.push(self.control.take_descriptor().ok_or_else(missing)?);
        }
        let user = self.users.take()?;
        match crate::template::start(start, user, self.users.privileged(), &cgroups) {
            Ok(process) => {
                self.templates.insert(start.template, process);
                self.say(&FromLauncher::TemplateStarted { template: start.template });
                Ok(())
            }
            Err(failure) => {
                self.users.release(user);
                Err(failure)
            }
        }
    }

    /// Asks a template to fork a worker for a sandbox. Where it cannot, init is told.
    fn ask_for_worker(&mut self, sandbox: u64, template: u32, cgroups: Vec<OwnedFd>) {
        let asked = (|| {
            let process = self.templates.get(&template).ok_or("the template has ended")?;
            let running = self.sandboxes.get_mut(&sandbox).ok_or("the sandbox has ended")?;
            if running.link.is_none() || !matches!(running.worker, Worker::None) {
                return Err("the sandbox has a worker".to_owned());
            }
            let cgroups = if cgroups.is_empty() { open_cgroups(&running.cgroups).map_err(|error| error.to_string())? } else { cgroups };
            let namespace = format!("/proc/{}/ns/pid", running.init.as_raw_nonzero());
            let namespace = rustix::fs::open(namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| error.to_string())?;
            let flags = rustix::net::SocketFlags::CLOEXEC;
            let pair = rustix::net::socketpair(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, flags, None);
            let (channel, theirs) = pair.map_err(|error| error.to_string())?;
            process.ask(sandbox, namespace.as_fd(), theirs.as_fd()).map_err(|error| error.to_string())?;
            running.worker = Worker::Asked { template, since: Instant::now(), channel, cgroups };
            Ok(())
        })();
        if let Err(reason) = asked {
            self.refuse_worker(sandbox, template, reason);
        }
    }

    /// Tells init and belljar that no worker comes.
    fn refuse_worker(&mut self, sandbox: u64, template: u32, reason: String) {
        let Some(running) = self.sandboxes.get_mut(&sandbox) else { return };
        // One that has a worker keeps it.
        if !matches!(running.worker, Worker::Lives { .. }) {
            running.worker = Worker::None;
            supply(running, &Supply::Refused, &[]);
        }
        self.say(&FromLauncher::ForkRefused { sandbox, template, reason });
    }

    /// Serves what a template says. One that breaks the form is ended.
    fn hear_template(&mut self, number: u32) {
        // Not all at once: one that never stops talking must not keep the others waiting.
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(process) = self.templates.get(&number) else { return };
            let pid = process.pid;
            let datagram = match process.receive() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return,
                Err(_) => return end(pid),
            };
            match template::parse(&datagram) {
                Some(FromTemplate::Says { kind, text }) => self.say(&FromLauncher::TemplateSays { template: number, kind, text: text.to_vec() }),
                Some(FromTemplate::Forked { sandbox, process }) => self.worker_forked(sandbox, number, pid, process),
                Some(FromTemplate::Refused { sandbox, reason }) => {
                    let asked = |running: &Running| matches!(running.worker, Worker::Asked { template, .. } if template == number);
                    if self.sandboxes.get(&sandbox).is_some_and(asked) {
                        self.refuse_worker(sandbox, number, String::from_utf8_lossy(reason).into_owned());
                    }
                }
                Some(FromTemplate::Ended { process, exit }) => self.worker_ended(process, exit, Some(number)),
                None => return end(pid),
            }
        }
    }

    /// A template says that it forked: the worker joins the sandbox's cgroups, and init gets its channel.
    fn worker_forked(&mut self, sandbox: u64, number: u32, template: Pid, process: i32) {
        // The sandbox may have ended meanwhile, and its worker with it.
        let Some(running) = self.sandboxes.get_mut(&sandbox) else { return };
        if !matches!(running.worker, Worker::Asked { template, .. } if template == number) {
            return;
        }
        let Worker::Asked { channel, cgroups, .. } = std::mem::replace(&mut running.worker, Worker::None) else { return };
        // What a template says is checked: only a child of its own goes into the sandbox's groups.
        let pid = crate::watchdog::one_process(process).filter(|pid| is_child(*pid, template));
        let joined = pid.ok_or_else(|| "it is no child of the template".to_owned()).and_then(|pid| match join_cgroups(&cgroups, process) {
            Ok(()) => Ok(pid),
            Err(failure) => Err(failure.to_string()),
        });
        match joined {
            Ok(pid) => {
                running.worker = Worker::Lives { template: number, pid };
                supply(running, &Supply::Worker, &[channel.as_fd()]);
            }
            Err(reason) => self.refuse_worker(sandbox, number, reason),
        }
    }

    /// A forked worker ended: its template says so, or, after the template's own end, the kernel (`None`).
    fn worker_ended(&mut self, process: i32, exit: Exit, said_by: Option<u32>) {
        let owned = |running: &&mut Running| match running.worker {
            Worker::Lives { template, pid } => pid.as_raw_nonzero().get() == process && said_by.is_none_or(|number| number == template),
            _ => false,
        };
        if let Some(running) = self.sandboxes.values_mut().find(owned) {
            running.worker = Worker::None;
            supply(running, &Supply::Ended(exit), &[]);
        }
    }

    fn template_ended(&mut self, number: u32, exit: Exit) {
        let Some(process) = self.templates.remove(&number) else { return };
        // What it said last of itself still counts: why it could not go on.
        for _ in 0..DATAGRAMS_PER_TURN {
            let Ok(Some(datagram)) = process.receive() else { break };
            if let Some(FromTemplate::Says { kind, text }) = template::parse(&datagram) {
                self.say(&FromLauncher::TemplateSays { template: number, kind, text: text.to_vec() });
            }
        }
        self.end_strangers();
        self.users.release(process.user);
        self.say(&FromLauncher::TemplateEnded { template: number, exit });
        let asked = |running: &Running| matches!(running.worker, Worker::Asked { template, .. } if template == number);
        let waiting: Vec<u64> = self.sandboxes.iter().filter(|(_, running)| asked(running)).map(|(sandbox, _)| *sandbox).collect();
        for sandbox in waiting {
            self.refuse_worker(sandbox, number, "the template has ended".to_owned());
        }
    }

    /// Collects ended inits and templates and reports them; orphans of the outer namespace are collected on the way.
    fn reap(&mut self) {
        let mut drain = [0_u8; 128];
        while rustix::io::read(&self.signals, &mut drain).is_ok_and(|count| count > 0) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let exit = exit_of(status);
            let ended = self.sandboxes.iter().find(|(_, running)| running.init == pid).map(|(number, _)| *number);
            let template = self.templates.iter().find(|(_, process)| process.pid == pid).map(|(number, _)| *number);
            if let Some(sandbox) = ended {
                if let Some(running) = self.sandboxes.remove(&sandbox) {
                    self.users.release(running.user);
                }
                self.say(&FromLauncher::Exited { sandbox, exit });
            } else if let Some(number) = template {
                self.template_ended(number, exit);
            } else {
                self.worker_ended(pid.as_raw_nonzero().get(), exit, None);
            }
        }
    }

    /// The last act: end what runs and remove its cgroups, which nobody else will.
    fn leave(&mut self) {
        let sandboxes = std::mem::take(&mut self.sandboxes);
        // A sandbox is gone when its workers have been collected, so who forked them must not stand in the way.
        let templates = std::mem::take(&mut self.templates);
        for template in templates.values() {
            end(template.pid);
        }
        for running in sandboxes.values() {
            let _ = rustix::process::kill_process(running.init, Signal::KILL);
            thaw(&running.cgroups);
        }
        while rustix::process::wait(WaitOptions::empty()).is_ok() {}
        let cgroups = sandboxes.values().map(|running| &running.cgroups).chain(templates.values().map(|template| &template.cgroups));
        for path in cgroups.flatten() {
            let _ = rustix::fs::rmdir(format!("{HOST}{path}"));
            // Belljar's own folder above goes with the last of them; it is not empty before.
            if let Some((folder, _)) = path.rsplit_once('/') {
                let _ = rustix::fs::rmdir(format!("{HOST}{folder}"));
            }
        }
    }
}

/// Datagrams of a template served in one turn.
const DATAGRAMS_PER_TURN: usize = 16;
/// How long a template may take to fork, or to collect the worker of a sandbox that was killed, before it counts as hanging.
const TEMPLATE_PATIENCE: Duration = Duration::from_secs(5);

/// Namespaces of a sandbox.
const NAMESPACES: i32 = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Clones below a template's user namespace; the clone is our own child. A helper does it: who enters that namespace cannot come back.
fn clone_below(template: &TemplateProcess, user: u32, privileged: bool) -> Result<Forked, Failure> {
    const OBJECT: &str = "a sandbox of the template";
    let (told, tell) = failed("make a pipe for", OBJECT, rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC))?;
    match failed("fork for", OBJECT, sys::fork())? {
        Forked::Child => {
            let cloned = (|| {
                failed("enter", "the template's user namespace", sys::enter_namespace(template.namespace.as_fd(), libc::CLONE_NEWUSER))?;
                if privileged {
                    // The owner of the namespace to be: the sandbox's own user, whom nobody else has.
                    failed("become", "the sandbox's user", users::become_user(user, privileged))?;
                }
                // Or the map of the clone would belong to root.
                failed("set", "dumpable", rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable))?;
                match failed("create the namespaces of", OBJECT, sys::clone_namespaces(NAMESPACES | libc::CLONE_PARENT))? {
                    Forked::Child => Ok(None),
                    Forked::Parent(pid) => match users::map_child(pid, user, privileged) {
                        Ok(()) => Ok(Some(pid)),
                        Err(failure) => {
                            let _ = Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
                            Err(failure)
                        }
                    },
                }
            })();
            let result: Result<i32, Failure> = match cloned {
                Ok(None) => return Ok(Forked::Child),
                Ok(Some(pid)) => Ok(pid),
                Err(failure) => Err(failure),
            };
            let _ = message::encode(&result).map(|frame| rustix::io::write(&tell, &frame));
            sys::exit_now(0)
        }
        Forked::Parent(helper) => {
            drop(tell);
            let mut frame = [0_u8; 1024];
            let count = rustix::io::read(&told, &mut frame).unwrap_or_default();
            let _ = Pid::from_raw(helper).map(|helper| rustix::process::waitpid(Some(helper), WaitOptions::empty()));
            let payload = frame.get(protocol::frame::HEADER_BYTES..count).unwrap_or_default();
            let lost = || Failure { step: "clone".to_owned(), object: OBJECT.to_owned(), errno: libc::ESRCH };
            message::decode::<Result<i32, Failure>>(message::MESSAGE_KIND, payload).map_err(|_| lost())?.map(Forked::Parent)
        }
    }
}

fn end(process: Pid) {
    let _ = rustix::process::kill_process(process, Signal::KILL);
}

/// Two ends of a connection of datagrams.
fn datagrams() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET, flags, None)?)
}

/// Tells init of its worker. One that does not listen any more is on its way out.
fn supply(running: &Running, message: &Supply, descriptors: &[BorrowedFd<'_>]) {
    if let (Some(link), Ok(frame)) = (&running.link, message::encode(message)) {
        let _ = send_datagram(link.as_fd(), &frame, descriptors);
    }
}

/// Whether a process is a child of another.
fn is_child(pid: Pid, parent: Pid) -> bool {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    crate::watchdog::parse_stat(&stat).is_some_and(|process| process.parent == Some(parent))
}

/// Opens what a process has to be written into to join these cgroups.
fn open_cgroups(paths: &[String]) -> io::Result<Vec<OwnedFd>> {
    let open = |path: &String| Ok(rustix::fs::open(format!("{HOST}{path}/cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?);
    paths.iter().map(open).collect()
}

/// Each sandbox of a template holds a descriptor here for its whole life.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

/// Templates must not have the process id that a worker has inside its sandbox, where ids begin at 1: libraries that notice a fork
/// by a changed id, OpenSSL's generator among them, would not notice it.
fn skip_low_process_ids() {
    let _ = std::fs::write("/proc/sys/kernel/ns_last_pid", "10000");
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

pub(crate) fn join_cgroups(cgroups: &[OwnedFd], pid: i32) -> Result<(), Failure> {
    for cgroup in cgroups {
        failed("move into the cgroup", "the sandbox", rustix::io::write(cgroup, pid.to_string().as_bytes()))?;
    }
    Ok(())
}

/// What a sandbox is started with: init's ends of its connections, and the groups to join.
struct Ends {
    channel: OwnedFd,
    supply: Option<OwnedFd>,
    cgroups: Vec<OwnedFd>,
}

/// The new process, before it is init: waits for its map, takes its user, and becomes the program of init.
fn become_init(go: &OwnedFd, ends: &Ends, program: BorrowedFd<'_>, stage: &str, privileged: bool) -> ! {
    let mut byte = [0_u8; 1];
    if rustix::io::read(go, &mut byte) == Ok(1) {
        let _ = prepare_exec(ends, privileged).and_then(|()| {
            let arguments = [c"belljar-init".to_owned(), c"init".to_owned(), std::ffi::CString::new(stage)?];
            Err::<(), _>(sys::execveat(program, &arguments, &[]))
        });
    }
    sys::exit_now(4)
}

fn prepare_exec(ends: &Ends, privileged: bool) -> io::Result<()> {
    let _ = rustix::process::setsid();
    let _ = sys::join_session_keyring();
    users::become_inside(privileged)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Copies first: what is copied to may be where the other one stands.
    let channel = rustix::io::fcntl_dupfd_cloexec(&ends.channel, 10)?;
    let supply = ends.supply.as_ref().map(|supply| rustix::io::fcntl_dupfd_cloexec(supply, 10)).transpose()?;
    let null = rustix::fs::open("/host/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::dup2(null.as_fd(), 0)?;
    sys::dup2(null.as_fd(), 1)?;
    sys::dup2(null.as_fd(), 2)?;
    sys::reset_signals();
    sys::close_range(crate::init::HOST_CHANNEL, i32::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default())?;
    sys::dup2(channel.as_fd(), crate::init::HOST_CHANNEL)?;
    supply.map_or(Ok(()), |supply| sys::dup2(supply.as_fd(), crate::init::SUPPLY))
}

/// Detaches the old root after a pivot of `.` onto itself.
pub(crate) fn detach_old_root() -> io::Result<()> {
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}
