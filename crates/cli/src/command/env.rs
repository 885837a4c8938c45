//! `belljar env`: environments.

use std::io::Write;
use std::process::ExitCode;

use engine::environment::{Environment, Options, Store};
use engine::{Command, Reply};

use crate::args::Env;
use crate::config::Configuration;
use crate::exit::usage;
use crate::terminal;

/// Does what was asked.
pub(crate) fn run(command: Env, configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let engine = super::engine(configuration);
    match command {
        Env::Build { name, requirements, python } => {
            let mut progress = super::progress::Shown::new();
            let options = Options { requirements, python: python.or_else(|| configuration.python.value.clone()) };
            let reply = engine.dispatch(Command::BuildEnvironment { name, options, progress: &mut |event| progress.show(event) })?;
            for environment in built(reply) {
                terminal::note(&format!(
                    "environment `{}` is ready: Python {}, {} packages",
                    environment.name,
                    environment.python_version,
                    environment.packages.len()
                ));
            }
        }
        Env::List { json } => {
            let all = built(engine.dispatch(Command::ListEnvironments)?);
            if json {
                print(&serde_json::to_string(&all)?)?;
            } else {
                for environment in &all {
                    print(&format!(
                        "{}  {}  Python {}  {} packages",
                        environment.name,
                        environment.digest,
                        environment.python_version,
                        environment.packages.len()
                    ))?;
                }
                let missing: Vec<&str> = Store::built_in().filter(|name| all.iter().all(|environment| environment.name != *name)).collect();
                for name in missing {
                    print(&format!("{name}  not built yet: `belljar env build {name}`"))?;
                }
            }
        }
        Env::Show { name, json } => {
            let all = built(engine.dispatch(Command::ListEnvironments)?);
            let Some(environment) = all.into_iter().find(|environment| environment.name == name) else {
                return Err(usage(format!("environment `{name}` is not built"), "see `belljar env list`, and build it with `belljar env build`"));
            };
            show(&environment, json)?;
        }
        Env::Remove { name } => {
            engine.dispatch(Command::RemoveEnvironment(name))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn built(reply: Reply) -> Vec<Environment> {
    match reply {
        Reply::Environments(all) => all,
        Reply::Execution(_) => Vec::new(),
    }
}

fn show(environment: &Environment, json: bool) -> anyhow::Result<()> {
    if json {
        return print(&serde_json::to_string(environment)?);
    }
    print(&format!(
        "name      {}\ndigest    {}\npython    {}\nfolder    {}",
        environment.name,
        environment.digest,
        environment.python_version,
        environment.root.display()
    ))?;
    for (package, version) in &environment.packages {
        print(&format!("{package}=={version}"))?;
    }
    Ok(())
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
