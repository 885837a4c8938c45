//! Runs one shell command under a subreaper of its own, so that everything the command leaves behind is found and ended.
//!
//! The runner is a fork of init: not dumpable, outside the command's Landlock domain. It answers to two signals of init: SIGINT is
//! passed on to the command's process group, SIGTERM ends the command at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::message::{Configuration, Exit};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::confine::{self, Domain};
use crate::launcher::exit_of;
use crate::sys::{self, Forked};

/// A running runner, as init sees it.
pub(crate) struct Runner {
    /// Its process.
    pub(crate) pid: Pid,
    /// Where it writes how the command ended.
    pub(crate) report: OwnedFd,
}

/// Bytes of a report: 0 and a code, or 1 and a signal, as little-endian `i32`.
const REPORT_BYTES: usize = 8;

/// Starts a command with the given standard output and error.
pub(crate) fn start(configuration: &Configuration, command: &[u8], stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> io::Result<Runner> {
    let mut arguments = Vec::new();
    for argument in &configuration.shell {
        arguments.push(CString::new(argument.as_str())?);
    }
    arguments.push(CString::new(command)?);
    let program = arguments.first().cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOEXEC))?;
    let environment = environment(&configuration.environment)?;
    let (report, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::fork()? {
        Forked::Parent(pid) => {
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            rustix::io::ioctl_fionbio(&report, true)?;
            Ok(Runner { pid, report })
        }
        Forked::Child => {
            let exit = run(configuration, &Exec { program, arguments, environment }, stdout, stderr);
            let _ = rustix::io::write(&write, &encode(exit.unwrap_or(Exit::Code(126))));
            sys::exit_now(0)
        }
    }
}

/// The environment as exec wants it.
pub(crate) fn environment(variables: &[(String, String)]) -> io::Result<Vec<CString>> {
    variables.iter().map(|(name, value)| CString::new(format!("{name}={value}")).map_err(io::Error::from)).collect()
}

/// What a process becomes.
pub(crate) struct Exec {
    pub(crate) program: CString,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
}

/// The runner's whole life: starts the command, waits, ends what is left.
fn run(configuration: &Configuration, exec: &Exec, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> io::Result<Exit> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let signals = sys::signal_descriptor(&[libc::SIGCHLD, libc::SIGINT, libc::SIGTERM])?;
    // The channel to the host stays with init.
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    sys::dup2(null.as_fd(), crate::init::HOST_CHANNEL)?;
    let (failed, failure) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let command = match sys::fork()? {
        Forked::Child => {
            let error = become_command(configuration, exec, null.as_fd(), stdout, stderr);
            let _ = rustix::io::write(&failure, &error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes());
            sys::exit_now(127)
        }
        Forked::Parent(pid) => Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?,
    };
    drop(failure);
    let mut error = [0_u8; 4];
    if rustix::io::read(&failed, &mut error) == Ok(0) {
        prefer_for_oom(command);
    }
    let exit = wait_for(command, &signals);
    end_descendants(&signals);
    Ok(exit)
}

/// Makes a process the kernel's first choice when memory runs out. After its exec: before, the file belongs to nobody inside.
pub(crate) fn prefer_for_oom(process: Pid) {
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", process.as_raw_nonzero()), "1000");
}

fn become_command(configuration: &Configuration, exec: &Exec, null: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> io::Error {
    let prepared = (|| {
        rustix::process::setsid()?;
        let (stdout, stderr) = (rustix::io::fcntl_dupfd_cloexec(stdout, 10)?, rustix::io::fcntl_dupfd_cloexec(stderr, 10)?);
        sys::dup2(null, 0)?;
        sys::dup2(stdout.as_fd(), 1)?;
        sys::dup2(stderr.as_fd(), 2)?;
        sys::close_range(3, i32::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default())?;
        sys::reset_signals();
        rustix::process::chdir(crate::init::WORKSPACE)?;
        // A belt for the watchdog: children that the kernel collects by itself leave no account.
        let limits = &configuration.limits;
        let limited = crate::init::set_limit(sys::LIMIT_CPU, limits.cpu_seconds.saturating_add(5).min(limits.cpu_total_seconds));
        limited.map_err(|failure| io::Error::from_raw_os_error(failure.errno))?;
        sys::set_limit(sys::LIMIT_FILES, limits.open_files)?;
        if let Some(memory) = configuration.limits.memory_bytes {
            crate::init::set_limit(sys::LIMIT_DATA, memory).map_err(|failure| io::Error::from_raw_os_error(failure.errno))?;
        }
        confine::enter(Domain::Shell, &configuration.confinement)
    })();
    match prepared {
        Ok(()) => sys::execve(&exec.program, &exec.arguments, &exec.environment),
        Err(error) => error,
    }
}

/// Waits for the command, passing signals of init on.
fn wait_for(command: Pid, signals: &OwnedFd) -> Exit {
    loop {
        let mut wait = [PollFd::new(signals, PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, None);
        let mut info = [0_u8; 128];
        while rustix::io::read(signals, &mut info).is_ok_and(|count| count == info.len()) {
            let [a, b, c, d, ..] = info;
            match i32::from_ne_bytes([a, b, c, d]) {
                libc::SIGINT => drop(rustix::process::kill_process_group(command, Signal::INT)),
                libc::SIGTERM => drop(rustix::process::kill_process_group(command, Signal::KILL)),
                _ => {}
            }
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == command {
                return exit_of(status);
            }
        }
    }
}

/// Ends everything that descends from this process. Stopping comes first, so that nothing can fork ahead of the sweep.
fn end_descendants(signals: &OwnedFd) {
    const A_MOMENT: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let own = rustix::process::getpid();
    loop {
        let found = stopped(|| descendants(own, &[]));
        if found.is_empty() && matches!(rustix::process::wait(WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD)) {
            return;
        }
        for pid in found {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        // Never for long: whatever the scan missed, the next round looks again.
        let mut wait = [PollFd::new(signals, PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, Some(&A_MOMENT));
        let mut info = [0_u8; 128];
        while rustix::io::read(signals, &mut info).is_ok_and(|count| count > 0) {}
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

/// Stops everything that `find` finds, until that is no more than before: what is stopped cannot fork ahead of a sweep.
pub(crate) fn stopped(find: impl Fn() -> Vec<Pid>) -> Vec<Pid> {
    let mut stopped = 0;
    loop {
        let found = find();
        for pid in &found {
            let _ = rustix::process::kill_process(*pid, Signal::STOP);
        }
        if found.len() <= stopped {
            return found;
        }
        stopped = found.len();
    }
}

/// All live processes below this one, but for those kept and what is below them.
pub(crate) fn descendants(top: Pid, kept: &[Pid]) -> Vec<Pid> {
    let mut processes = crate::watchdog::processes();
    processes.retain(|process| !kept.contains(&process.pid));
    let mut family = vec![top];
    let mut found = Vec::new();
    let mut grew = true;
    while grew {
        grew = false;
        for process in &processes {
            if !process.zombie && !family.contains(&process.pid) && process.parent.is_some_and(|parent| family.contains(&parent)) {
                family.push(process.pid);
                found.push(process.pid);
                grew = true;
            }
        }
    }
    found
}

fn encode(exit: Exit) -> [u8; REPORT_BYTES] {
    let (kind, value) = match exit {
        Exit::Code(code) => (0_i32, code),
        Exit::Signal(signal) => (1, signal),
    };
    let ([a, b, c, d], [e, f, g, h]) = (kind.to_le_bytes(), value.to_le_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Reads a runner's report without waiting; `None` where it has not come yet. A runner that died without one was killed.
pub(crate) fn read_report(report: &OwnedFd) -> Option<Exit> {
    let mut bytes = [0_u8; REPORT_BYTES];
    match rustix::io::read(report, &mut bytes) {
        Ok(REPORT_BYTES) => {}
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return None,
        _ => return Some(Exit::Signal(libc::SIGKILL)),
    }
    let [a, b, c, d, e, f, g, h] = bytes;
    let value = i32::from_le_bytes([e, f, g, h]);
    Some(if i32::from_le_bytes([a, b, c, d]) == 0 { Exit::Code(value) } else { Exit::Signal(value) })
}
