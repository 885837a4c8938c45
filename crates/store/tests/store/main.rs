//! The store as a server has it: many threads at once, and an end at any moment.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and the victim of a kill speaks over its output")]

mod executions;
mod kill;
mod record;
