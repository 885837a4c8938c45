//! Decides what a number of the list came to: every attempt refused, every attempt shown to succeed where the layer is off.

use std::collections::{BTreeMap, BTreeSet};

use engine::Execution;
use serde_json::Value as Json;

use crate::harness::Document;
use crate::table::{Test, Tier, entry};

/// Answers of a layer that refuses. Anything else reached what it should not.
const REFUSALS: &[&str] = &[
    "EPERM",
    "EACCES",
    "ENOSYS",
    "EROFS",
    "ENOENT",
    "EXDEV",
    "ENOTTY",
    "EAFNOSUPPORT",
    "EOPNOTSUPP",
    "ENOTSUP",
    "killed SIGSYS",
    "Operation not permitted",
    "Permission denied",
    "Read-only file system",
    "No such file or directory",
    "Function not implemented",
    "Device or resource busy",
    "failed",
];
/// Answers of a control that prove nothing.
const NO_PROOF: &[&str] = &["ENOSYS", "not called"];

/// How one row of the table came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything was refused, and shown to succeed without.
    Holds,
    /// Something succeeded.
    NotHeld(String),
    /// Something was refused that nothing shows to succeed: the test proves nothing.
    Invalid(String),
}

/// What a run showed.
pub(crate) struct Evidence<'a> {
    /// Inside, everything on.
    pub(crate) inside: &'a Document,
    /// With a layer off, or outside.
    pub(crate) controls: &'a [Document],
    /// With seccomp and Landlock off, where other layers must stand alone.
    pub(crate) deep: Option<&'a Document>,
    /// The tier of the suite.
    pub(crate) tier: Tier,
}

/// Judges the attempts and facts of a probe.
pub(crate) fn judge(test: &Test, evidence: &Evidence<'_>) -> Verdict {
    let mut breaches = breaches(test, evidence.inside, &[]);
    breaches.extend(
        evidence.deep.iter().flat_map(|deep| self::breaches(test, deep, &test.deep_also)).map(|breach| format!("{breach} without seccomp and Landlock")),
    );
    breaches.extend(wrong_facts(test, evidence.inside));
    breaches.extend(over_bounds(test.bounds(evidence.tier), evidence.inside));
    if evidence.inside.attempts.is_empty() && evidence.inside.facts.is_empty() {
        breaches.push("the probe said nothing".to_owned());
    }
    if !breaches.is_empty() {
        return Verdict::NotHeld(some(&breaches));
    }
    let unproven = unproven(test, evidence);
    if unproven.is_empty() { Verdict::Holds } else { Verdict::Invalid(some(&unproven)) }
}

/// Judges attempts alone.
pub(crate) fn attempts(test: &Test, inside: &Document, controls: &[Document], tier: Tier) -> Verdict {
    let breaches = breaches(test, inside, &[]);
    if !breaches.is_empty() || inside.attempts.is_empty() {
        return Verdict::NotHeld(some(&breaches));
    }
    let unproven = unproven(test, &Evidence { inside, controls, deep: None, tier });
    if unproven.is_empty() { Verdict::Holds } else { Verdict::Invalid(some(&unproven)) }
}

/// Attempts that were not refused.
fn breaches(test: &Test, document: &Document, also: &[String]) -> Vec<String> {
    let refused = |answer: &str| REFUSALS.contains(&answer) || test.also.iter().chain(also).any(|other| other == answer);
    document
        .attempts
        .iter()
        .filter(|(name, _)| entry(&test.allow, name).is_none())
        .map(|(name, answer)| (name, answer.as_str().unwrap_or_default()))
        .filter(|(_, answer)| !answer.split('+').all(refused))
        .map(|(name, answer)| format!("{name}: {answer}"))
        .collect()
}

/// Facts that are not as the table says. `within: …` lists the words that may stand there.
fn wrong_facts(test: &Test, document: &Document) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, expected) in &test.facts {
        let found = document.facts.get(name).map(|fact| fact.as_str().map_or_else(|| fact.to_string(), str::to_owned));
        let fits = match (&found, expected.strip_prefix("within: ")) {
            (Some(found), Some(words)) => {
                let words: BTreeSet<&str> = words.split(' ').collect();
                found.split(' ').filter(|word| !word.is_empty()).all(|word| words.contains(word))
            }
            (Some(found), None) => found == expected,
            (None, _) => false,
        };
        if !fits {
            wrong.push(format!("{name} is {found:?}, not {expected:?}"));
        }
    }
    wrong
}

/// Refused attempts that no control shows to get further.
fn unproven(test: &Test, evidence: &Evidence<'_>) -> Vec<String> {
    let mut unproven = Vec::new();
    for (name, answer) in &evidence.inside.attempts {
        let answers: Vec<&str> = evidence.controls.iter().filter_map(|control| control.attempts.get(name).and_then(Json::as_str)).collect();
        let shown = answers.iter().any(|other| Some(*other) != answer.as_str() && !NO_PROOF.contains(other));
        let excused = entry(&test.uncontrolled, name).is_some() || evidence.tier.is_user() && entry(&test.uncontrolled_as_user, name).is_some();
        if !shown && !excused && entry(&test.allow, name).is_none() {
            unproven.push(format!("{name}: {} inside, {answers:?} in controls", answer.as_str().unwrap_or_default()));
        }
    }
    for (name, bound) in test.bounds(evidence.tier) {
        let counted: Vec<f64> = evidence.controls.iter().filter_map(|control| control.facts.get(name).and_then(Json::as_f64)).collect();
        if !counted.iter().any(|count| count > bound) {
            unproven.push(format!("{name}: not above {bound} in controls: {counted:?}"));
        }
    }
    unproven
}

/// Facts that were counted beyond their bounds, or not at all.
fn over_bounds(bounds: &BTreeMap<String, f64>, document: &Document) -> Vec<String> {
    let counted = bounds.iter().map(|(name, bound)| (name, bound, document.facts.get(name).and_then(Json::as_f64)));
    counted
        .filter(|(_, bound, count)| count.is_none_or(|count| count > **bound))
        .map(|(name, bound, count)| format!("{name}: {count:?}, where {bound} is the bound"))
        .collect()
}

/// An end that the table does not know.
pub(crate) fn wrong_end(test: &Test, execution: &Execution) -> Option<String> {
    let word = serde_json::to_value(execution.outcome).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
    if !test.outcomes.is_empty() && !test.outcomes.contains(&word) {
        return Some(format!("it ended as `{word}`: {:?} {:?}", execution.error, execution.limits_hit));
    }
    let hit = test.limit_hit.as_ref().is_none_or(|name| execution.limits_hit.contains(&name.as_str()));
    (!hit).then(|| format!("the limits it names are {:?}", execution.limits_hit))
}

/// The first few of a list.
fn some(list: &[String]) -> String {
    let more = list.len().saturating_sub(6);
    let shown = list.iter().take(6).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{shown}; and {more} more") } else { shown }
}
