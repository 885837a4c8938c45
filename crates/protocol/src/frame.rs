//! Length-prefixed frames: a 5-byte header (payload length as little-endian `u32`, kind as `u8`), then the payload.

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 5;

/// The largest payload a frame may carry, in bytes (32 MiB): a picture of the largest allowed size fits.
pub const MAX_PAYLOAD_BYTES: usize = 32 * 1024 * 1024;

/// A reader that waits for nothing keeps no more room than this, in bytes: one large frame must not cost memory for the rest of a session.
const KEPT_BYTES: usize = 256 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The header announces a payload over [`MAX_PAYLOAD_BYTES`].
    #[error("frame of {0} bytes is over the limit of {MAX_PAYLOAD_BYTES}")]
    TooLarge(usize),
    /// The payload is not the message its channel expects.
    #[error("payload is not a valid message")]
    Malformed,
}

/// Puts a frame together.
///
/// # Errors
/// [`FrameError::TooLarge`] where `payload` is over [`MAX_PAYLOAD_BYTES`].
pub fn encode(kind: u8, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(FrameError::TooLarge(payload.len()));
    }
    let length = u32::try_from(payload.len()).map_err(|_| FrameError::TooLarge(payload.len()))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.push(kind);
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Cuts a byte stream into frames. Keeps what has not arrived completely; never holds more than one frame and one read.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameReader {
    /// Takes bytes as they were read from the channel.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame as (kind, payload), or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] as soon as a header announces too much; the stream cannot be used afterwards.
    pub fn next_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, FrameError> {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [a, b, c, d, kind] = *header;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(|_| FrameError::Malformed)?;
        if length > MAX_PAYLOAD_BYTES {
            return Err(FrameError::TooLarge(length));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.start = self.start.saturating_add(HEADER_BYTES).saturating_add(length);
        if self.start >= self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BYTES);
            self.start = 0;
        }
        Ok(Some((kind, payload)))
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..20), step in 1usize..64) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| encode(*kind, payload).unwrap()).collect();
            let mut reader = FrameReader::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                reader.push(chunk);
                while let Some(frame) = reader.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert_eq!(reader.pending_bytes(), 0);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = FrameReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }

    #[test]
    fn a_large_frame_leaves_no_room_behind() {
        let mut reader = FrameReader::default();
        for chunk in encode(1, &vec![7; 8 * 1024 * 1024]).unwrap().chunks(64 * 1024) {
            reader.push(chunk);
        }
        assert!(reader.buffer.capacity() > 8 * 1024 * 1024 && reader.next_frame().unwrap().is_some());
        assert!(reader.buffer.capacity() <= KEPT_BYTES, "{} bytes are kept for nothing", reader.buffer.capacity());
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_at_its_header() {
        let mut reader = FrameReader::default();
        reader.push(&[255, 255, 255, 255, 1]);
        assert_eq!(reader.next_frame(), Err(FrameError::TooLarge(u32::MAX as usize)));
        assert!(encode(0, &vec![0; MAX_PAYLOAD_BYTES + 1]).is_err());
    }
}
