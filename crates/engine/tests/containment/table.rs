//! The expected table: what each attempt must come to, on which tier, with which control.

use std::collections::BTreeMap;

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
    /// without both), `host`, `unshared` (root of a user namespace on the host).
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
    /// What the probe must find, exactly.
    #[serde(default)]
    pub(crate) facts: BTreeMap<String, String>,
    /// Parts of the number that this way in does not have.
    pub(crate) divides: Option<String>,
    /// The result by tier.
    pub(crate) expect: BTreeMap<String, String>,
}

/// The table, which is part of this program.
pub(crate) fn tests() -> Vec<Test> {
    toml::from_str::<Table>(include_str!("expected.toml")).unwrap_or_else(|error| panic!("expected.toml: {error}")).test
}

/// The entry for a name, or for a pattern that it matches.
pub(crate) fn entry<'a>(entries: &'a BTreeMap<String, String>, name: &str) -> Option<&'a String> {
    let matches = |pattern: &str| pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start));
    entries.iter().find(|(pattern, _)| matches(pattern)).map(|(_, reason)| reason)
}
