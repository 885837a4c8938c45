//! Commands, one file each.

use std::process::ExitCode;

use engine::{Controls, Engine, Settings};

use crate::args::{Arguments, Command};
use crate::config::{Configuration, ServerSection};

mod audit;
mod bench;
mod config;
mod doctor;
mod env;
mod keys;
mod mcp;
mod run;
mod serve;

mod progress;

/// Does what was asked.
pub(crate) fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let flags = match &arguments.command {
        Command::Serve(serve) => serve::flags(serve),
        _ => ServerSection::default(),
    };
    let configuration = Configuration::read(&arguments.global, &flags)?;
    match arguments.command {
        Command::Serve(serve) => serve::run(&serve, &arguments.global, configuration),
        Command::Mcp => mcp::run(configuration),
        Command::Run(run) => run::run(&run, &configuration),
        Command::Env { command } => env::run(command, &configuration),
        Command::Doctor { json } => doctor::run(json, &configuration),
        Command::Bench(bench) => bench::run(&bench, &configuration),
        Command::Keys { command } => keys::run(command, &configuration),
        Command::Audit { command } => audit::run(command, &configuration),
        Command::Config { command } => config::run(command, &configuration),
    }
}

/// The engine as configured.
fn engine(configuration: &Configuration) -> Engine {
    let host = engine::environment::Host::new(std::env::vars_os());
    Engine::new(Settings { data: configuration.data.value.clone(), host, controls: Controls::default() })
}

/// Names of the layers that `require` may list.
pub(crate) fn doctor_layers() -> Vec<&'static str> {
    sandbox::probe::LAYERS.iter().map(|layer| layer.id).collect()
}
