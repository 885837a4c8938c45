//! The native routes as callers see them: a server on loopback with real sandboxes, spoken to in bytes.
//!
//! `BELLJAR_TEST_DATA` names the folder with the environment `core`, which is built there when it is missing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test stops where its assumption ends")]
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test stops where its assumption ends")]

mod client;
mod scene;

mod errors;
mod events;
mod executions;
mod files;
mod run;
mod tools;
