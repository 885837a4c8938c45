//! An execution that runs, with its pipes, its command, and what `!cmd` captures of that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::message::{Execute, Stream, Work};

use super::Hit;
use crate::runner::Runner;

/// What `!cmd` captures for the caller at most.
const CAPTURE_BYTES: usize = 1024 * 1024;
/// Of what `!cmd` captures, no more is read in one turn: a command can write as fast as it is read, and others have to have their turn.
const CAPTURE_TURN_BYTES: usize = 1024 * 1024;

/// The execution that runs.
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) shell: bool,
    /// Code that waits for the worker to be ready.
    pub(super) pending: Option<Vec<u8>>,
    /// Read ends, then write ends, of stdout and stderr.
    pub(super) read: [OwnedFd; 2],
    pub(super) write: [OwnedFd; 2],
    pub(super) command: Option<Command>,
    /// A command was started: what got away from its runner may be left.
    pub(super) commanded: bool,
    pub(super) cpu_start: u64,
    pub(super) hit: Option<Hit>,
    /// Somebody wanted it to end.
    pub(super) stopped: bool,
}

/// A shell command that runs, and what is captured of it.
pub(super) struct Command {
    pub(super) runner: Runner,
    pub(super) capture: Option<Capture>,
}

/// What a command writes for the caller of `!cmd`.
pub(super) struct Capture {
    /// `None`: all its writers have closed it.
    pub(super) pipe: Option<OwnedFd>,
    pub(super) bytes: Vec<u8>,
}

impl Capture {
    /// Reads what is there, up to a turn's worth.
    pub(super) fn pump(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        let mut total = 0;
        while total < CAPTURE_TURN_BYTES {
            let Some(pipe) = &self.pipe else { return };
            match rustix::io::read(pipe, &mut buffer) {
                // Nobody writes any more: it would be ready for ever.
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    total += count;
                    let room = CAPTURE_BYTES.saturating_sub(self.bytes.len());
                    self.bytes.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
                }
                Err(_) => return,
            }
        }
    }
}

impl Running {
    pub(super) fn new(execute: &Execute) -> io::Result<Self> {
        let (out_read, out_write) = output_pipe()?;
        let (err_read, err_write) = output_pipe()?;
        Ok(Self {
            number: execute.execution,
            shell: matches!(execute.work, Work::Shell(_)),
            pending: None,
            read: [out_read, err_read],
            write: [out_write, err_write],
            command: None,
            commanded: false,
            cpu_start: 0,
            hit: None,
            stopped: false,
        })
    }

    /// Notes that this command runs.
    pub(super) fn run(&mut self, runner: Runner, capture: Option<Capture>) {
        self.commanded = true;
        self.command = Some(Command { runner, capture });
    }

    pub(super) fn read_end(&self, stream: Stream) -> BorrowedFd<'_> {
        let [stdout, stderr] = &self.read;
        if stream == Stream::Stdout { stdout.as_fd() } else { stderr.as_fd() }
    }

    pub(super) fn write_end(&self, stream: Stream) -> BorrowedFd<'_> {
        let [stdout, stderr] = &self.write;
        if stream == Stream::Stdout { stdout.as_fd() } else { stderr.as_fd() }
    }
}

/// A pipe whose read end does not block.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn a_command_that_never_stops_writing_gets_its_turn_and_no_more() {
        let endless = rustix::fs::open("/dev/zero", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut capture = Capture { pipe: Some(endless), bytes: Vec::new() };
        capture.pump();
        capture.pump();
        assert_eq!(capture.bytes.len(), CAPTURE_BYTES);
        assert!(capture.pipe.is_some());
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_not_waited_for() {
        let (read, write) = output_pipe().unwrap();
        rustix::io::write(&write, b"last").unwrap();
        let mut capture = Capture { pipe: Some(read), bytes: Vec::new() };
        capture.pump();
        assert!(capture.pipe.is_some(), "it may still write");
        drop(write);
        capture.pump();
        assert!(capture.pipe.is_none());
        assert_eq!(capture.bytes, b"last");
    }
}
