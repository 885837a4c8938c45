//! The served description, tried route by route with requests that fit it and requests that do not: `tests/fuzz`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::ci::{check, only};
use crate::clients::{KEY, Server, installed};

/// The command: `--cases N` goes on until there were so many requests, from seed `--seed N` on.
pub(crate) fn command(options: &[&str]) -> anyhow::Result<()> {
    let mut variables = Vec::new();
    for pair in options.chunks(2) {
        let &[name, value] = pair else { bail!("`{}` wants a value", pair.join(" ")) };
        let variable = match name {
            "--cases" => "BELLJAR_CASES",
            "--seed" => "BELLJAR_SEED",
            _ => bail!("`{name}` is unknown: `--cases N` and `--seed N` are not"),
        };
        value.parse::<u64>().with_context(|| format!("`{value}` is no number"))?;
        variables.push((variable, value));
    }
    only(|root, belljar, data| with(root, belljar, data, &variables))
}

/// Runs the short form; what it needs is installed into the data folder where it is not, or is another version.
pub(crate) fn run(root: &Path, belljar: &Path, data: &Path) -> anyhow::Result<()> {
    with(root, belljar, data, &[])
}

fn with(root: &Path, belljar: &Path, data: &Path, variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let folder = root.join("tests/fuzz");
    let python = installed(&folder.join("requirements.txt"), &data.join("fuzz"))?;
    let server = Server::start(belljar, data, false)?;
    let mut command = Command::new(python);
    command.arg(folder.join("fuzz.py")).env("BELLJAR_URL", &server.url).env("BELLJAR_KEY", KEY).env("PYTHONDONTWRITEBYTECODE", "1");
    check(command.envs(variables.iter().copied()))
}
