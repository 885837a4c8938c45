//! Init: the first process of a sandbox. Sets the sandbox up, gives its rights away, then supervises.
//!
//! The order is the one SECURITY.md explains: nested namespaces off, private mounts, new root, the workspace's descriptor to the
//! host, limits, capabilities, no new privileges, not dumpable, seccomp. No byte from inside has been read before all of it is on.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use protocol::message::{self, Configuration, Failure, FromInit, InitReady, Tmpfs, ToInit};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

use crate::channel::{Channel, Read};
use crate::confine;
use crate::launcher::{detach_old_root, failed};
use crate::sys;

/// The descriptor of the channel to the host.
pub(crate) const HOST_CHANNEL: i32 = 3;
/// The descriptor on which the launcher hands workers over, where they come from a template.
pub(crate) const SUPPLY: i32 = 4;
/// The workspace inside.
pub const WORKSPACE: &str = "/mnt/data";

/// Where forked workers come from.
pub(crate) struct Supply {
    /// What the launcher says.
    pub(crate) link: OwnedFd,
    /// The namespaces a worker has to enter, the user namespace first.
    pub(crate) namespaces: Vec<OwnedFd>,
}

/// Runs init on the root at `stage` until the host closes its channel.
#[must_use]
pub fn main(stage: &str) -> ExitCode {
    let Ok(mut host) = Channel::new(sys::inherited(HOST_CHANNEL), false) else { return ExitCode::from(4) };
    let Some(ToInit::Configure(configuration)) = receive(&mut host) else { return ExitCode::from(4) };
    let configuration = *configuration;
    match set_up(stage, &configuration, &mut host) {
        Ok(namespaces) => {
            let supply = configuration.forked.then(|| Supply { link: sys::inherited(SUPPLY), namespaces });
            crate::supervise::run(host, configuration, supply);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if let Ok(frame) = message::encode(&FromInit::Failed(failure)) {
                host.queue(&frame);
                let _ = host.flush_all();
            }
            ExitCode::from(4)
        }
    }
}

/// Waits for the next message; `None` when the host is gone or talks nonsense.
fn receive(host: &mut Channel) -> Option<ToInit> {
    loop {
        if let Some((kind, payload)) = host.next_frame().ok()? {
            return message::decode(kind, &payload).ok();
        }
        let mut wait = [rustix::event::PollFd::new(host, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, None);
        if host.read().ok()? == Read::Closed {
            return None;
        }
    }
}

/// Builds the sandbox around this process, and tells the host when every layer is on. Gives the namespaces that a forked worker enters.
fn set_up(stage: &str, configuration: &Configuration, host: &mut Channel) -> Result<Vec<OwnedFd>, Failure> {
    // The limit is that of our own user namespace: nothing below can make another one.
    failed("forbid", "nested user namespaces", std::fs::write("/proc/sys/user/max_user_namespaces", "0"))?;
    enter_root(stage, &configuration.tmpfs, &configuration.rebinds, || {
        // Before the old root goes: the kernel gives a new proc only while a complete one is in sight.
        // Not `hidepid`: a process that is not dumpable would be hidden from init too, and outlive its sweep.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        failed("mount proc on", "/proc", rustix::mount::mount("proc", "./proc", "proc", flags, c"subset=pid"))
    })?;
    own_streams()?;
    failed("name", "the sandbox", rustix::system::sethostname(configuration.hostname.as_bytes()))?;
    let workspace = rustix::fs::open(WORKSPACE, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let workspace = failed("open", WORKSPACE, workspace)?;
    // Until here, the launcher may still be at moving this process into its control groups, which takes the kernel milliseconds.
    if receive(host) != Some(ToInit::Attached) {
        return Err(Failure { step: "wait for".to_owned(), object: "the control groups".to_owned(), errno: libc::EPIPE });
    }
    // Only now, so that its root is the sandbox's own group.
    failed("create", "a cgroup namespace", sys::unshare(libc::CLONE_NEWCGROUP))?;
    // Descriptors are limited for who runs code, not here: the kernel takes this limit also for the most that all processes of a user may
    // have on their way, so that a small one would have ours refused while other sandboxes of the user start.
    for (resource, value) in configuration.limits.resources().into_iter().filter(|(resource, _)| *resource != sys::LIMIT_FILES) {
        set_limit(resource, value)?;
    }
    let namespaces = if configuration.forked { own_namespaces()? } else { Vec::new() };
    failed("set", "oom_score_adj", std::fs::write("/proc/self/oom_score_adj", "0"))?;
    confine::drop_rights()?;
    if !configuration.confinement.without_seccomp {
        failed("install", "init's filter", sys::set_seccomp_filter(&configuration.confinement.init_filter))?;
    }
    let landlock_abi = if configuration.confinement.without_landlock { 0 } else { confine::landlock_abi() };
    let ready = message::encode(&FromInit::Ready(InitReady { landlock_abi }));
    let ready = ready.map_err(|_| Failure { step: "report".to_owned(), object: "ready".to_owned(), errno: 0 })?;
    failed("send", "the workspace", host.send_with_descriptors(&ready, &[workspace.as_fd()]))?;
    failed("send", "the workspace", host.flush_all())?;
    Ok(namespaces)
}

/// The namespaces of this process, the user namespace first: who enters it may enter the others.
fn own_namespaces() -> Result<Vec<OwnedFd>, Failure> {
    let open = |name: &str| {
        let path = format!("/proc/self/ns/{name}");
        failed("open", &path, rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
    };
    ["user", "mnt", "net", "ipc", "uts", "cgroup"].into_iter().map(open).collect()
}

/// Mounts what is private on top of the stage, and makes it the root.
pub(crate) fn enter_root(
    stage: &str,
    private: &[Tmpfs],
    rebinds: &[(String, String)],
    mount_proc: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    failed("bind", stage, rustix::mount::mount_bind_recursive(stage, stage))?;
    failed("enter", stage, rustix::process::chdir(stage))?;
    for tmpfs in private {
        mount_tmpfs(tmpfs)?;
    }
    for (from, to) in rebinds {
        failed("bind", to, rustix::mount::mount_bind(format!(".{from}"), format!(".{to}")))?;
    }
    mount_proc()?;
    failed("pivot to", stage, rustix::process::pivot_root(".", "."))?;
    failed("detach", "the old root", detach_old_root())
}

/// Standard input and output become the sandbox's own null device: those we came with were opened through the host's mounts.
pub(crate) fn own_streams() -> Result<(), Failure> {
    let null = failed("open", "/dev/null", rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))?;
    for stream in 0..3 {
        failed("replace", "a standard stream", sys::dup2(null.as_fd(), stream))?;
    }
    Ok(())
}

fn mount_tmpfs(tmpfs: &Tmpfs) -> Result<(), Failure> {
    let target = format!(".{}", tmpfs.target);
    let options = format!("size={},nr_inodes={},mode={:o}", tmpfs.bytes, tmpfs.inodes, tmpfs.mode);
    let options = failed("name", &tmpfs.target, std::ffi::CString::new(options))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    failed("mount tmpfs on", &tmpfs.target, rustix::mount::mount("tmpfs", &target, "tmpfs", flags, options.as_c_str()))?;
    for directory in &tmpfs.directories {
        let path = format!("{target}/{directory}");
        failed("create", &path, std::fs::create_dir_all(&path))?;
    }
    for (link, to) in &tmpfs.links {
        failed("link", link, std::os::unix::fs::symlink(to, format!("{target}/{link}")))?;
    }
    Ok(())
}

/// Sets both the soft and the hard limit of a resource, by its number.
pub(crate) fn set_limit(resource: u32, value: u64) -> Result<(), Failure> {
    failed("set the limit", &resource.to_string(), sys::set_limit(resource, value))
}
