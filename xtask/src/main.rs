//! Chores of the repository: `cargo xtask ci` is the test command of the README.

use std::process::ExitCode;

mod ci;
mod data;

const USAGE: &str = "usage: cargo xtask ci    run every check: doctor, lints, tests as this user and, for root, as an ordinary one";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ci"] => ci::run(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ci::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
