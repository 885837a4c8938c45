//! What was measured, as a document and as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Serialize;

use super::machine::{self, Machine};
use super::samples::{Records, Samples};
use super::table::{Entry, Figure, Goal, TABLE, Unit};
use super::{Bench, Row, SEED};

/// The document of `--json`. Names stay what they are; new ones may be added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    /// Version of Belljar.
    belljar: &'static str,
    /// `release`, or `debug`: then no figure is worth much.
    build: &'static str,
    environment: String,
    /// RFC 3339, as is the end.
    started_at: String,
    ended_at: String,
    /// The order of steps came from it.
    seed: u64,
    rounds: u32,
    quick: bool,
    machine: Machine,
    /// Of Python and some packages by name; of `bwrap`, or why it was not used.
    versions: BTreeMap<String, String>,
    /// What pools said of themselves.
    problems: Vec<String>,
    /// What was there after everything was ended: anything but 0 is a mistake of ours.
    left: Left,
    rows: Vec<Line>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    processes: usize,
    cgroups: usize,
}

/// One series.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    /// The name that `--only` knows it by.
    row: String,
    id: &'static str,
    what: &'static str,
    /// `ms`, `s`, `sandboxes/s`, `MiB` or `sandboxes`.
    unit: &'static str,
    /// Samples. Percentiles that so few cannot tell are null.
    count: usize,
    min: Option<f64>,
    mean: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
    /// Which of these is compared: `p50`, `mean` or `min`.
    figure: &'static str,
    /// The id of the series that it is compared with: the same job elsewhere.
    baseline: Option<&'static str>,
    /// Its figure by that of the baseline.
    ratio: Option<f64>,
    /// For a machine with two CPUs.
    goal: Option<Target>,
    reached: Option<bool>,
    /// Of its sandboxes, those whose interpreter was not forked from a template.
    not_forked: u32,
    /// Of its sandboxes, those that should have been parked and were not.
    not_parked: u32,
    /// Why there are no samples, or fewer than asked for.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Target {
    /// `atMost`, `atLeast` or `ratioAtMost`.
    kind: &'static str,
    value: f64,
}

impl Document {
    pub(super) fn new(bench: Bench<'_>, started: SystemTime) -> Self {
        Self {
            belljar: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            environment: format!("{}-{}", bench.environment.name, bench.environment.digest),
            started_at: humantime::format_rfc3339_seconds(started).to_string(),
            ended_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            seed: SEED,
            rounds: bench.plan.rounds,
            quick: bench.plan.quick,
            rows: lines(&bench.records, &bench.plan.rows, bench.plan.many),
            machine: bench.machine,
            versions: bench.versions,
            problems: bench.problems.into_iter().collect(),
            left: Left::default(),
        }
    }

    /// Adds what is left after the end.
    pub(super) fn ended(mut self, processes: usize, cgroups: usize) -> Self {
        self.left = Left { processes, cgroups };
        self.machine.load_at_end = machine::load();
        self
    }

    pub(super) fn text(&self) -> String {
        let machine = &self.machine;
        let load = |load: &[f64]| load.iter().map(|load| format!("{load:.2}")).collect::<Vec<_>>().join(" ");
        let cgroups =
            machine.cgroups_reason.as_ref().map_or_else(|| format!("control groups {}", machine.cgroups), |reason| format!("no control groups ({reason})"));
        let others = machine.phases.iter().map(|phase| {
            let stolen = if phase.stolen_cpu_percent > 0.0 { format!(" (and {:.1} % the machine below)", phase.stolen_cpu_percent) } else { String::new() };
            format!("{} {:.1} %{stolen}", phase.name, phase.others_cpu_percent)
        });
        let others: Vec<String> = others.collect();
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let mut text = format!(
            "belljar {} ({} build), environment {}, {} rounds from seed {}, {} to {}\n",
            self.belljar, self.build, self.environment, self.rounds, self.seed, self.started_at, self.ended_at
        );
        let _ = writeln!(
            text,
            "machine: {} x {}, {:.1} GiB, Linux {}\nload: {} before, {} after; other processes took of the CPU time: {}",
            machine.cpus,
            machine.cpu_model,
            super::rate::mebibytes(machine.memory_bytes) / 1024.0,
            machine.kernel,
            load(&machine.load_at_start),
            load(&machine.load_at_end),
            others.join(", ")
        );
        let user = if machine.user == "root" { "root, its sandboxes do not" } else { "an ordinary user" };
        let _ = writeln!(text, "tier: belljar runs as {user}; {cgroups}\nversions: {}", versions.join(", "));
        if self.build == "debug" {
            text.push_str("problem: this is a debug build: its figures are not those of what is shipped\n");
        }
        for problem in &self.problems {
            let _ = writeln!(text, "problem: {problem}");
        }
        if self.left.processes + self.left.cgroups > 0 {
            let _ = writeln!(text, "problem: {} processes and {} control groups are left", self.left.processes, self.left.cgroups);
        }
        text.push('\n');
        self.table(&mut text);
        text.push_str(
            "\nratio: to `python -c` of the same job, of p50; for computing to the same outside, of the best; of refilling to pools that do not yield.\n\
             memory: the mean is what counts. goals: for a machine with two CPUs.\n",
        );
        text
    }

    fn table(&self, text: &mut String) {
        let mut cells = vec![["what", "p50", "p95", "p99", "unit", "ratio", "goal", "reached"].map(str::to_owned)];
        cells.extend(self.rows.iter().map(Line::cells));
        let widths: Vec<usize> =
            (0..8).map(|column| cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
        for row in &cells {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padded = if matches!(column, 1..=3 | 5) { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line += &format!("{padded}  ");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
}

fn lines(records: &Records, rows: &BTreeSet<Row>, many: usize) -> Vec<Line> {
    TABLE.iter().filter(|entry| rows.contains(&entry.row)).map(|entry| Line::new(entry, records, many)).collect()
}

impl Line {
    fn new(entry: &Entry, records: &Records, many: usize) -> Self {
        let Samples { not_forked, not_parked, reason, .. } = records.get(entry.id);
        let figures = records.get(entry.id).figures();
        let value = figures.get(entry.figure);
        let compared = entry.baseline.and_then(|baseline| records.get(baseline).figures().get(entry.figure));
        let ratio = value.zip(compared).filter(|(_, compared)| *compared > 0.0).map(|(value, compared)| value / compared);
        let reached = entry.goal.and_then(|goal| match goal {
            Goal::AtMost(most) => value.map(|value| value <= most),
            Goal::AtLeast(least) => value.map(|value| value >= least),
            Goal::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Goal::All => value.map(|value| value >= many as f64),
        });
        let goal = entry.goal.map(|goal| match goal {
            Goal::AtMost(value) => Target { kind: "atMost", value },
            Goal::AtLeast(value) => Target { kind: "atLeast", value },
            Goal::RatioAtMost(value) => Target { kind: "ratioAtMost", value },
            Goal::All => Target { kind: "atLeast", value: many as f64 },
        });
        Self {
            row: entry.row.name(),
            id: entry.id,
            what: entry.what,
            unit: entry.unit.name(),
            count: figures.count,
            min: figures.min,
            mean: figures.mean,
            p50: figures.p50,
            p95: figures.p95,
            p99: figures.p99,
            max: figures.max,
            figure: entry.figure.name(),
            baseline: entry.baseline,
            ratio,
            goal,
            reached,
            not_forked,
            not_parked,
            reason,
        }
    }

    fn cells(&self) -> [String; 8] {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let mut what = self.what.to_owned();
        for (count, word) in [(self.not_forked, "forked"), (self.not_parked, "parked")] {
            if count > 0 {
                let _ = write!(what, " [{count} not {word}]");
            }
        }
        if let Some(reason) = &self.reason {
            let _ = write!(what, " [{reason}]");
        }
        let middle = if self.figure == Figure::Mean.name() { self.mean } else { self.p50 };
        let goal = self.goal.map(|goal| {
            let unit = if self.unit == Unit::Milliseconds.name() { "ms" } else { self.unit };
            match goal.kind {
                "ratioAtMost" => format!("<= {} x", goal.value),
                "atMost" => format!("<= {} {unit}", goal.value),
                _ => format!(">= {} {unit}", goal.value),
            }
        });
        let reached = self.reached.map_or("", |reached| if reached { "yes" } else { "NO" });
        let ratio = self.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        [what, number(middle), number(self.p95), number(self.p99), self.unit.to_owned(), ratio, goal.unwrap_or_default(), reached.to_owned()]
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn records() -> Records {
        let mut records = Records::default();
        for _ in 0..20 {
            records.add("parkedPrintFirstByte", 0.25);
            records.add("pythonPrintFirstByte", 20.0);
            records.add("parkedGroupby", 4.0);
            records.mark("parkedGroupby", false, true);
        }
        for value in [100.0, 104.0] {
            records.add("computeLoopInside", value + 1.0);
            records.add("computeLoopOutside", value);
        }
        records.add("manyParked", 499.0);
        records.explain("bwrapPrint", "not installed");
        records
    }

    fn line(id: &str) -> Line {
        Line::new(TABLE.iter().find(|entry| entry.id == id).unwrap(), &records(), 500)
    }

    #[test]
    fn goals_and_ratios_follow_from_the_figures() {
        let first = line("parkedPrintFirstByte");
        assert_eq!((first.ratio, first.reached, first.not_forked), (Some(0.0125), Some(true), 0));
        let groupby = line("parkedGroupby");
        assert_eq!((groupby.ratio, groupby.reached, groupby.not_forked), (None, Some(false), 20), "there is nothing to compare it with");
        let compute = line("computeLoopInside");
        assert_eq!((compute.ratio, compute.reached), (Some(1.01), Some(true)), "the best of each is compared");
        assert_eq!(line("manyParked").reached, Some(false));
        let missing = line("bwrapPrint");
        assert_eq!((missing.count, missing.p50, missing.ratio, missing.reason.as_deref()), (0, None, None, Some("not installed")));
    }

    #[test]
    fn the_table_marks_what_is_not_what_it_should_be() {
        let cells = line("parkedGroupby").cells();
        assert_eq!(cells, ["parked: small groupby [20 not forked]", "4.00", "4.00", "-", "ms", "", "<= 3 ms", "NO"].map(str::to_owned));
        assert_eq!(line("bwrapPrint").cells()[0], "bwrap python -c: print(1), until its end [not installed]");
        assert_eq!([0.0123, 1.234, 12.34, 123.4].map(number), ["0.012", "1.23", "12.3", "123"].map(str::to_owned));
    }

    #[test]
    fn every_row_has_a_series_and_only_those_asked_for_are_told() {
        for row in Row::value_variants() {
            let rows = BTreeSet::from([*row]);
            let lines = lines(&records(), &rows, 1);
            assert!(!lines.is_empty() && lines.iter().all(|line| line.row == row.name()), "{row:?}");
        }
    }
}
