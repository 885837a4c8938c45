//! Paths and queries of dynamic sessions: whatever file they name lies beneath the workspace.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use server::fuzzing::aca;

fn is_within(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (path, query, name) = input;
    for path in [path.to_owned(), format!("/files/{path}"), format!("/pools/p/files/content/{path}")] {
        let Some((written, file)) = aca::file(&path, query) else { continue };
        assert!(file.as_deref().is_none_or(is_within), "{file:?}");
        let again = aca::file(&written, query).expect("what is written is read again");
        assert_eq!(again, (written, file));
    }
    assert!(aca::upload_target(name, query).as_deref().is_none_or(is_within));
});
