//! `belljar config`: what is configured, and where it came from.

use std::io::Write;
use std::process::ExitCode;

use crate::args::Config;
use crate::config::Configuration;
use crate::terminal;

/// Does what was asked. The file has been read by now, so a bad one never gets here.
pub(crate) fn run(command: Config, configuration: &Configuration) -> anyhow::Result<ExitCode> {
    match command {
        Config::Show => std::io::stdout().write_all(configuration.show().as_bytes())?,
        Config::Check => terminal::note("the configuration is valid"),
    }
    Ok(ExitCode::SUCCESS)
}
