//! The `belljar` program: reads flags and configuration, does one command, and ends with a code that says how it went.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod client;
mod command;
mod config;
mod exit;
mod terminal;

/// What sessions and their outputs took goes back to the host when they end, whichever threads had it; that of the C library keeps hundreds of MiB.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::DONE });
        }
    };
    command::dispatch(arguments).unwrap_or_else(|error| exit::report(&error))
}
