//! Chores of the repository: `cargo xtask ci` is the test command of the README.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod ci;
mod clients;
mod containment;
mod data;
mod fuzz;
mod soak;
mod tied;

const USAGE: &str = "\
usage: cargo xtask ci    run every check: doctor, lints, tests as this user and, for root, as an ordinary one
       cargo xtask clients [mcp]
                         try the real clients of tests/clients on a server, as `ci` does; or only those of the Model Context Protocol
       cargo xtask fuzz [service [--cases N] [--seed N] | decoders [--seconds N] [TARGET]...]
                         call every route of the served description with what fits it and what does not, and give every decoder between
                         inside and outside what nobody would write, for some seconds each: both as `ci` does, or
                         the service until there were N requests
       cargo xtask containment [--short] [--only T001,…] [--tier NAME] [--tests] [--at-once] | containment pages [--check]
                         try everything of the list of threats on every tier that can be had here; in full, write down what it came to
       cargo xtask soak [--sandboxes N] [--kills N] [--served N] [--server-kills N] [--faults N] [--seed N] [--data FOLDER] [--json FILE]
                         start and kill sandboxes, then belljar itself, at any moment; whatever is left is a failure";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ci"] => ci::run(),
        ["clients"] => ci::only(|root, belljar, data| clients::run(root, belljar, data).and_then(|()| clients::mcp::run(root, belljar, data))),
        ["clients", "mcp"] => ci::only(clients::mcp::run),
        ["fuzz", options @ ..] => fuzz::command(options),
        ["tied", arguments @ ..] => tied::run(arguments),
        ["containment", options @ ..] => containment::run(options),
        [command @ ("soak" | "soak-lane" | "soak-victim"), options @ ..] => soak::run(command, options, test_data),
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

/// The data folder of the tests.
fn test_data() -> anyhow::Result<PathBuf> {
    data::folder(&ci::target(Path::new(env!("CARGO_MANIFEST_DIR")))?)
}
