//! What a template's process and the launcher say to each other: datagrams whose first byte is the kind, numbers little endian.
//!
//! The template forks workers: it enters the process namespace of a sandbox and forks; the worker then waits on its channel until
//! init hands it the sandbox's other namespaces. See `docs/worker-channel.md`.

use crate::message::Exit;

/// launcher → template: fork a worker. The sandbox's number (`u64`); descriptors: the sandbox's process namespace, the worker's end of its channel.
pub const FORK: u8 = 1;

/// template → launcher: imports are done; JSON.
pub const READY: u8 = 1;
/// template → launcher: a worker was forked. The sandbox's number (`u64`), the process as the template sees it (`i32`).
pub const FORKED: u8 = 2;
/// template → launcher: no worker. The sandbox's number (`u64`), the reason.
pub const REFUSED: u8 = 3;
/// template → launcher: a worker ended. The process (`i32`), its wait status (`i32`).
pub const ENDED: u8 = 4;
/// template → launcher: it could not become the runtime; text.
pub const FAILED: u8 = 5;
/// template → launcher: what is being imported; a name.
pub const IMPORTING: u8 = 6;

/// A datagram of a template may be this long, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// What a template says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromTemplate<'a> {
    /// [`READY`], [`FAILED`] or [`IMPORTING`]: text for belljar.
    Says {
        /// Which.
        kind: u8,
        /// The text.
        text: &'a [u8],
    },
    /// [`FORKED`].
    Forked {
        /// The sandbox's number.
        sandbox: u64,
        /// The worker's process.
        process: i32,
    },
    /// [`REFUSED`].
    Refused {
        /// The sandbox's number.
        sandbox: u64,
        /// Why.
        reason: &'a [u8],
    },
    /// [`ENDED`].
    Ended {
        /// The worker's process.
        process: i32,
        /// How it ended.
        exit: Exit,
    },
}

/// Reads a datagram of a template; `None` for anything that is not exactly one of its kinds.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<FromTemplate<'_>> {
    let (&kind, rest) = datagram.split_first()?;
    match kind {
        READY | FAILED | IMPORTING => Some(FromTemplate::Says { kind, text: rest }),
        FORKED => {
            let (sandbox, rest) = rest.split_first_chunk()?;
            Some(FromTemplate::Forked { sandbox: u64::from_le_bytes(*sandbox), process: i32::from_le_bytes(rest.try_into().ok()?) })
        }
        REFUSED => {
            let (sandbox, reason) = rest.split_first_chunk()?;
            Some(FromTemplate::Refused { sandbox: u64::from_le_bytes(*sandbox), reason })
        }
        ENDED => {
            let (process, status) = rest.split_first_chunk()?;
            Some(FromTemplate::Ended { process: i32::from_le_bytes(*process), exit: exit_of(i32::from_le_bytes(status.try_into().ok()?)) })
        }
        _ => None,
    }
}

/// A raw wait status as Linux encodes it.
const fn exit_of(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn datagrams_are_read_by_kind() {
        assert_eq!(parse(b"\x06numpy"), Some(FromTemplate::Says { kind: IMPORTING, text: b"numpy" }));
        assert_eq!(parse(b"\x02\x07\0\0\0\0\0\0\0\x01\x01\0\0"), Some(FromTemplate::Forked { sandbox: 7, process: 257 }));
        assert_eq!(parse(b"\x03\x07\0\0\0\0\0\0\0why"), Some(FromTemplate::Refused { sandbox: 7, reason: b"why" }));
        assert_eq!(parse(b"\x04\x09\0\0\0\x09\0\0\0"), Some(FromTemplate::Ended { process: 9, exit: Exit::Signal(9) }));
        assert_eq!(parse(b"\x04\x09\0\0\0\0\x03\0\0"), Some(FromTemplate::Ended { process: 9, exit: Exit::Code(3) }));
        for broken in [&b""[..], b"\x07", b"\x02\x07", b"\x02\x07\0\0\0\0\0\0\0\x01\x01\0\0\0", b"\x03\x01", b"\x04\x01\0\0\0"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
