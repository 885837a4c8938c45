//! The channel to a worker as init reads it: a real socket, bytes in pieces, and descriptors that nobody asked for.
#![no_main]

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use guest::fuzzing::WorkerChannel;
use libfuzzer_sys::fuzz_target;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

fn send(mut socket: &UnixStream, bytes: &[u8], descriptor: bool) {
    if descriptor && !bytes.is_empty() {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let own = [socket.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&own)));
        let sent = rustix::net::sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::empty());
        assert_eq!(sent, Ok(bytes.len()));
    } else {
        socket.write_all(bytes).expect("it is small");
    }
}

fuzz_target!(|pieces: Vec<(bool, &[u8])>| {
    let (ours, theirs) = UnixStream::pair().expect("descriptors are to be had");
    let mut channel = WorkerChannel::new(ours.into()).expect("it is a socket");
    let mut whole = Vec::new();
    let mut frames = Vec::new();
    for (descriptor, bytes) in pieces.iter().take(16).map(|(descriptor, bytes)| (*descriptor, &bytes[..bytes.len().min(4096)])) {
        send(&theirs, bytes, descriptor);
        whole.extend_from_slice(bytes);
        let Some(heard) = channel.turn() else { return };
        frames.extend(heard);
    }
    assert_eq!(channel.descriptors(), 0, "descriptors are never taken");
    let mut expected = protocol::FrameReader::default();
    expected.push(&whole);
    for frame in frames {
        assert_eq!(expected.next_frame(), Ok(Some(frame)));
    }
});
