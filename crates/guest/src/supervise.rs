//! Init's loop: passes code in and outputs out, reaps, watches, kills. One thread, never blocking on what is inside.
//!
//! What the worker says is passed on unread, under the number of the execution that the host asked for; the channel to the host is
//! open in no other process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::message::{self, Configuration, End, Execute, Exit, FromInit, Stream, ToInit, Work};
use protocol::{frame, worker as kinds};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::channel::{self, Channel, Read};
use crate::init::Supply;
use crate::launcher::exit_of;
use crate::runner;
use crate::sys;
use crate::upload::Uploads;
use crate::watchdog;

mod running;
mod worker;

use running::{Capture, Command, Running};
use worker::{Worker, adopt_worker, spawn_worker};

/// Above this many bytes waiting for the host, nothing more is read from inside: what runs blocks on its own output.
const QUEUE_BYTES: usize = 1024 * 1024;
/// At a barrier, no more than this is drained from each pipe: a thread that writes without end must not hold the frame up.
const BARRIER_BYTES: usize = 1024 * 1024;
/// Frames of the worker served in one turn: then the host, the clock and the dead have their turn.
const FRAMES_PER_TURN: usize = 64;
/// How often limits are looked at while something runs.
const WATCH: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Not sooner than this after the last look, however much goes on: one costs as much as running a line of code.
const WATCH_AGAIN: Duration = Duration::from_millis(20);
/// How long the end of a killed worker may stay unknown.
const COLLECT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// Between two looks for what is dying.
const A_MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Serves the host until it closes its channel. Leaving ends everything inside, since this is process 1.
pub(crate) fn run(host: Channel, configuration: Configuration, supply: Option<Supply>) {
    let Ok(signals) = sys::signal_descriptor(&[libc::SIGCHLD]) else { return };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(workspace) = rustix::fs::open(crate::init::WORKSPACE, flags, Mode::empty()) else { return };
    let mut supervisor = Supervisor {
        host,
        configuration,
        signals,
        uploads: Uploads::new(workspace),
        awaited: supply.is_some(),
        supply,
        worker: None,
        used: false,
        watched: None,
        running: None,
    };
    supervisor.start_worker();
    supervisor.serve();
}

/// A limit that the watchdog found exceeded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hit {
    Memory,
    /// Interrupted; killed when CPU time (in microseconds) passes this.
    Cpu(u64),
}

struct Supervisor {
    host: Channel,
    configuration: Configuration,
    signals: OwnedFd,
    /// Files that the host is writing.
    uploads: Uploads,
    /// Where forked workers come from.
    supply: Option<Supply>,
    /// One is on its way.
    awaited: bool,
    worker: Option<Worker>,
    /// Code has run: something may be left of it.
    used: bool,
    /// When limits were looked at last.
    watched: Option<Instant>,
    running: Option<Running>,
}

/// What a poll found readable or ended.
#[derive(Default)]
struct Ready {
    supply: bool,
    host: bool,
    host_room: bool,
    signals: bool,
    worker: bool,
    worker_room: bool,
    output: bool,
    capture: bool,
    report: bool,
}

/// Notes what a poll found on one descriptor.
type Mark = fn(&mut Ready, PollFlags);

impl Supervisor {
    fn serve(&mut self) {
        loop {
            let Some(ready) = self.wait() else { return };
            if ready.host_room && self.host.flush().is_err() {
                return;
            }
            if ready.supply {
                self.hear_supply();
            }
            if ready.output {
                self.pump();
            }
            if ready.capture {
                self.pump_capture();
            }
            if ready.worker_room
                && let Some(worker) = &mut self.worker
            {
                worker.flush();
            }
            if ready.worker {
                self.hear_worker();
            }
            if ready.report {
                self.command_ended(false);
            }
            if ready.signals {
                self.reap();
            }
            if self.watched.is_none_or(|watched| watched.elapsed() >= WATCH_AGAIN) {
                self.watch();
            }
            if ready.host && !self.hear_host() {
                return;
            }
            if self.host.flush().is_err() {
                return;
            }
        }
    }

    /// Waits for something to do; `None` when waiting itself fails.
    fn wait(&self) -> Option<Ready> {
        let room = self.host.queued_bytes() < QUEUE_BYTES;
        let mut entries: Vec<(PollFd<'_>, Mark)> = Vec::new();
        let host_wants = if self.host.queued_bytes() > 0 { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        entries.push((PollFd::new(&self.host, host_wants), |ready, events| {
            ready.host_room = events.contains(PollFlags::OUT);
            ready.host = events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        }));
        entries.push((PollFd::new(&self.signals, PollFlags::IN), |ready, _| ready.signals = true));
        if let Some(supply) = &self.supply {
            entries.push((PollFd::new(&supply.link, PollFlags::IN), |ready, _| ready.supply = true));
        }
        if let Some(worker) = &self.worker {
            let read = if room { PollFlags::IN } else { PollFlags::empty() };
            let write = if worker.channel.queued_bytes() > 0 { PollFlags::OUT } else { PollFlags::empty() };
            entries.push((PollFd::new(&worker.channel, read | write), |ready, events| {
                ready.worker |= events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
                ready.worker_room = events.contains(PollFlags::OUT);
            }));
        }
        if let Some(running) = &self.running {
            if room {
                for pipe in &running.read {
                    entries.push((PollFd::new(pipe, PollFlags::IN), |ready, _| ready.output = true));
                }
            }
            if let Some(command) = &running.command {
                entries.push((PollFd::new(&command.runner.report, PollFlags::IN), |ready, _| ready.report = true));
                if let Some(pipe) = command.capture.as_ref().and_then(|capture| capture.pipe.as_ref()) {
                    entries.push((PollFd::new(pipe, PollFlags::IN), |ready, _| ready.capture = true));
                }
            }
        }
        let (mut polls, marks): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        // Frames that wait here already are served as soon as there is room for what they bring.
        let more = room && self.worker.as_ref().is_some_and(|worker| worker.more);
        let watched = self.running.is_some() || (self.used && self.worker.is_some() && self.configuration.limits.memory_bytes.is_some());
        let patience = if more { Some(&AT_ONCE) } else { watched.then_some(&WATCH) };
        match rustix::event::poll(&mut polls, patience) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        let mut ready = Ready { worker: more, ..Ready::default() };
        for (poll, mark) in polls.iter().zip(marks) {
            if !poll.revents().is_empty() {
                mark(&mut ready, poll.revents());
            }
        }
        Some(ready)
    }

    fn say(&mut self, message: &FromInit) {
        if let Ok(frame) = message::encode(message) {
            self.host.queue(&frame);
        }
    }

    /// Reads requests of the host; false when it is gone.
    fn hear_host(&mut self) -> bool {
        let Ok(Read::Open) = self.host.read() else { return false };
        loop {
            let request = match self.host.next_frame() {
                Ok(Some((kind, payload))) => message::decode::<ToInit>(kind, &payload),
                Ok(None) => return true,
                Err(_) => return false,
            };
            let Ok(request) = request else { return false };
            self.obey(request);
        }
    }

    fn obey(&mut self, request: ToInit) {
        match request {
            ToInit::Configure(_) | ToInit::Attached => {}
            ToInit::FileBegin { upload, path, mode } => self.uploads.begin(upload, &path, mode),
            ToInit::FileData { upload, bytes } => self.uploads.write(upload, &bytes),
            ToInit::FileAbort { upload } => self.uploads.abort(upload),
            ToInit::FileEnd { upload } => {
                let result = self.uploads.finish(upload);
                self.say(&FromInit::FileWritten { upload, result });
            }
            ToInit::Wake => self.wake(),
            ToInit::Execute(execute) => self.execute(execute),
            ToInit::LimitCpu { seconds } => self.configuration.limits.cpu_seconds = seconds,
            ToInit::Interrupt => self.signal(Signal::INT, Signal::INT),
            ToInit::KillExecution => self.signal(Signal::KILL, Signal::TERM),
        }
    }

    /// Has the worker wake up, where it waits for code.
    fn wake(&mut self) {
        if let (Some(worker), None, Ok(frame)) = (&mut self.worker, &self.running, frame::encode(kinds::WAKE, &[]))
            && worker.ready
        {
            worker.answer(&frame);
        }
    }

    fn execute(&mut self, execute: Execute) {
        if self.running.is_some() {
            return;
        }
        let Ok(mut running) = Running::new(&execute) else {
            return self.say(&FromInit::Done { execution: execute.execution, end: End::WorkerFailed });
        };
        self.used |= execute.execution > 0;
        match execute.work {
            Work::Code(payload) => {
                running.pending = Some(payload);
                self.running = Some(running);
                self.start_worker();
                self.send_pending();
                // After the code is on its way: it takes longer to begin than to look.
                let start = watchdog::cpu_microseconds();
                if let Some(running) = &mut self.running {
                    running.cpu_start = start;
                }
                self.watched = Some(Instant::now());
            }
            Work::Shell(command) => {
                running.cpu_start = watchdog::cpu_microseconds();
                let started = runner::start(&self.configuration, &command, running.write_end(Stream::Stdout), running.write_end(Stream::Stderr));
                self.running = Some(running);
                match (started, &mut self.running) {
                    (Ok(runner), Some(running)) => running.run(runner, None),
                    _ => self.finish(End::ShellExited(Exit::Code(126))),
                }
            }
        }
    }

    /// Hands the waiting code to the worker once it is ready, with the write ends of the execution's pipes.
    fn send_pending(&mut self) {
        let (Some(worker), Some(running)) = (&mut self.worker, &mut self.running) else { return };
        if !worker.ready {
            return;
        }
        let Some(code) = running.pending.take() else { return };
        let payload = [&running.number.to_le_bytes()[..], &code].concat();
        let [stdout, stderr] = &running.write;
        let sent = frame::encode(kinds::EXECUTE, &payload)
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
            .and_then(|frame| worker.channel.send_with_descriptors(&frame, &[stdout.as_fd(), stderr.as_fd()]));
        if sent.is_err() {
            let _ = rustix::process::kill_process(worker.pid, Signal::KILL);
        } else if running.stopped {
            worker.interrupt();
        }
    }

    /// Signals what runs: the worker, and the runner of a command.
    fn signal(&mut self, worker_signal: Signal, runner_signal: Signal) {
        let Some(running) = &mut self.running else { return };
        running.stopped = true;
        if let Some(command) = &running.command {
            let _ = rustix::process::kill_process(command.runner.pid, runner_signal);
        }
        let Some(worker) = &mut self.worker else { return };
        if running.shell {
            return;
        }
        if worker_signal == Signal::KILL {
            let _ = rustix::process::kill_process(worker.pid, worker_signal);
        } else if running.pending.is_none() {
            // Else the code will be interrupted as soon as it is sent.
            worker.interrupt();
        }
    }

    /// Passes on what the pipes hold.
    fn pump(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(stream, 64 * 1024);
        }
    }

    /// Drains a pipe of the execution into the host's queue, at most `limit` bytes.
    fn drain(&mut self, stream: Stream, limit: usize) {
        let mut total = 0;
        while total < limit && self.host.queued_bytes() < QUEUE_BYTES + 2 * BARRIER_BYTES {
            let Some(running) = &self.running else { return };
            let mut buffer = Vec::with_capacity(64 * 1024);
            match rustix::io::read(running.read_end(stream), rustix::buffer::spare_capacity(&mut buffer)) {
                Ok(count) if count > 0 => {
                    total += count;
                    let execution = running.number;
                    self.say(&FromInit::Output { execution, stream, bytes: buffer });
                }
                _ => return,
            }
        }
    }

    fn pump_capture(&mut self) {
        if let Some(Command { capture: Some(capture), .. }) = self.running.as_mut().and_then(|running| running.command.as_mut()) {
            capture.pump();
        }
    }

    /// Reads frames of the worker. One that breaks the format ends it.
    fn hear_worker(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        // Not before what it said already has been served: it would pile up here.
        let more = std::mem::take(&mut worker.more);
        // A worker without its channel is of no use, whoever closed it: what it said last still counts, then it goes.
        let open = more || matches!(worker.channel.read(), Ok(Read::Open));
        for turn in 0.. {
            let full = self.host.queued_bytes() >= QUEUE_BYTES;
            let Some(worker) = &mut self.worker else { return };
            if turn >= FRAMES_PER_TURN || full {
                worker.more = true;
                return;
            }
            match worker.channel.next_frame() {
                Ok(Some((kind, payload))) => {
                    if !self.worker_says(kind, payload) {
                        return self.break_worker();
                    }
                }
                Ok(None) if open => return,
                Ok(None) | Err(_) => return self.break_worker(),
            }
        }
    }

    /// Serves one frame; false where it may not stand here.
    fn worker_says(&mut self, kind: u8, payload: Vec<u8>) -> bool {
        if kind == kinds::READY {
            return self.worker_ready();
        }
        let Some(running) = &self.running else {
            // A thread that outlived its execution may show something late: dropped.
            if kind == kinds::DISPLAY {
                self.acknowledge();
            }
            return matches!(kind, kinds::DISPLAY | kinds::RESULT | kinds::ERROR);
        };
        if running.shell || running.pending.is_some() {
            if kind == kinds::DISPLAY {
                self.acknowledge();
            }
            return kind == kinds::DISPLAY;
        }
        let execution = running.number;
        match kind {
            kinds::DISPLAY | kinds::RESULT | kinds::ERROR => {
                self.barrier();
                self.say(&FromInit::Worker { execution, kind, payload });
                if kind == kinds::DISPLAY {
                    self.acknowledge();
                }
                true
            }
            // Of an execution that was over before, because somebody else said so: the worker is not where we took it to be.
            kinds::DONE if payload != execution.to_le_bytes() => false,
            kinds::DONE => {
                // A limit that stopped it is how it ended, however orderly.
                let end = match self.running.as_ref().and_then(|running| running.hit) {
                    Some(Hit::Cpu(_)) => End::CpuLimit { state_lost: false },
                    Some(Hit::Memory) => End::MemoryLimit { state_lost: false },
                    None => End::Completed,
                };
                self.finish(end);
                true
            }
            kinds::SHELL => {
                self.abandon_command();
                self.start_command(&payload);
                true
            }
            _ => false,
        }
    }

    /// The worker waits for code; false where it may not get any.
    fn worker_ready(&mut self) -> bool {
        let bounded = self.configuration.limits.memory_bytes.is_none();
        let filtered = !self.configuration.confinement.without_seccomp;
        let Some(worker) = &mut self.worker else { return false };
        if worker.ready || (worker.forked && !watchdog::is_confined(worker.pid, filtered)) {
            return false;
        }
        worker.ready = true;
        if worker.forked {
            runner::prefer_for_oom(worker.pid);
            worker.baseline = if bounded { 0 } else { watchdog::memory_of(worker.pid).unwrap_or_default().saturating_sub(message::BASELINE_BYTES) };
        }
        self.say(&FromInit::WorkerReady);
        self.send_pending();
        true
    }

    /// Hears the launcher of forked workers.
    fn hear_supply(&mut self) {
        let Some(supply) = &self.supply else { return };
        let Ok((datagram, descriptor)) = channel::receive_datagram(supply.link.as_fd()) else { return };
        let payload = datagram.get(frame::HEADER_BYTES..).unwrap_or_default();
        match (message::decode(message::MESSAGE_KIND, payload), descriptor) {
            (Ok(message::Supply::Worker), Some(descriptor)) if self.worker.is_none() => {
                self.awaited = false;
                match adopt_worker(&self.configuration, descriptor, &supply.namespaces) {
                    Ok(worker) => self.worker = Some(worker),
                    Err(_) => self.start_worker(),
                }
            }
            // There is one already: closing its channel ends the new one.
            (Ok(message::Supply::Worker), _) => {}
            (Ok(message::Supply::Ended(exit)), _) => {
                if self.worker.as_ref().is_some_and(|worker| worker.forked) {
                    self.worker_ended(exit);
                }
            }
            (Ok(message::Supply::Refused), _) => {
                self.awaited = false;
                if self.worker.is_none() {
                    self.start_worker();
                }
            }
            // The launcher is gone, and we are about to be.
            (Err(_), _) => self.supply = None,
        }
    }

    /// Lets the worker go on after a display: what it prints next stands behind it.
    fn acknowledge(&mut self) {
        if let (Some(worker), Ok(frame)) = (&mut self.worker, frame::encode(kinds::TAKEN, &[])) {
            worker.answer(&frame);
        }
    }

    fn barrier(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(stream, BARRIER_BYTES);
        }
    }

    /// Starts a command for the worker (`!cmd`).
    fn start_command(&mut self, request: &[u8]) {
        self.barrier();
        let Some(running) = &mut self.running else { return };
        let (capture, command) = request.split_first().map_or((false, request), |(flag, command)| (*flag == 1, command));
        if self.configuration.shell.is_empty() {
            let execution = running.number;
            self.say(&FromInit::Output { execution, stream: Stream::Stderr, bytes: b"shell commands are not allowed here\n".to_vec() });
            return self.answer_command(Exit::Code(126), &[]);
        }
        let pipe = if capture { rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK).ok() } else { None };
        let blocking = pipe.as_ref().map(|(_, write)| rustix::io::ioctl_fionbio(write, false));
        let stdout = match (&pipe, blocking) {
            (Some((_, write)), Some(Ok(()))) => write.as_fd(),
            _ => running.write_end(Stream::Stdout),
        };
        match runner::start(&self.configuration, command, stdout, running.write_end(Stream::Stderr)) {
            Ok(runner) => running.run(runner, pipe.map(|(read, _)| Capture { pipe: Some(read), bytes: Vec::new() })),
            Err(_) => self.answer_command(Exit::Code(126), &[]),
        }
    }

    /// A command's runner reported, or died.
    fn command_ended(&mut self, dead: bool) {
        self.pump_capture();
        let Some(running) = &mut self.running else { return };
        let Some(command) = running.command.take() else { return };
        let exit = match runner::read_report(&command.runner.report) {
            Some(exit) => exit,
            None if dead => Exit::Signal(libc::SIGKILL),
            None => {
                // What was ready belonged to a command that has been given up meanwhile.
                running.command = Some(command);
                return;
            }
        };
        let _ = rustix::process::kill_process(command.runner.pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(command.runner.pid), WaitOptions::empty());
        if running.shell {
            let end = match running.hit {
                Some(Hit::Memory) => End::MemoryLimit { state_lost: false },
                Some(Hit::Cpu(_)) => End::CpuLimit { state_lost: false },
                None => End::ShellExited(exit),
            };
            self.finish(end);
        } else {
            self.end_strays();
            let captured = command.capture.map(|capture| capture.bytes).unwrap_or_default();
            self.answer_command(exit, &captured);
        }
    }

    /// Ends a command whose caller does not wait any more: an interrupt came between. It is answered all the same, in order.
    fn abandon_command(&mut self) {
        let Some(command) = self.running.as_mut().and_then(|running| running.command.take()) else { return };
        let _ = rustix::process::kill_process(command.runner.pid, Signal::TERM);
        self.answer_command(Exit::Signal(libc::SIGTERM), &[]);
    }

    fn answer_command(&mut self, exit: Exit, captured: &[u8]) {
        let code = match exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => signal.saturating_neg(),
        };
        let mut payload = code.to_le_bytes().to_vec();
        payload.extend_from_slice(captured);
        if let (Some(worker), Ok(frame)) = (&mut self.worker, frame::encode(kinds::SHELL_DONE, &payload)) {
            worker.answer(&frame);
        }
    }

    /// Ends the execution: what its pipes still hold goes out first, then they close.
    fn finish(&mut self, end: End) {
        self.abandon_command();
        if self.running.as_ref().is_some_and(|running| running.commanded) || self.configuration.process_spawning {
            self.end_strays();
        }
        self.barrier();
        if let Some(running) = self.running.take() {
            self.say(&FromInit::Done { execution: running.number, end });
        }
    }

    /// Kills what lost its parent, and runners that have been given up, with all that descends from either: a runner ends its own, so this finds
    /// only what got away from one.
    fn end_strays(&self) {
        let own = rustix::process::getpid();
        let command = self.running.as_ref().and_then(|running| running.command.as_ref()).map(|command| command.runner.pid);
        let kept: Vec<Pid> = [self.worker.as_ref().map(|worker| worker.pid), command].into_iter().flatten().collect();
        let find = || runner::descendants(own, &kept);
        while !find().is_empty() {
            let strays = runner::stopped(find);
            for stray in &strays {
                let _ = rustix::process::kill_process(*stray, Signal::KILL);
            }
            for stray in strays {
                // Those that are nobody's child but ours: the rest comes to us when its parents have ended.
                let _ = rustix::process::waitpid(Some(stray), WaitOptions::empty());
            }
            let _ = rustix::event::poll(&mut [], Some(&A_MOMENT));
        }
    }

    /// Collects everything that ended; the end of the worker ends its execution.
    fn reap(&mut self) {
        let mut drain = [0_u8; 128];
        while rustix::io::read(&self.signals, &mut drain).is_ok_and(|count| count > 0) {}
        let command = self.running.as_ref().and_then(|running| running.command.as_ref()).map(|command| command.runner.pid);
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.worker.as_ref().is_some_and(|worker| worker.pid == pid) {
                self.worker_ended(exit_of(status));
            } else if command == Some(pid) {
                self.command_ended(true);
            }
        }
    }

    fn worker_ended(&mut self, exit: Exit) {
        // What still waits in its channel is left there: a process that it started may hold the other end, and write without end.
        let was_ready = self.worker.as_ref().is_some_and(|worker| worker.ready);
        if self.worker.take().is_some_and(|worker| self.executes_instead(&worker)) {
            return;
        }
        let Some(running) = &self.running else { return self.say(&FromInit::WorkerLost(exit)) };
        if running.shell {
            return self.say(&FromInit::WorkerLost(exit));
        }
        let end = match running.hit {
            Some(Hit::Memory) => End::MemoryLimit { state_lost: true },
            Some(Hit::Cpu(_)) => End::CpuLimit { state_lost: true },
            None if was_ready || exit == Exit::Signal(libc::SIGKILL) => End::WorkerExited(exit),
            None => End::WorkerFailed,
        };
        self.finish(end);
    }

    /// The worker broke the format: it is killed, and its state is lost.
    fn break_worker(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        let _ = rustix::process::kill_process(worker.pid, Signal::KILL);
        let exit = self.collect(&worker);
        if self.executes_instead(&worker) {
            return;
        }
        let end = match (&self.running, exit, worker.ready) {
            (None, exit, _) => return self.say(&FromInit::WorkerLost(exit)),
            (Some(running), exit, _) if running.shell => return self.say(&FromInit::WorkerLost(exit)),
            (Some(Running { hit: Some(Hit::Memory), .. }), ..) => End::MemoryLimit { state_lost: true },
            (Some(Running { hit: Some(Hit::Cpu(_)), .. }), ..) => End::CpuLimit { state_lost: true },
            // Its channel closed because it died, and this is how.
            (Some(_), Exit::Code(code), true) => End::WorkerExited(Exit::Code(code)),
            (Some(_), Exit::Signal(signal), true) if signal != libc::SIGKILL => End::WorkerExited(exit),
            (Some(_), _, true) => End::WorkerBroken,
            (Some(_), _, false) => End::WorkerFailed,
        };
        self.finish(end);
    }

    /// Starts a worker by exec in place of one that was forked and did not get as far as `ready`: a package's at-fork hook, for one, can be at
    /// fault, and code must run all the same.
    fn executes_instead(&mut self, lost: &Worker) -> bool {
        let untouched = self.running.as_ref().is_none_or(|running| running.hit.is_none() && !running.stopped && (running.shell || running.pending.is_some()));
        if !lost.forked || lost.ready || !untouched {
            return false;
        }
        self.start_worker();
        self.worker.is_some()
    }

    /// How a worker that was killed ended. One that was forked is no child of ours: the launcher knows.
    fn collect(&self, worker: &Worker) -> Exit {
        if !worker.forked {
            return rustix::process::waitpid(Some(worker.pid), WaitOptions::empty()).ok().flatten().map_or(Exit::Code(-1), |(_, status)| exit_of(status));
        }
        while let Some(supply) = &self.supply {
            let mut wait = [PollFd::new(&supply.link, PollFlags::IN)];
            if !rustix::event::poll(&mut wait, Some(&COLLECT)).is_ok_and(|count| count > 0) {
                break;
            }
            let Ok((datagram, _)) = channel::receive_datagram(supply.link.as_fd()) else { break };
            match message::decode(message::MESSAGE_KIND, datagram.get(frame::HEADER_BYTES..).unwrap_or_default()) {
                Ok(message::Supply::Ended(exit)) => return exit,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Exit::Signal(libc::SIGKILL)
    }

    /// Looks at CPU time and, where no cgroup does, at memory.
    fn watch(&mut self) {
        self.watched = Some(Instant::now());
        let mut limits = self.configuration.limits;
        let baseline = self.worker.as_ref().map_or(0, |worker| worker.baseline);
        limits.memory_bytes = limits.memory_bytes.map(|limit| limit.saturating_add(baseline));
        let Some(running) = &mut self.running else {
            // A thread that outlived its execution is still held to the limit.
            if let Some(worker) = &self.worker
                && limits.memory_bytes.is_some_and(|limit| watchdog::memory_bytes() > limit)
            {
                let _ = rustix::process::kill_process(worker.pid, Signal::KILL);
            }
            return;
        };
        let used = watchdog::cpu_microseconds().saturating_sub(running.cpu_start);
        let allowed = limits.cpu_seconds.saturating_mul(1_000_000);
        match running.hit {
            None if limits.memory_bytes.is_some_and(|limit| watchdog::memory_bytes() > limit) => {
                running.hit = Some(Hit::Memory);
                self.signal(Signal::KILL, Signal::TERM);
            }
            None if used > allowed => {
                running.hit = Some(Hit::Cpu(used.saturating_add(2_000_000)));
                self.signal(Signal::INT, Signal::INT);
            }
            Some(Hit::Cpu(kill_at)) if used > kill_at => self.signal(Signal::KILL, Signal::TERM),
            _ => {}
        }
    }

    /// Starts the worker by exec, where there is to be one, is none, and none is on its way.
    fn start_worker(&mut self) {
        if self.worker.is_some() || self.awaited || self.configuration.worker.is_empty() {
            return;
        }
        match spawn_worker(&self.configuration) {
            Ok(worker) => self.worker = Some(worker),
            Err(_) => {
                if self.running.is_some() {
                    self.finish(End::WorkerFailed);
                }
            }
        }
    }
}
