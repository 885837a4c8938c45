//! The expected table: what each attempt must come to, on which tier, with which control.

use std::collections::BTreeMap;

use engine::Limits;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// What the host is able to hold with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Root, with control groups.
    RootCgroups,
    /// Root of a host that gives no control groups.
    Root,
    /// An ordinary user with a delegated group.
    UserCgroups,
    /// An ordinary user.
    User,
}

impl Tier {
    /// Whether the suite runs as an ordinary user.
    pub(crate) fn is_user(self) -> bool {
        matches!(self, Self::User | Self::UserCgroups)
    }

    /// Whether the host gives control groups.
    pub(crate) fn is_grouped(self) -> bool {
        matches!(self, Self::RootCgroups | Self::UserCgroups)
    }

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RootCgroups => "root-cgroups",
            Self::Root => "root",
            Self::UserCgroups => "user-cgroups",
            Self::User => "user",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    test: Vec<Test>,
}

/// One number of the list of threats.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    /// `T004`
    pub(crate) number: String,
    /// What is tried.
    pub(crate) title: String,
    /// The probe in Python.
    pub(crate) probe: String,
    /// Where it runs: `python` (in the worker), `shell` (a Python process of a shell command), `bang` (of `!cmd`, beside the worker).
    pub(crate) languages: Vec<String>,
    /// A probe for bash, and the parameter that its arguments come from.
    pub(crate) bash: Option<(String, String)>,
    /// Runs of the same probe in which attempts must get further: `seccomp`, `landlock`, `bare` (a sandbox without the layer, or
    /// without both), `roomy` (one with other limits), `host`, `unshared` (root of a user namespace on the host).
    pub(crate) controls: Vec<String>,
    /// The attempts must also be refused with seccomp and Landlock off: another layer stands behind them.
    #[serde(default)]
    pub(crate) deep: bool,
    /// Answers that count as a refusal then, beyond those.
    #[serde(default)]
    pub(crate) deep_also: Vec<String>,
    /// Parameters of the probe.
    #[serde(default)]
    pub(crate) parameters: Map<String, Json>,
    /// Answers that count as a refusal here, beyond the usual ones.
    #[serde(default)]
    pub(crate) also: Vec<String>,
    /// Attempts that may succeed, and why that is no harm. A name may end in `*`.
    #[serde(default)]
    pub(crate) allow: BTreeMap<String, String>,
    /// Attempts without a control, and why. A name may end in `*`.
    #[serde(default)]
    pub(crate) uncontrolled: BTreeMap<String, String>,
    /// Attempts that only root of the host can be shown to succeed with, and why. A name may end in `*`.
    #[serde(default)]
    pub(crate) uncontrolled_as_user: BTreeMap<String, String>,
    /// What the execution may come to; empty: whatever the attempts say.
    #[serde(default)]
    pub(crate) outcomes: Vec<String>,
    /// A limit that the execution must name as reached.
    pub(crate) limit_hit: Option<String>,
    /// Limits of the run, over the usual ones.
    #[serde(default)]
    pub(crate) limits: Map<String, Json>,
    /// Limits of the control `roomy`, over those.
    #[serde(default)]
    pub(crate) roomy: Map<String, Json>,
    /// What the control `roomy` has to come to, where its outcome is the proof.
    #[serde(default)]
    pub(crate) roomy_outcomes: Vec<String>,
    /// The most that the probe may count of each fact; a control has to count more.
    #[serde(default)]
    pub(crate) bounds: BTreeMap<String, f64>,
    /// The same, where there are no control groups.
    #[serde(default)]
    pub(crate) ungrouped_bounds: BTreeMap<String, f64>,
    /// A probe that looks, in the same sandbox, at what the first one left.
    pub(crate) second: Option<String>,
    /// What this process may take meanwhile beyond the 64 MiB of the rules, in MiB, and why.
    pub(crate) host_mebibytes: Option<(u64, String)>,
    /// What the probe must find, exactly.
    #[serde(default)]
    pub(crate) facts: BTreeMap<String, String>,
    /// Left out of the short form.
    #[serde(default)]
    pub(crate) full_only: bool,
    /// Parts of the number that this way in does not have.
    pub(crate) divides: Option<String>,
    /// The result by tier.
    pub(crate) expect: BTreeMap<String, String>,
}

impl Test {
    /// The most that may be counted on a tier.
    pub(crate) fn bounds(&self, tier: Tier) -> &BTreeMap<String, f64> {
        if tier.is_grouped() || self.ungrouped_bounds.is_empty() { &self.bounds } else { &self.ungrouped_bounds }
    }

    /// The limits of a run: those of the suite, and over them those of the table.
    pub(crate) fn limits(&self, roomy: bool) -> Limits {
        let usual = Limits { wall_seconds: 60, ..Limits::default() };
        let mut limits = serde_json::to_value(usual).expect("limits as JSON");
        let over = self.limits.iter().chain(self.roomy.iter().filter(|_| roomy));
        for (name, value) in over {
            limits[name] = value.clone();
        }
        serde_json::from_value(limits).unwrap_or_else(|error| panic!("limits of {}: {error}", self.number))
    }
}

/// The tables, which are part of this program.
pub(crate) fn tests() -> Vec<Test> {
    let table = |text: &str, name: &str| toml::from_str::<Table>(text).unwrap_or_else(|error| panic!("{name}: {error}")).test;
    let mut tests = table(include_str!("expected.toml"), "expected.toml");
    tests.extend(table(include_str!("exhaustion.toml"), "exhaustion.toml"));
    tests.retain(|test| !test.full_only || crate::report::is_full());
    tests
}

/// The entry for a name, or for a pattern that it matches.
pub(crate) fn entry<'a>(entries: &'a BTreeMap<String, String>, name: &str) -> Option<&'a String> {
    let matches = |pattern: &str| pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start));
    entries.iter().find(|(pattern, _)| matches(pattern)).map(|(_, reason)| reason)
}
