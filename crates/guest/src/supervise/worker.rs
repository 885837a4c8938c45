//! The interpreter process of a sandbox and its channel: executed here, or forked from a template and taken in.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::message::Configuration;
use protocol::{frame, worker as kinds};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::channel::{Channel, would_block};
use crate::confine::{self, Domain};
use crate::runner;
use crate::sys::{self, Forked};
use crate::watchdog;

/// More than this waiting for a worker means that it does not read its answers.
const WORKER_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// The interpreter process and its channel.
pub(super) struct Worker {
    pub(super) pid: Pid,
    pub(super) channel: Channel,
    /// Forked from a template: no child of ours.
    pub(super) forked: bool,
    pub(super) ready: bool,
    /// Memory that it had when it was ready beyond what every interpreter is granted, in bytes: it shares that with its template.
    pub(super) baseline: u64,
    /// Frames may wait that have been read already.
    pub(super) more: bool,
    /// SIGINT is due, but not before the code and `interrupt` have gone out.
    interrupted: bool,
}

impl Worker {
    /// Interrupts the execution that was sent last. A signal alone may find the worker before it has read what it is to run, or after
    /// it has ended it; behind the code, the frame tells which it is.
    pub(super) fn interrupt(&mut self) {
        let Ok(frame) = frame::encode(kinds::INTERRUPT, &[]) else { return };
        self.interrupted = true;
        self.answer(&frame);
    }

    /// Sends what waits, as much as goes out.
    pub(super) fn flush(&mut self) {
        let _ = self.channel.flush();
        if self.interrupted && self.channel.queued_bytes() == 0 {
            self.interrupted = false;
            let _ = rustix::process::kill_process(self.pid, Signal::INT);
        }
    }

    /// Queues an answer; a worker that lets them pile up is killed.
    pub(super) fn answer(&mut self, frame: &[u8]) {
        self.channel.queue(frame);
        self.flush();
        if self.channel.queued_bytes() > WORKER_QUEUE_BYTES {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        }
    }
}

/// Starts the interpreter with its driver.
pub(super) fn spawn_worker(configuration: &Configuration) -> io::Result<Worker> {
    let arguments = configuration.worker.iter().map(|argument| CString::new(argument.as_str())).collect::<Result<Vec<_>, _>>()?;
    let program = arguments.first().cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOEXEC))?;
    let environment = runner::environment(&configuration.environment)?;
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, flags, None)?;
    let (failed, failure) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let pid = match sys::fork()? {
        Forked::Parent(pid) => Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?,
        Forked::Child => {
            let error = match prepare_worker(configuration, theirs.as_fd()) {
                Ok(()) => sys::execve(&program, &arguments, &environment),
                Err(error) => error,
            };
            let _ = rustix::io::write(&failure, &error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes());
            sys::exit_now(127)
        }
    };
    drop((failure, theirs));
    let mut error = [0_u8; 4];
    if let Ok(4) = rustix::io::read(&failed, &mut error) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        return Err(io::Error::from_raw_os_error(i32::from_le_bytes(error)));
    }
    runner::prefer_for_oom(pid);
    let mut channel = Channel::new(ours, false)?;
    let setup = frame::encode(kinds::SETUP, &configuration.worker_setup).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    channel.queue(&setup);
    match channel.flush() {
        Err(error) if !would_block(&error) => Err(error),
        _ => Ok(Worker { pid, channel, forked: false, ready: false, baseline: 0, more: false, interrupted: false }),
    }
}

/// Takes a forked worker in: hands it the namespaces it has to enter, its Landlock domain and its rules.
pub(super) fn adopt_worker(configuration: &Configuration, channel: OwnedFd, namespaces: &[OwnedFd]) -> io::Result<Worker> {
    // It was forked by somebody outside, so it has no parent in here, as nothing else has but ourselves.
    let own = rustix::process::getpid();
    let process = watchdog::processes().into_iter().find(|process| process.parent.is_none() && !process.zombie && process.pid != own);
    let pid = process.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?.pid;
    let domain = confine::domain_descriptor(Domain::Worker, &configuration.confinement)?;
    let setup = frame::encode(kinds::SETUP, &configuration.worker_setup).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut channel = Channel::new(channel, false)?;
    let descriptors: Vec<BorrowedFd<'_>> = namespaces.iter().chain(&domain).map(AsFd::as_fd).collect();
    channel.send_with_descriptors(&setup, &descriptors)?;
    Ok(Worker { pid, channel, forked: true, ready: false, baseline: 0, more: false, interrupted: false })
}

fn prepare_worker(configuration: &Configuration, channel: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::setsid()?;
    let channel = rustix::io::fcntl_dupfd_cloexec(channel, 10)?;
    // Takes the place of the channel to the host, which stays with init.
    sys::dup2(channel.as_fd(), crate::init::HOST_CHANNEL)?;
    sys::close_range(crate::init::HOST_CHANNEL + 1, i32::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default())?;
    sys::reset_signals();
    rustix::process::chdir(crate::init::WORKSPACE)?;
    sys::set_limit(sys::LIMIT_FILES, configuration.limits.open_files)?;
    if let Some(memory) = configuration.limits.memory_bytes {
        crate::init::set_limit(sys::LIMIT_DATA, memory).map_err(|failure| io::Error::from_raw_os_error(failure.errno))?;
    }
    confine::enter(Domain::Worker, &configuration.confinement)
}
