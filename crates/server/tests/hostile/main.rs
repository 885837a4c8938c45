//! The containment suite over HTTP: what hostile code and hostile callers try through the service, on real sandboxes.
//!
//! The attempts are numbered as in the list of threats. Each test carries its numbers, a control where one is possible (the same attempt against
//! something unprotected gets through, or the same for its rightful caller, or the test says INVALID; where there is none, its absence is said),
//! an oracle outside (a canary that must not be read or written, a second tenant that goes on, this process's memory and descriptors: [`oracles`]),
//! and accepts only typed answers: never a 5xx, never a hang.
//!
//! | number | covered by |
//! |---|---|
//! | T039, T162 | [`inside`] |
//! | T050, T066 | [`inside`]; engine `session.rs`, `containment` |
//! | T056, T057 | [`inside`] |
//! | T109 | [`files`]; `rest/events.rs` a_reader_that_takes_nothing_holds_up_nobody |
//! | T120 – T128 | [`files`]; names written by callers: `rest/files.rs` names_of_every_kind_come_back |
//! | T129 | `rest/files.rs` paths_that_lead_elsewhere_are_refused, `aca.rs` paths_do_not_leave_the_workspace; of tools: [`door`] t198 |
//! | T130, T131 | [`files`]; atomic uploads: `rest/files.rs` uploads_replace_at_once_or_not_at_all |
//! | T132 | nothing downloads a workspace as an archive yet |
//! | T133, T134 | [`files`]; no medium is decoded, no preview made anywhere in the service |
//! | T135 | there are no snapshots yet |
//! | T136 – T138 | [`files`]; files of other owners or immutable ones cannot be made inside (`containment` T017, T048) |
//! | T150 – T153 | [`inside`] |
//! | T154 | `containment` T014, T031 |
//! | T155 – T163 | [`inside`]; fuzzing of frames: crate `protocol`; T161 also `runtimes/python/tests`; T163 also engine `pool.rs` |
//! | T180 | `app/tests/strangers.rs` every_route_refuses_strangers_and_all_in_the_same_words |
//! | T181 | [`files`] t122; rates: `app/tests/strangers.rs` a_key_that_asks_too_often_is_told_when_to_come_back |
//! | T182 – T185 | [`door`]; also `rest/errors.rs`, `app/tests/bodies.rs`, units of `json.rs` and `aca/multipart.rs` |
//! | T186 | `app/tests/connections.rs`, `bodies.rs`; HTTP/2 is not spoken: `app/tests/framing.rs` |
//! | T187 | `app/tests/framing.rs` |
//! | T188 | [`door`]; `rest/files.rs` parts_and_conditions |
//! | T189 | [`files`] t128; units of `rest/download.rs` |
//! | T190, T191 | [`files`] t133, as far as files are served; T190 – T193 of the web page: there is none yet |
//! | T194 | [`door`]; `app/tests/strangers.rs` names_and_pages_that_are_not_ours_are_refused |
//! | T195 | `app/tests/strangers.rs` names_and_pages_that_are_not_ours_are_refused; tests `mcp`, forms |
//! | T196 | [`door`]; tests `mcp`, forms |
//! | T199 | no WebSocket is spoken |
//! | T197 | tests `mcp`, connections |
//! | T200 | tests of `cli`, mcp |
//! | T198 | [`door`]; tests `mcp`, calls |
//! | T201 | [`door`] t183 |
//! | T202 | `cli` `serve.rs`: what it refuses to start without; `app/tests/encrypted.rs` |
//! | T203 | [`door`]; unit of engine `session/share.rs` |
//! | T205 | `cargo xtask fuzz`: schemathesis against the served description |
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
