//! Ways in for the targets of `fuzz/`.

use std::path::Path;

use super::{call, download};

/// The part of a file that a range asks for.
pub(crate) fn range(range: &str, size: u64) -> Option<(u64, u64)> {
    download::part(range, size)
}

/// The header of a file with this name.
pub(crate) fn disposition(name: &[u8]) -> String {
    download::disposition(name)
}

/// A path as it stands in links, and the same read again.
pub(crate) fn path_there_and_back(path: &Path) -> (String, Vec<u8>) {
    let written = call::encode_path(path);
    let read = call::rest(&format!("/v1/sessions/abcd/files/{written}"), 4);
    (written, read)
}
