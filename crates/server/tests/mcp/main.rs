//! MCP over HTTP as clients see it: a server on loopback with real sandboxes, spoken to in bytes. Clients of others are tried by
//! `cargo xtask clients`; standard input and output by the tests of `cli`.
//!
//! | threat | where |
//! |---|---|
//! | T195, T196 | [`forms`] |
//! | T197 | [`connections`] |
//! | T198 | [`calls`] |
//!
//! `BELLJAR_TEST_DATA` names the folder with the environment `core`, which is built there when it is missing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test stops where its assumption ends")]
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test stops where its assumption ends")]

#[path = "../rest/client.rs"]
mod client;
mod peer;
#[path = "../rest/scene.rs"]
mod scene;

mod calls;
mod connections;
mod forms;
mod pool;
