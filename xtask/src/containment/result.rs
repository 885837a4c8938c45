//! What a run came to, and the file that keeps the last full one.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Where the last full run is kept.
const FILE: &str = "docs/containment.json";

/// A run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Run {
    /// When something of it was tried last, as all dates `YYYY-MM-DD`.
    pub(crate) date: String,
    pub(crate) kernel: String,
    /// `full` or `short`
    pub(crate) form: String,
    pub(crate) tiers: Vec<Tier>,
    /// When the tests of other programs ran last.
    pub(crate) tests_date: String,
    pub(crate) tests: Vec<Tested>,
}

/// The engine's suite on one tier.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Tier {
    pub(crate) tier: String,
    /// When it was tried last: tiers may be tried one by one.
    pub(crate) date: String,
    /// How long the second session's executions took.
    pub(crate) second_session: Json,
    pub(crate) attempts: Vec<Attempt>,
}

/// All rows of one kind of attempt.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Attempt {
    pub(crate) number: String,
    pub(crate) title: String,
    pub(crate) expected: String,
    pub(crate) held: u32,
    pub(crate) not_held: u32,
    pub(crate) invalid: u32,
    /// Rows that came out otherwise than the table says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unexpected: Vec<String>,
}

/// A test of another program.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Tested {
    pub(crate) name: String,
    /// As the ordinary user.
    pub(crate) ordinary: bool,
    pub(crate) result: String,
}

/// The date, `YYYY-MM-DD`.
pub(crate) fn today() -> anyhow::Result<String> {
    let date = std::process::Command::new("date").args(["-u", "+%F"]).output().context("cannot ask for the date")?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}

impl Run {
    /// Nothing tried yet.
    pub(crate) fn begin(short: bool) -> anyhow::Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
        let date = today()?;
        Ok(Self { tests_date: date.clone(), date, kernel: kernel.trim().to_owned(), form: if short { "short" } else { "full" }.to_owned(), ..Self::default() })
    }

    /// The last full one.
    pub(crate) fn load(root: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(root.join(FILE)).with_context(|| format!("cannot read `{FILE}`"))?;
        serde_json::from_str(&text).with_context(|| format!("`{FILE}` is not as it should be"))
    }

    /// The same with what was run again in the place of what it had.
    pub(crate) fn with(mut self, again: Self) -> Self {
        for tier in again.tiers {
            match self.tiers.iter_mut().find(|there| there.tier == tier.tier) {
                Some(there) => *there = tier,
                None => self.tiers.push(tier),
            }
        }
        if !again.tests.is_empty() {
            (self.tests, self.tests_date) = (again.tests, again.tests_date);
        }
        (self.date, self.kernel) = (again.date, again.kernel);
        self
    }

    /// Keeps it.
    pub(crate) fn write(&self, root: &Path) -> anyhow::Result<()> {
        fs::write(root.join(FILE), serde_json::to_string_pretty(self)? + "\n").with_context(|| format!("cannot write `{FILE}`"))
    }

    /// What is not as it should be.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for tier in &self.tiers {
            for attempt in &tier.attempts {
                problems.extend(
                    attempt.unexpected.iter().map(|row| format!("{} {} {} ({row}), expected `{}`", tier.tier, attempt.number, attempt.title, attempt.expected)),
                );
            }
        }
        let failed = self.tests.iter().filter(|test| test.result != "ok");
        problems.extend(failed.map(|test| format!("{}{}: {}", test.name, if test.ordinary { " as an ordinary user" } else { "" }, test.result)));
        problems
    }

    /// Prints a table.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{} form, {}, kernel {}", self.form, self.date, self.kernel)?;
        writeln!(out, "{:<14} {:>8} {:>6} {:>9} {:>8} {:>11}", "tier", "attempts", "held", "not held", "invalid", "unexpected")?;
        for tier in &self.tiers {
            let sum = |count: fn(&Attempt) -> u32| tier.attempts.iter().map(count).sum::<u32>();
            let unexpected: usize = tier.attempts.iter().map(|attempt| attempt.unexpected.len()).sum();
            let (held, not_held, invalid) = (sum(|one| one.held), sum(|one| one.not_held), sum(|one| one.invalid));
            writeln!(out, "{:<14} {:>8} {held:>6} {not_held:>9} {invalid:>8} {unexpected:>11}", tier.tier, tier.attempts.len())?;
        }
        let ok = self.tests.iter().filter(|test| test.result == "ok").count();
        writeln!(out, "tests of other programs: {ok} of {} passed", self.tests.len())?;
        Ok(())
    }
}
