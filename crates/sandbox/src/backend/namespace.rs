//! The `namespace` backend: Linux namespaces, a root of its own, Landlock, seccomp and control groups, around a shared kernel.

use std::collections::HashMap;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::FrameReader;
use protocol::message::{self, Exit, FromInit, FromLauncher, InitReady, Spawn, ToInit, ToLauncher};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{Backend, Controls, Error, Lifeline, Preload, Remote, Sandbox, SpawnOptions, Template, TemplateId, TemplateProcess, Usage, WorkerStart};
use crate::cgroup::{Cgroups, Group, Version};
use crate::launcher::Launcher;
use crate::limits::Limits;
use crate::seccomp::{self, Arch};
use crate::workspace::Workspace;

mod configuration;
mod root;

/// How long a sandbox may take to set itself up.
const SETUP_PATIENCE: Duration = Duration::from_secs(20);

/// The filters, compiled once.
struct Filters {
    init: Vec<u8>,
    process: Vec<u8>,
    worker: Vec<u8>,
    spawning_worker: Vec<u8>,
    template: Vec<u8>,
}

struct Namespace {
    /// The launcher that serves now. One that was killed is replaced by the next request.
    launcher: Mutex<Arc<Launcher>>,
    /// Removed when their template has ended: after the launcher, before the folder they lie in.
    template_groups: Mutex<HashMap<TemplateProcess, Group>>,
    cgroups: Arc<Cgroups>,
    controls: Controls,
    filters: Filters,
    templates: Mutex<HashMap<TemplateId, Template>>,
    next_template: AtomicU32,
    next_process: AtomicU32,
    next_sandbox: AtomicU64,
}

/// Starts the launcher.
///
/// # Errors
/// The step that this host refuses.
pub fn start(controls: Controls) -> Result<Arc<dyn Backend>, Error> {
    let arch = Arch::native();
    let filters = Filters {
        init: seccomp::init(arch)?.bytes(),
        process: seccomp::process(arch)?.bytes(),
        worker: seccomp::worker(arch, false)?.bytes(),
        spawning_worker: seccomp::worker(arch, true)?.bytes(),
        template: seccomp::template(arch)?.bytes(),
    };
    let cgroups = if controls.cgroups { Cgroups::detect() } else { Cgroups::none("switched off") };
    Ok(Arc::new(Namespace {
        launcher: Mutex::new(Arc::new(Launcher::start()?)),
        cgroups: Arc::new(cgroups),
        controls,
        filters,
        templates: Mutex::default(),
        template_groups: Mutex::default(),
        next_template: AtomicU32::new(1),
        next_process: AtomicU32::new(1),
        next_sandbox: AtomicU64::new(1),
    }))
}

impl Backend for Namespace {
    fn prepare(&self, template: &Template) -> Result<TemplateId, Error> {
        let id = TemplateId(self.next_template.fetch_add(1, Ordering::Relaxed));
        prepare(&*self.launcher()?, id, template)?;
        self.templates.lock().unwrap_or_else(PoisonError::into_inner).insert(id, template.clone());
        Ok(id)
    }

    fn start_process(&self, id: TemplateId, preload: &Preload) -> Result<(TemplateProcess, Vec<u8>), Error> {
        let template = self.template(id)?;
        let process = TemplateProcess(self.next_process.fetch_add(1, Ordering::Relaxed));
        let mut start = self.template_start(&template, id, process, preload);
        let limits = template_limits(preload);
        let number = self.next_sandbox.fetch_add(1, Ordering::Relaxed);
        let group = self.cgroups.create(number, &limits).map_err(|error| Error::start("create", "the template's cgroup", &error))?;
        let processes = match &group {
            Some(group) => group.open_processes().map_err(|error| Error::start("open", "the template's cgroup", &error))?,
            None => Vec::new(),
        };
        start.cgroups = u8::try_from(processes.len()).unwrap_or(u8::MAX);
        start.cgroup_paths = group.as_ref().map(Group::paths).unwrap_or_default();
        let descriptors: Vec<_> = processes.iter().map(AsFd::as_fd).collect();
        let launcher = self.launcher()?;
        launcher.start_template(start, &descriptors)?;
        match launcher.template_ready(process.0, preload.patience) {
            Ok(report) => {
                if let Some(group) = group {
                    self.template_groups.lock().unwrap_or_else(PoisonError::into_inner).insert(process, group);
                }
                Ok((process, report))
            }
            Err(error) => {
                launcher.end_template(process.0);
                Err(error)
            }
        }
    }

    fn is_alive(&self, process: TemplateProcess) -> bool {
        self.current().template_lives(process.0)
    }

    fn end_process(&self, process: TemplateProcess) {
        self.current().end_template(process.0);
        self.template_groups.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
    }

    fn spawn(&self, id: TemplateId, options: &SpawnOptions) -> Result<Box<dyn Sandbox>, Error> {
        let template = self.template(id)?;
        let number = self.next_sandbox.fetch_add(1, Ordering::Relaxed);
        let group = self.cgroups.create(number, &options.limits).map_err(|error| Error::start("create", "the sandbox's cgroup", &error))?;
        let processes = match &group {
            Some(group) => group.open_processes().map_err(|error| Error::start("open", "the sandbox's cgroup", &error))?,
            None => Vec::new(),
        };
        if let (Some(group), true) = (&group, options.background) {
            group.set_background(true).map_err(|error| Error::start("change the weight of", "the sandbox's cgroup", &error))?;
        }
        let (socket, theirs) = UnixStream::pair().map_err(|error| Error::start("create", "a socket pair", &error))?;
        let spawn = Spawn {
            sandbox: number,
            root: id.0,
            cgroups: u8::try_from(processes.len()).unwrap_or(u8::MAX),
            cgroup_paths: group.as_ref().map(Group::paths).unwrap_or_default(),
            template: match options.worker {
                WorkerStart::Fork(process) => Some(process.0),
                WorkerStart::None | WorkerStart::Exec => None,
            },
        };
        let remote = Remote::new(socket.try_clone().map_err(|error| Error::start("copy", "a socket", &error))?)?;
        remote.send(&ToInit::Configure(Box::new(self.configuration(&template, options, group.is_some()))))?;
        let descriptors: Vec<_> = std::iter::once(theirs.as_fd()).chain(processes.iter().map(AsFd::as_fd)).collect();
        let launcher = self.launcher()?;
        match launcher.ask(&ToLauncher::Spawn(spawn), &descriptors)? {
            FromLauncher::Spawned { sandbox } if sandbox == number => {}
            other => return Err(Error::Unexpected(format!("{other:?}"))),
        }
        // Init alone holds its end now, so its death closes the channel.
        drop(descriptors);
        drop((processes, theirs));
        let watched = Watched { number, launcher, ended: false, group, _cgroups: Arc::clone(&self.cgroups) };
        remote.send(&ToInit::Attached)?;
        let mut inbox = Inbox { socket, reader: FrameReader::default() };
        let (ready, workspace) = inbox.receive_ready()?;
        let forked = matches!(options.worker, WorkerStart::Fork(_));
        Ok(Box::new(Running {
            watched,
            remote,
            inbox,
            ready,
            workspace: Arc::new(Workspace::new(workspace)),
            limits: options.limits,
            cpu_total: options.cpu_total(),
            forked,
            background: options.background,
        }))
    }

    fn name(&self) -> &'static str {
        "namespace"
    }

    fn own_users(&self) -> bool {
        self.current().ready().privileged
    }

    fn cgroups(&self) -> &Version {
        self.cgroups.version()
    }
}

/// What a template's process may use, where a control group holds it. Its workers leave the group before they run anything.
fn template_limits(preload: &Preload) -> Limits {
    Limits { memory_bytes: preload.memory_bytes, processes: 64, cpus: 64.0, ..Limits::default() }
}

/// Has a launcher make the root of a template.
fn prepare(launcher: &Launcher, id: TemplateId, template: &Template) -> Result<(), Error> {
    match launcher.ask(&ToLauncher::Prepare(root::of(id.0, template)?), &[])? {
        FromLauncher::Prepared { root } if root == id.0 => Ok(()),
        other => Err(Error::Unexpected(format!("{other:?}"))),
    }
}

impl Namespace {
    /// The launcher, be it gone or not.
    fn current(&self) -> Arc<Launcher> {
        Arc::clone(&self.launcher.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A launcher that is there: where the last one is gone, and all its sandboxes with it, another one that knows the same templates.
    fn launcher(&self) -> Result<Arc<Launcher>, Error> {
        let mut current = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_gone() {
            let fresh = Launcher::start()?;
            for (id, template) in self.templates.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                prepare(&fresh, *id, template)?;
            }
            *current = Arc::new(fresh);
        }
        Ok(Arc::clone(&current))
    }

    fn template(&self, id: TemplateId) -> Result<Template, Error> {
        let template = self.templates.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        template.ok_or_else(|| Error::Unexpected(format!("template {} is not prepared", id.0)))
    }
}

/// The host's end of init's channel.
struct Inbox {
    socket: UnixStream,
    reader: FrameReader,
}

impl Inbox {
    /// The first message, the only one with a descriptor: the workspace.
    fn receive_ready(&mut self) -> Result<(InitReady, OwnedFd), Error> {
        let deadline = Instant::now() + SETUP_PATIENCE;
        let mut workspace = None;
        loop {
            if let Some((kind, payload)) = self.reader.next_frame().map_err(|_| Error::Gone)? {
                return match (message::decode(kind, &payload), workspace) {
                    (Ok(FromInit::Ready(ready)), Some(workspace)) => Ok((ready, workspace)),
                    (Ok(FromInit::Failed(failure)), _) => Err(Error::Step(failure)),
                    _ => Err(Error::Unexpected("init did not begin with its set-up".to_owned())),
                };
            }
            self.wait_until(deadline)?;
            let mut buffer = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
            let count = received.map_err(|_| Error::Gone)?.bytes;
            if count == 0 {
                return Err(Error::Gone);
            }
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut descriptors) = part {
                    workspace = descriptors.next();
                }
            }
            self.reader.push(buffer.get(..count).unwrap_or_default());
        }
    }

    fn wait_until(&self, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).map_err(|_| Error::Gone)
    }

    /// The next message, read without a control buffer: descriptors sent here are dropped by the kernel.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<FromInit>, Error> {
        loop {
            if let Some((kind, payload)) = self.reader.next_frame().map_err(|_| Error::Gone)? {
                return message::decode(kind, &payload).map(Some).map_err(|_| Error::Gone);
            }
            match deadline {
                Some(deadline) if Instant::now() >= deadline => return Ok(None),
                Some(deadline) => self.wait_until(deadline)?,
                None => self.socket.set_read_timeout(None).map_err(|_| Error::Gone)?,
            }
            let mut buffer = [0; 64 * 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Error::Gone),
                Ok(count) => self.reader.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted) => {}
                Err(_) => return Err(Error::Gone),
            }
        }
    }
}

/// Ends the sandbox when dropped, then removes its control group.
struct Watched {
    number: u64,
    launcher: Arc<Launcher>,
    ended: bool,
    group: Option<Group>,
    _cgroups: Arc<Cgroups>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            self.launcher.kill(self.number);
            let _ = self.launcher.wait(self.number, Duration::from_secs(10));
        }
    }
}

struct Running {
    watched: Watched,
    remote: Remote,
    inbox: Inbox,
    ready: InitReady,
    workspace: Arc<Workspace>,
    limits: Limits,
    cpu_total: u64,
    forked: bool,
    background: bool,
}

struct Line {
    launcher: Arc<Launcher>,
    number: u64,
}

impl Lifeline for Line {
    fn kill(&self) {
        self.launcher.kill(self.number);
    }

    fn has_ended(&self) -> bool {
        self.launcher.has_ended(self.number)
    }
}

impl Sandbox for Running {
    fn ready(&self) -> InitReady {
        self.ready
    }

    fn remote(&self) -> Remote {
        self.remote.clone()
    }

    fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<FromInit>, Error> {
        self.inbox.receive(deadline)
    }

    fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }

    fn lifeline(&self) -> Arc<dyn Lifeline> {
        Arc::new(Line { launcher: Arc::clone(&self.watched.launcher), number: self.watched.number })
    }

    fn freeze(&self, frozen: bool) -> bool {
        self.watched.group.as_ref().is_some_and(|group| group.freeze(frozen))
    }

    fn kill(&self) {
        self.watched.launcher.kill(self.watched.number);
    }

    fn has_ended(&self) -> bool {
        self.watched.launcher.has_ended(self.watched.number)
    }

    fn adjust(&mut self, limits: &Limits) -> Result<bool, Error> {
        let changed = self.change_limits(limits)?;
        if changed
            && std::mem::take(&mut self.background)
            && let Some(group) = &self.watched.group
        {
            group.set_background(false).map_err(|error| Error::start("change the weight of", "the sandbox's cgroup", &error))?;
        }
        Ok(changed)
    }

    fn wait(&mut self, patience: Duration) -> Option<Exit> {
        let exit = self.watched.launcher.wait(self.watched.number, patience);
        self.watched.ended |= exit.is_some();
        exit
    }

    fn replace_worker(&self, process: TemplateProcess) -> Result<(), Error> {
        self.watched.launcher.fork(self.watched.number, process.0)
    }

    fn is_forked(&self) -> bool {
        self.forked && self.refusal().is_none()
    }

    fn refusal(&self) -> Option<String> {
        self.watched.launcher.refusal(self.watched.number)
    }

    fn usage(&self) -> Usage {
        Usage { counters: self.watched.group.as_ref().map(Group::counters) }
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.watched.group.as_ref().and_then(Group::memory_bytes)
    }
}

impl Running {
    /// Changes limits where that can be done.
    fn change_limits(&mut self, limits: &Limits) -> Result<bool, Error> {
        let now = self.limits;
        // Wall clock and output are the host's to hold. What was fixed when the sandbox was set up stays as it is.
        let fixed = Limits { wall_seconds: now.wall_seconds, output_bytes: now.output_bytes, ..*limits };
        if fixed == now {
            self.limits = *limits;
            return Ok(true);
        }
        let by_group = Limits { memory_bytes: now.memory_bytes, cpus: now.cpus, cpu_seconds: now.cpu_seconds, processes: now.processes, ..fixed };
        // Each process inherited its CPU time and the number of processes as a hard limit.
        let lowered = limits.cpu_seconds.saturating_add(5) <= self.cpu_total && limits.processes <= now.processes;
        let Some(group) = self.watched.group.as_ref().filter(|_| by_group == now && lowered) else { return Ok(false) };
        group.set_limits(limits).map_err(|error| Error::start("change the limits of", "the sandbox's cgroup", &error))?;
        if limits.cpu_seconds != now.cpu_seconds {
            self.remote.send(&ToInit::LimitCpu { seconds: limits.cpu_seconds })?;
        }
        self.limits = *limits;
        Ok(true)
    }
}
