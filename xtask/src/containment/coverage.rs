//! What is tried of each number of the list of threats, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The numbers of the list, family by family: what they are about, the first, the last.
pub(crate) const FAMILIES: &[(&str, u32, u32)] = &[
    ("system calls", 1, 29),
    ("files, /proc, devices", 30, 49),
    ("processes, signals, time", 50, 69),
    ("network", 70, 94),
    ("using things up", 100, 119),
    ("what the host does with files of code", 120, 138),
    ("agent, protocol, settings", 150, 163),
    ("imports", 170, 179),
    ("callers over HTTP", 180, 205),
    ("governance", 220, 233),
    ("virtual machines", 240, 251),
];

/// The suite of the engine, whose rows are counted one by one.
pub(crate) const SUITE: &str = "engine containment hostile_code_stays_inside";

/// One number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// What is tried.
    pub(crate) tries: String,
    /// `package target path` of each test.
    #[serde(default)]
    pub(crate) tests: Vec<String>,
    /// Another command that tries it.
    pub(crate) by: Option<String>,
    /// What of it is not tried.
    pub(crate) remains: Option<String>,
    /// Why nothing is tried.
    pub(crate) none: Option<String>,
}

/// All numbers.
#[derive(Debug)]
pub(crate) struct Coverage(pub(crate) BTreeMap<String, Entry>);

impl Coverage {
    /// Reads the table and checks that it is complete.
    pub(crate) fn load(root: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(root.join("xtask/containment/coverage.toml")).context("cannot read the table of coverage")?;
        let coverage = Self(toml::from_str(&text).context("the table of coverage is not as it should be")?);
        coverage.check(root)?;
        Ok(coverage)
    }

    fn check(&self, root: &Path) -> anyhow::Result<()> {
        let wanted: BTreeSet<String> = FAMILIES.iter().flat_map(|(_, first, last)| *first..=*last).map(|number| format!("T{number:03}")).collect();
        let there: BTreeSet<String> = self.0.keys().cloned().collect();
        ensure!(wanted == there, "without an entry, or unknown: {:?}", wanted.symmetric_difference(&there).collect::<Vec<_>>());
        let suite = suite_numbers(root)?;
        for (number, entry) in &self.0 {
            let tried = !entry.tests.is_empty() || entry.by.is_some();
            ensure!(tried != entry.none.is_some(), "{number}: either it is tried, or it says why nothing is");
            let in_suite = entry.tests.iter().any(|test| test == SUITE);
            // What is tried under another number says which.
            ensure!(!in_suite || suite.contains(number) || entry.remains.is_some(), "{number} is not in the tables of the suite");
            ensure!(in_suite || !suite.contains(number), "{number} is in the tables of the suite, and not here");
        }
        let known = test_functions(root)?;
        for test in self.0.values().flat_map(|entry| &entry.tests) {
            ensure!(known.contains(&function(test)?), "there is no test `{test}`");
        }
        Ok(())
    }
}

/// The package of a test and the name of its function.
fn function(test: &str) -> anyhow::Result<(String, String)> {
    let words: Vec<&str> = test.split(' ').collect();
    let [package, _, path] = words.as_slice() else { anyhow::bail!("`{test}` is not `package target path`") };
    Ok(((*package).to_owned(), path.rsplit("::").next().unwrap_or(path).to_owned()))
}

/// Numbers in the tables of the suite, and the one that is a test of its own there.
fn suite_numbers(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let folder = root.join("crates/engine/tests/containment");
    let mut numbers = BTreeSet::from(["T118".to_owned()]);
    for name in ["expected.toml", "exhaustion.toml"] {
        let text = fs::read_to_string(folder.join(name)).with_context(|| format!("cannot read `{name}`"))?;
        numbers.extend(text.lines().filter_map(|line| line.strip_prefix("number = \"")?.strip_suffix('"').map(str::to_owned)));
    }
    Ok(numbers)
}

/// Every test function of every crate, by package.
fn test_functions(root: &Path) -> anyhow::Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let entry = entry?;
        let package = entry.file_name().to_string_lossy().into_owned();
        let mut folders = vec![entry.path().join("src"), entry.path().join("tests")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path)?;
                    found.extend(tests_in(&text).map(|name| (package.clone(), name)));
                }
            }
        }
    }
    Ok(found)
}

/// The functions that follow an attribute for tests.
fn tests_in(text: &str) -> impl Iterator<Item = String> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        }
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?.split('(').next()?;
        std::mem::take(&mut marked).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_an_entry_and_every_test_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Coverage::load(&root).unwrap();
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut coverage = Coverage::load(&root).unwrap();
        coverage.0.remove("T077");
        assert!(coverage.check(&root).unwrap_err().to_string().contains("T077"));
        let mut coverage = Coverage::load(&root).unwrap();
        coverage.0.get_mut("T182").unwrap().tests.push("server hostile door::no_such_test".to_owned());
        assert!(coverage.check(&root).unwrap_err().to_string().contains("no_such_test"));
    }
}
