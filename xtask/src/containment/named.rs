//! Runs the tests of other programs that stand for a number of the list, by their names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use serde_json::Value as Json;

use super::coverage::{Coverage, SUITE};
use super::result::Tested;
use super::tier::Stage;
use crate::ci::{self, say};

/// Programs whose tests start sandboxes: they are run as the ordinary user as well.
const BOTH_USERS: &[&str] = &["hostile", "rest", "pool", "session"];

/// A program of tests.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub(crate) package: String,
    /// `lib`, `bin`, or the name of an integration test.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
}

/// Builds all programs of tests.
pub(crate) fn binaries(root: &Path) -> anyhow::Result<Vec<Binary>> {
    let mut found = Vec::new();
    for message in ci::test_messages(root)? {
        let text = |pointer: &str| message.pointer(pointer).and_then(Json::as_str).map(str::to_owned);
        let Some(path) = text("/executable") else { continue };
        if message.pointer("/profile/test") != Some(&Json::Bool(true)) {
            continue;
        }
        let kind = text("/target/kind/0").unwrap_or_default();
        let manifest = text("/manifest_path").map(PathBuf::from).unwrap_or_default();
        let package = manifest.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let target = if kind == "test" { text("/target/name").unwrap_or_default() } else { kind };
        found.push(Binary { package, target, path: PathBuf::from(path) });
    }
    Ok(found)
}

/// Runs those that the table of coverage names.
pub(crate) fn run(stage: &Stage, data: &Path, coverage: &Coverage, short: bool, only: &str) -> anyhow::Result<Vec<Tested>> {
    let mut wanted: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let chosen = |number: &str| only.is_empty() || only.split(',').any(|one| one == number);
    for (_, entry) in coverage.0.iter().filter(|(number, _)| chosen(number)) {
        for test in entry.tests.iter().filter(|test| *test != SUITE) {
            let mut words = test.splitn(3, ' ').map(str::to_owned);
            if let (Some(package), Some(target), Some(path)) = (words.next(), words.next(), words.next()) {
                wanted.entry((package, target)).or_default().insert(path);
            }
        }
    }
    let mut tested = Vec::new();
    for ((package, target), names) in &wanted {
        let binary = stage.binaries.iter().find(|binary| binary.package == *package && binary.target == *target);
        let binary = binary.with_context(|| format!("there are no tests `{package} {target}`"))?;
        for ordinary in [false, true] {
            if ordinary && !(BOTH_USERS.contains(&target.as_str()) && rustix::process::geteuid().is_root()) {
                continue;
            }
            let user = if ordinary { "an ordinary user" } else { "this user" };
            say(&format!("\n== {package} {target} as {user}: {} tests", names.len()));
            tested.extend(results(stage, binary, names, (ordinary, short, data))?);
        }
    }
    Ok(tested)
}

fn results(stage: &Stage, binary: &Binary, names: &BTreeSet<String>, (ordinary, short, data): (bool, bool, &Path)) -> anyhow::Result<Vec<Tested>> {
    // A service writes to its data folder.
    let own = if ordinary { stage.own_data(data)? } else { data.to_owned() };
    let mut command = stage.command(binary, ordinary, &own);
    // A million guesses are the same for every user.
    command.arg("--exact").args(names).env("BELLJAR_CONTAINMENT_FORM", if short || ordinary { "short" } else { "full" });
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{}`", binary.path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |name: &String| {
        let line = text.lines().find_map(|line| line.strip_prefix("test ")?.strip_prefix(name.as_str())?.strip_prefix(" ... "));
        let result = match line {
            Some("ok") => "ok",
            Some(_) => "failed",
            None => "not run",
        };
        Tested { name: format!("{} {} {name}", binary.package, binary.target), ordinary, result: result.to_owned() }
    };
    let tested: Vec<Tested> = names.iter().map(of).collect();
    if tested.iter().any(|test| test.result != "ok") {
        say(&text);
    }
    Ok(tested)
}
