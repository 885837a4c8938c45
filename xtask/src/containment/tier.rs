//! Runs the engine's suite as one of the tiers: which user, with or without control groups.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value as Json;

use super::delegated::Delegated;
use super::named::Binary;
use super::result::{Attempt, Tier, today};
use crate::ci::{self, ORDINARY, ordinary_command, say};

/// Where an ordinary user finds the programs of the tests.
pub(crate) struct Stage {
    folder: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) binaries: Vec<Binary>,
}

impl Stage {
    /// Copies the programs to where everybody can read them.
    pub(crate) fn prepare(root: &Path, binaries: &[Binary]) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("belljar-containment-stage-{}", std::process::id()));
        let home = folder.join("home");
        fs::create_dir_all(&home)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let stage = Self { folder, root: root.to_owned(), binaries: binaries.to_vec() };
        if is_root() {
            ci::check(Command::new("chown").arg(format!("{ORDINARY}:{ORDINARY}")).arg(&home))?;
        }
        for binary in binaries {
            fs::copy(&binary.path, stage.copy(binary)).with_context(|| format!("cannot copy `{}`", binary.path.display()))?;
        }
        fs::copy(ci::target(root)?.join("debug/belljar"), stage.folder.join("belljar"))?;
        Ok(stage)
    }

    fn copy(&self, binary: &Binary) -> PathBuf {
        self.folder.join(format!("{}-{}", binary.package, binary.target))
    }

    /// The folder for files of a run.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// A data folder that the ordinary user may write to, with the environments of another.
    pub(crate) fn own_data(&self, data: &Path) -> anyhow::Result<PathBuf> {
        let own = self.home().join("data");
        if !own.exists() {
            fs::create_dir(&own)?;
            fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
            for name in ["environments", "cache"] {
                std::os::unix::fs::symlink(data.join(name), own.join(name))?;
            }
            ci::check(Command::new("chown").arg(format!("{ORDINARY}:{ORDINARY}")).arg(&own))?;
        }
        Ok(own)
    }

    /// A program of the tests, as this user or as the ordinary one.
    pub(crate) fn command(&self, binary: &Binary, ordinary: bool, data: &Path) -> Command {
        let mut command = if ordinary { ordinary_command(&self.copy(binary)) } else { Command::new(&binary.path) };
        if ordinary {
            command.current_dir(self.home()).env("HOME", self.home()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command.env("BELLJAR_TEST_BINARY", self.folder.join("belljar"));
        } else {
            command.current_dir(self.root.join("crates").join(&binary.package));
        }
        command.env("BELLJAR_TEST_DATA", data).stdin(Stdio::null());
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A tier that can be had here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// This user, with what control groups there are.
    Own,
    /// This user, without control groups.
    Ungrouped,
    /// The ordinary user, with a group of its own.
    Delegated,
    /// The ordinary user.
    Ordinary,
}

impl Place {
    /// Those that can be had: all four for root, else the two of whoever runs this.
    pub(crate) fn all() -> Vec<Self> {
        if is_root() { vec![Self::Own, Self::Ungrouped, Self::Delegated, Self::Ordinary] } else { vec![Self::Own, Self::Ungrouped] }
    }

    /// Its name, where root runs it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Own => "root-cgroups",
            Self::Ungrouped => "root",
            Self::Delegated => "user-cgroups",
            Self::Ordinary => "user",
        }
    }

    /// Runs the suite.
    pub(crate) fn suite(self, stage: &Stage, data: &Path, short: bool, only: &str) -> anyhow::Result<Tier> {
        let binary = stage.binaries.iter().find(|binary| binary.package == "engine" && binary.target == "containment");
        let binary = binary.context("the suite was not built")?;
        let report = stage.home().join(format!("{}.json", self.name()));
        let mut command = stage.command(binary, matches!(self, Self::Delegated | Self::Ordinary), data);
        let group = if self == Self::Delegated { Delegated::make(ORDINARY)? } else { None };
        if let Some(group) = &group {
            let (inside, folder) = (group.command(&command), command.get_current_dir().map(Path::to_owned));
            let variables: Vec<_> = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
            command = inside;
            command.env_clear().envs(variables).stdin(Stdio::null());
            folder.map(|folder| command.current_dir(folder));
        } else if self == Self::Delegated {
            say("this host gives no group away: left out");
        }
        command.arg("--nocapture").env("BELLJAR_CONTAINMENT_REPORT", &report).env("BELLJAR_CONTAINMENT_ONLY", only);
        command.env("BELLJAR_CONTAINMENT_FORM", if short { "short" } else { "full" });
        if self == Self::Ungrouped {
            command.env("BELLJAR_CONTAINMENT_CGROUPS", "off");
        }
        let status = command.status().with_context(|| format!("cannot start `{}`", binary.path.display()))?;
        // Rows that are not as they should be are in the report; without one, the suite itself went wrong.
        let text = fs::read_to_string(&report).with_context(|| format!("the suite ended with {status} and left no report"))?;
        tier(&serde_json::from_str(&text)?)
    }
}

/// What the suite reported, each attempt with all its rows together.
fn tier(report: &Json) -> anyhow::Result<Tier> {
    let word = |value: &Json, name: &str| value.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    let mut attempts: BTreeMap<(String, String), Attempt> = BTreeMap::new();
    let rows = report.get("rows").and_then(Json::as_array).context("a report without rows")?;
    for row in rows {
        let (number, title) = (word(row, "number"), word(row, "title"));
        let fresh = || Attempt { number: number.clone(), title: title.clone(), expected: word(row, "expected"), ..Attempt::default() };
        let attempt = attempts.entry((number.clone(), title.clone())).or_insert_with(fresh);
        match word(row, "result").as_str() {
            "holds" => attempt.held += 1,
            "NOT HELD" => attempt.not_held += 1,
            _ => attempt.invalid += 1,
        }
        if row.get("asExpected") != Some(&Json::Bool(true)) {
            attempt.unexpected.push(format!("{}, {}: {}", word(row, "language"), word(row, "way"), word(row, "note")));
        }
    }
    ensure!(!attempts.is_empty(), "the suite tried nothing");
    Ok(Tier {
        tier: word(report, "tier"),
        date: today()?,
        second_session: report.get("secondSession").cloned().unwrap_or_default(),
        attempts: attempts.into_values().collect(),
    })
}
