//! The pages that are made from the last full run: a part of SECURITY.md, and `docs/containment.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use super::coverage::{Coverage, FAMILIES, SUITE};
use super::result::{Attempt, Run};

const BEGIN: &str = "<!-- containment: written by `cargo xtask containment`, from docs/containment.json -->";
const END: &str = "<!-- containment: end -->";
const SECURITY: &str = "SECURITY.md";
const PAGE: &str = "docs/containment.md";
const TIERS: &[(&str, &str)] =
    &[("root-cgroups", "root, control groups"), ("root", "root, none"), ("user-cgroups", "user, delegated group"), ("user", "user, none")];

/// Writes both, or only says whether they are as they should be.
pub(crate) fn write(root: &Path, check: bool) -> anyhow::Result<()> {
    let (run, coverage) = (Run::load(root)?, Coverage::load(root)?);
    let security = fs::read_to_string(root.join(SECURITY)).context("cannot read SECURITY.md")?;
    let pages = [(SECURITY, replaced(&security, &summary(&run, &coverage)?)?), (PAGE, page(&run, &coverage)?)];
    for (name, text) in pages {
        let place = root.join(name);
        if check {
            let there = fs::read_to_string(&place).unwrap_or_default();
            ensure!(there == text, "`{name}` is not what the last full run came to: `cargo xtask containment pages` writes it");
        } else {
            fs::write(&place, text).with_context(|| format!("cannot write `{name}`"))?;
        }
    }
    Ok(())
}

/// A text with another part between the marks.
fn replaced(text: &str, part: &str) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("SECURITY.md has no mark where the table begins")?;
    let (_, after) = rest.split_once(END).context("SECURITY.md has no mark where the table ends")?;
    Ok(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

/// Whose number it is.
fn number_of(name: &str) -> Option<u32> {
    name.strip_prefix('T')?.parse().ok()
}

/// The part of SECURITY.md.
fn summary(run: &Run, coverage: &Coverage) -> anyhow::Result<String> {
    let mut text = String::new();
    let users = if run.tests.iter().any(|test| test.ordinary) { "as root and as an ordinary user" } else { "as one user" };
    let passed = run.tests.iter().filter(|test| test.result == "ok").count();
    writeln!(text, "\nKernel {}. Rows of the engine's suite that held, by tier:\n", run.kernel)?;
    let shown: Vec<_> = TIERS.iter().filter_map(|(name, title)| Some((title, run.tiers.iter().find(|tier| tier.tier == *name)?))).collect();
    writeln!(text, "| what is tried | {} |", shown.iter().map(|(title, _)| **title).collect::<Vec<_>>().join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(shown.len()))?;
    writeln!(text, "| last full run | {} |", shown.iter().map(|(_, tier)| tier.date.as_str()).collect::<Vec<_>>().join(" | "))?;
    for (family, first, last) in FAMILIES {
        let of = |attempt: &&Attempt| number_of(&attempt.number).is_some_and(|number| (*first..=*last).contains(&number));
        let cells: Vec<String> = shown.iter().map(|(_, tier)| cell(tier.attempts.iter().filter(of))).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            writeln!(text, "| {family} (T{first:03}–T{last:03}) | {} |", cells.join(" | "))?;
        }
    }
    writeln!(text, "\nBeside it {passed} of {} tests of the server, the pools and the command line passed on {}, {users}.", run.tests.len(), run.tests_date)?;
    lists(&mut text, run, coverage)?;
    writeln!(text, "\nEvery number with where it is tried: [docs/containment.md](docs/containment.md).")?;
    Ok(text)
}

/// How many rows held, and how many did not.
fn cell<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> String {
    let (mut held, mut not_held, mut invalid) = (0, 0, 0);
    for attempt in attempts {
        held += attempt.held;
        not_held += attempt.not_held;
        invalid += attempt.invalid;
    }
    match (held, not_held, invalid) {
        (0, 0, 0) => String::new(),
        (held, 0, 0) => format!("all {held}"),
        (held, not_held, 0) => format!("{held} of {}", held + not_held),
        (held, not_held, invalid) => format!("{held} of {}, {invalid} invalid", held + not_held + invalid),
    }
}

/// What did not hold, what is bounded in another way, and what is not tried, each in plain words.
fn lists(text: &mut String, run: &Run, coverage: &Coverage) -> anyhow::Result<()> {
    for (title, word) in [("Not held, in plain words:", "not held: "), ("Held, but not by a hard limit:", "bounded by ")] {
        let told = told(run, word);
        if !told.is_empty() {
            writeln!(text, "\n{title}\n")?;
        }
        for (reason, (numbers, tiers)) in told {
            let everywhere = tiers.len() == run.tiers.len();
            let tiers = if everywhere { "everywhere".to_owned() } else { tiers.into_iter().collect::<Vec<_>>().join(", ") };
            let word = if word == "bounded by " { word } else { "" };
            writeln!(text, "- {} ({tiers}): {word}{reason}.", numbers.into_iter().collect::<Vec<_>>().join(", "))?;
        }
    }
    let surprises: Vec<_> = run.problems();
    if !surprises.is_empty() {
        writeln!(text, "\nOtherwise than expected in that run:\n")?;
        for surprise in surprises {
            writeln!(text, "- {}", surprise.replace('\n', " "))?;
        }
    }
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (number, entry) in &coverage.0 {
        if let Some(reason) = &entry.none {
            reasons.entry(reason).or_default().push(number);
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().map(|(reason, numbers)| (numbers, reason)).collect();
    reasons.sort();
    writeln!(text, "\nNot tried:\n")?;
    for (numbers, reason) in reasons {
        writeln!(text, "- {}: {reason}.", spans(&numbers))?;
    }
    Ok(())
}

type Told = BTreeMap<String, (BTreeSet<String>, BTreeSet<&'static str>)>;

/// Reasons that begin with this word, each with its numbers and tiers.
fn told(run: &Run, word: &str) -> Told {
    let mut told = Told::new();
    for tier in &run.tiers {
        let name = TIERS.iter().find(|(name, _)| *name == tier.tier).map_or("", |(_, title)| *title);
        for attempt in &tier.attempts {
            if let Some(reason) = attempt.expected.strip_prefix(word) {
                let entry = told.entry(reason.to_owned()).or_default();
                entry.0.insert(attempt.number.clone());
                entry.1.insert(name);
            }
        }
    }
    told
}

/// Numbers with those that follow each other drawn together.
fn spans(numbers: &[&str]) -> String {
    let numbers: Vec<u32> = numbers.iter().filter_map(|number| number_of(number)).collect();
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => spans.push((number, number)),
        }
    }
    let told = spans.into_iter().map(|(first, last)| if first == last { format!("T{first:03}") } else { format!("T{first:03}–T{last:03}") });
    told.collect::<Vec<_>>().join(", ")
}

/// The page with every number.
fn page(run: &Run, coverage: &Coverage) -> anyhow::Result<String> {
    let mut text = format!(
        "# Containment\n\nWritten by `cargo xtask containment`, from `docs/containment.json` ({}, kernel {}) and `xtask/containment/coverage.toml`. \
         Cells of the engine's suite: rows that held, of all rows (languages, and ways in: executed and forked, fresh and used before).\n",
        run.date, run.kernel
    );
    for (family, first, last) in FAMILIES {
        let titles: Vec<&str> = run.tiers.iter().map(|tier| tier.tier.as_str()).collect();
        writeln!(text, "\n## T{first:03}–T{last:03}: {family}\n\n| number | what is tried | {} | where else, and what remains |", titles.join(" | "))?;
        writeln!(text, "|---|---|{}---|", "---|".repeat(titles.len()))?;
        for (number, entry) in &coverage.0 {
            if !number_of(number).is_some_and(|number| (*first..=*last).contains(&number)) {
                continue;
            }
            let cells: Vec<String> = run.tiers.iter().map(|tier| cell(tier.attempts.iter().filter(|attempt| attempt.number == *number))).collect();
            let mut elsewhere: Vec<String> = entry.tests.iter().filter(|test| *test != SUITE).map(|test| tested(run, test)).collect();
            elsewhere.extend(entry.by.as_ref().map(|command| format!("`{command}`")));
            elsewhere.extend(entry.none.as_ref().map(|reason| format!("not tried: {reason}")));
            elsewhere.extend(entry.remains.clone());
            writeln!(text, "| {number} | {} | {} | {} |", entry.tries, cells.join(" | "), elsewhere.join("; "))?;
        }
    }
    writeln!(
        text,
        "\n## The second session\n\n`print(1)` again and again in a session beside all of it; times are those of a machine that others used as well.\n"
    )?;
    writeln!(text, "| tier | quiet | beside the attempts |\n|---|---|---|")?;
    for tier in &run.tiers {
        let told = |when: &str| {
            let number = |name: &str| tier.second_session.pointer(&format!("/{when}/{name}")).cloned().unwrap_or_default();
            format!("{} executions, p99 {} ms, longest {} ms", number("executions"), number("p99Milliseconds"), number("longestMilliseconds"))
        };
        writeln!(text, "| {} | {} | {} |", tier.tier, told("quiet"), told("during"))?;
    }
    Ok(text)
}

/// A test with what it came to.
fn tested(run: &Run, test: &str) -> String {
    let results: Vec<&str> = run.tests.iter().filter(|one| one.name == test).map(|one| one.result.as_str()).collect();
    let result = if results.is_empty() { "not run" } else { results.iter().find(|result| **result != "ok").copied().unwrap_or("ok") };
    format!("`{test}` {result}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_what_the_last_full_run_came_to() {
        write(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), true).unwrap();
    }

    #[test]
    fn numbers_that_follow_each_other_are_drawn_together() {
        assert_eq!(spans(&["T001", "T002", "T003", "T007", "T010", "T011"]), "T001–T003, T007, T010–T011");
    }

    #[test]
    fn a_part_is_replaced_between_its_marks() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(replaced("nothing", "new").is_err());
    }
}
