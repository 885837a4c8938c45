//! The command line as its users meet it: the real program, real sandboxes, and what is left behind.
//!
//! | variable | what |
//! |---|---|
//! | `BELLJAR_TEST_DATA` | data folder with the environment `core` [default: `target/belljar-test-data`, built there at first use] |
//! | `BELLJAR_TEST_BINARY` | the program [default: the one that cargo built] |
//! | `BELLJAR_TEST_EXAMPLES` | folder of the examples [default: the repository's] |
//!
//! All tests pass as root and as an ordinary user; where the two differ, a test says what it expects of each.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

mod artifacts;
mod bad_input;
mod bench;
mod documents;
mod ends;
mod examples;
mod help;
mod keys;
mod limits;
mod mcp;
mod object;
mod output;
mod remote;
mod serve;
mod shell;
mod terminal;
