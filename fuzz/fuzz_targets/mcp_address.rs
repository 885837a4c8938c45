//! Addresses of resources: whatever file they name lies beneath the workspace.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;

fuzz_target!(|rest: &str| {
    for uri in [rest.to_owned(), format!("belljar://sessions/{rest}"), format!("belljar://sessions/abcd/files/{rest}")] {
        let file: Option<std::path::PathBuf> = server::fuzzing::resource(&uri);
        let is_within = |path: &Path| !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
        assert!(file.as_deref().is_none_or(is_within), "{uri}: {file:?}");
    }
});
