//! The served description, tried route by route with requests that fit it and requests that do not: `tests/fuzz`.

use std::path::Path;
use std::process::Command;

use crate::ci::check;
use crate::clients::{KEY, Server, installed};

/// Runs it; what it needs is installed into the data folder where it is not, or is another version.
pub(crate) fn run(root: &Path, belljar: &Path, data: &Path) -> anyhow::Result<()> {
    let folder = root.join("tests/fuzz");
    let python = installed(&folder.join("requirements.txt"), &data.join("fuzz"))?;
    let server = Server::start(belljar, data, false)?;
    check(Command::new(python).arg(folder.join("fuzz.py")).env("BELLJAR_URL", &server.url).env("BELLJAR_KEY", KEY).env("PYTHONDONTWRITEBYTECODE", "1"))
}
