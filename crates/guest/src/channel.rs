//! One end of a channel that never blocks: frames in, a bounded queue of bytes out, descriptors along with either.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::FrameReader;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg};

/// More descriptors than any message of ours carries.
const MAX_DESCRIPTORS: usize = 8;
const READ_BYTES: usize = 64 * 1024;
/// A queue that is empty keeps no more room than this, in bytes.
const KEPT_BYTES: usize = 256 * 1024;
/// Whoever does not take what it is sent within this time is given up, however much of it was taken in between: who sends has others to look after.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes arrived, or nothing was there yet.
    Open,
    /// The other end is closed.
    Closed,
}

/// A stream socket with its frames and its queue.
pub(crate) struct Channel {
    socket: OwnedFd,
    reader: FrameReader,
    queue: VecDeque<u8>,
    received: VecDeque<OwnedFd>,
    accept_descriptors: bool,
}

impl Channel {
    /// Takes a connected stream socket and makes it non-blocking. Descriptors are accepted only where `accept_descriptors`;
    /// elsewhere it is read without a control buffer, and the kernel drops what is sent.
    pub(crate) fn new(socket: OwnedFd, accept_descriptors: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, reader: FrameReader::default(), queue: VecDeque::new(), received: VecDeque::new(), accept_descriptors })
    }

    /// Reads what is there, up to one buffer.
    pub(crate) fn read(&mut self) -> io::Result<Read> {
        // Not zeroed where that can be left out: it would take longer than most reads.
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let count = if self.accept_descriptors {
            buffer.resize(READ_BYTES, 0);
            self.receive(&mut buffer)
        } else {
            rustix::io::read(&self.socket, rustix::buffer::spare_capacity(&mut buffer)).map_err(io::Error::from)
        };
        match count {
            Ok(0) => Ok(Read::Closed),
            Ok(count) => {
                self.reader.push(buffer.get(..count).unwrap_or_default());
                Ok(Read::Open)
            }
            Err(error) if would_block(&error) => Ok(Read::Open),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Read::Closed),
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(&self.socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                self.received.extend(descriptors);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EPROTO));
        }
        Ok(message.bytes)
    }

    /// The next whole frame.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, protocol::FrameError> {
        self.reader.next_frame()
    }

    /// The descriptor that came first of those not taken yet.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()
    }

    /// Queues a frame; [`Self::flush`] sends it.
    pub(crate) fn queue(&mut self, frame: &[u8]) {
        self.queue.extend(frame);
    }

    /// Bytes that wait to be sent.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.len()
    }

    /// Sends a frame with descriptors on its first byte, after everything that is queued. Waits until the kernel took the first part, at most some seconds.
    pub(crate) fn send_with_descriptors(&mut self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with_descriptors_until(Instant::now() + PATIENCE, frame, descriptors)
    }

    fn send_with_descriptors_until(&mut self, deadline: Instant, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.flush_until(deadline)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let sent = loop {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::from_raw_os_error(libc::E2BIG));
            }
            match sendmsg(&self.socket, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => break sent,
                Err(rustix::io::Errno::AGAIN) => wait_writable(self.socket.as_fd(), deadline)?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.queue(frame.get(sent..).unwrap_or_default());
        self.flush()
    }

    /// Sends as much of the queue as the kernel takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let (head, _) = self.queue.as_slices();
            match rustix::net::send(&self.socket, head, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.queue.drain(..sent)),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT_BYTES);
        }
        Ok(())
    }

    /// Sends everything that is queued, waiting some seconds for the other end to read.
    pub(crate) fn flush_all(&mut self) -> io::Result<()> {
        self.flush_until(Instant::now() + PATIENCE)
    }

    fn flush_until(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            self.flush()?;
            if self.queue.is_empty() {
                return Ok(());
            }
            wait_writable(self.socket.as_fd(), deadline)?;
        }
    }
}

/// Sends one datagram with descriptors, without waiting.
pub(crate) fn send_datagram(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Receives one datagram with at most one descriptor; no bytes mean that the other end is closed.
pub(crate) fn receive_datagram(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = vec![0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)?;
    let mut descriptor = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = part {
            descriptor = descriptors.next();
        }
    }
    buffer.truncate(message.bytes);
    Ok((buffer, descriptor))
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a read or write only has to be tried again later.
pub(crate) fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits for room, but no longer than this.
fn wait_writable(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
    }
    let left = rustix::event::Timespec::try_from(left).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut wait = [rustix::event::PollFd::from_borrowed_fd(socket, rustix::event::PollFlags::OUT)];
    match rustix::event::poll(&mut wait, Some(&left)) {
        Ok(0) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours.into(), false).unwrap(), theirs)
    }

    #[test]
    fn whoever_reads_drop_by_drop_is_given_up() {
        let (mut channel, mut theirs) = pair();
        channel.queue(&vec![0; 16 * 1024 * 1024]);
        channel.flush().unwrap();
        let left = channel.queued_bytes();
        assert!(left > 8 * 1024 * 1024);
        // It takes some whenever it is waited for, so that each wait alone would end well.
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while theirs.read(&mut buffer).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let error = channel.send_with_descriptors_until(Instant::now() + Duration::from_millis(200), b"frame", &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        assert!(channel.queued_bytes() > 0 && channel.queued_bytes() < left, "some of it was taken");
        drop(channel);
        reader.join().unwrap();
    }

    #[test]
    fn what_has_gone_out_leaves_no_room_behind() {
        let (mut channel, mut theirs) = pair();
        channel.queue(&vec![0; 8 * 1024 * 1024]);
        let reader = std::thread::spawn(move || {
            let mut left = 8 * 1024 * 1024;
            let mut buffer = vec![0; 64 * 1024];
            while left > 0 {
                left -= theirs.read(&mut buffer).unwrap();
            }
        });
        channel.flush_all().unwrap();
        reader.join().unwrap();
        assert!(channel.queue.capacity() <= KEPT_BYTES, "{} bytes are kept for nothing", channel.queue.capacity());
    }
}
