//! The containment suite over HTTP: what hostile code and hostile callers try through the service, on real sandboxes.
//!
//! The attempts are numbered as in the list of threats. Each test carries its numbers, a control where one is possible (the same attempt against
//! something unprotected gets through, or the same for its rightful caller, or the test says INVALID; where there is none, its absence is said),
//! an oracle outside (a canary that must not be read or written, a second tenant that goes on, this process's memory and descriptors: [`oracles`]),
//! and accepts only typed answers: never a 5xx, never a hang.
//!
//! Which number is tried where, here and elsewhere, stands in `xtask/containment/coverage.toml`, which a test compares with what there is;
//! `cargo xtask containment` runs all of it. `BELLJAR_CONTAINMENT_FORM=full` tries with the figures of the list of threats.
//!
//! `BELLJAR_TEST_DATA` names the folder with the environment `core`, which is built there when it is missing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test stops where its assumption ends")]
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test stops where its assumption ends")]

#[path = "../rest/client.rs"]
mod client;
mod scene;

mod door;
mod files;
mod inside;
mod oracles;
