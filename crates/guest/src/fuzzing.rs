//! Ways in for the targets of `fuzz/`.

use std::os::fd::OwnedFd;

use crate::channel::{Channel, Read};

/// A channel as init has it to a worker.
pub struct WorkerChannel(Channel);

impl WorkerChannel {
    /// Takes init's end.
    ///
    /// # Errors
    /// Where it is no socket.
    pub fn new(socket: OwnedFd) -> std::io::Result<Self> {
        Channel::new(socket, false).map(Self)
    }

    /// Reads once, then takes every whole frame; `None` where the channel is closed or broken.
    pub fn turn(&mut self) -> Option<Vec<(u8, Vec<u8>)>> {
        let Ok(Read::Open) = self.0.read() else { return None };
        let mut frames = Vec::new();
        while let Some(frame) = self.0.next_frame().ok()? {
            frames.push(frame);
        }
        Some(frames)
    }

    /// The descriptors that came along, of which there must be none.
    pub fn descriptors(&mut self) -> usize {
        std::iter::from_fn(|| self.0.take_descriptor()).count()
    }
}
