//! Paths as callers write them: whatever is taken lies beneath the workspace, and links lead back to it.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;

fn is_beneath(path: &Path) -> bool {
    !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_))) && !path.as_os_str().as_bytes().contains(&0)
}

fuzz_target!(|text: &[u8]| {
    let Ok(path) = engine::session::parse_path(text) else { return };
    assert!(is_beneath(&path), "{path:?}");
    assert!(path.as_os_str().len() <= 4000 && path.components().all(|part| part.as_os_str().len() <= 255));
    let below = text.strip_prefix(b"/mnt/data/").unwrap_or(text);
    assert_eq!(path.as_os_str(), OsStr::from_bytes(below), "nothing of it is changed");
    let (link, read) = server::fuzzing::path_there_and_back(&path);
    assert!(link.bytes().all(|byte| byte.is_ascii_graphic()) && !link.contains(['"', '<', '>', '\\', '?', '#', '&']), "{link}");
    assert_eq!(read, path.as_os_str().as_bytes());
});
