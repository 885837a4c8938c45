//! Ways in for the targets of `fuzz/`: decoders of this crate over plain data, and nothing else.

use serde_json::{Map, Value as Json};

pub use crate::aca::fuzzing as aca;
pub use crate::listen::{Framing, framing};

/// A caller's document, as it is read strictly.
#[must_use]
pub fn json(bytes: &[u8]) -> Option<Map<String, Json>> {
    crate::json::parse(bytes).ok()
}

/// The part of a file that a `Range` header asks for, as (start, length): on native routes and on those of dynamic sessions.
#[must_use]
pub fn ranges(range: &str, size: u64) -> [Option<(u64, u64)>; 2] {
    [crate::rest::fuzzing::range(range, size), crate::aca::fuzzing::range(range, size)]
}

/// The `Content-Disposition` of a file with this name.
#[must_use]
pub fn disposition(name: &[u8]) -> String {
    crate::rest::fuzzing::disposition(name)
}

/// A path as it stands in links, and the same read again from behind `/v1/sessions/{id}/files/`.
#[must_use]
pub fn path_there_and_back(path: &std::path::Path) -> (String, Vec<u8>) {
    crate::rest::fuzzing::path_there_and_back(path)
}

/// The file of a workspace that the address of a resource names.
#[must_use]
pub fn resource(uri: &str) -> Option<std::path::PathBuf> {
    match crate::mcp::Address::parse(uri).ok()?.what {
        crate::mcp::What::File(path) => Some(path),
        _ => None,
    }
}
