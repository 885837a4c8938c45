//! Frames out of a stream, however it is cut into pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::frame::{self, HEADER_BYTES, MAX_PAYLOAD_BYTES};
use protocol::{FrameError, FrameReader};

type Frames = (Vec<(u8, Vec<u8>)>, Option<FrameError>, usize);

fn read(bytes: &[u8], step: usize) -> Frames {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
    for piece in bytes.chunks(step) {
        reader.push(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error), 0),
            }
        }
        assert!(reader.pending_bytes() < HEADER_BYTES + MAX_PAYLOAD_BYTES);
    }
    (frames, None, reader.pending_bytes())
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let (frames, error, pending) = read(bytes, usize::from(step) + 1);
    let whole = read(bytes, usize::MAX);
    assert!(whole.0 == frames && whole.1 == error && whole.2 == pending, "pieces make no difference");
    let again: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame::encode(*kind, payload).expect("it fitted before")).collect();
    assert!(bytes.starts_with(&again), "what was read is what was written");
    if error.is_none() {
        assert_eq!(again.len() + pending, bytes.len());
    }
});
