//! The store as a server has it: many threads at once, and an end at any moment.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "a test fails by panicking")]

mod executions;
mod kill;
mod record;
