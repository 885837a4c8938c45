//! What a soak came to: a table for people, JSON for programs.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::Counts;
use super::kill::{Killed, Target};
use super::process;
use super::residue::Machine;

/// This process may grow by so much from the first fifth of a soak to the last, in KiB.
const GROWTH_KIB: u64 = 32 * 1024;
/// The launcher likewise.
const LAUNCHER_GROWTH_KIB: u64 = 2 * 1024;
/// Fewer looks than this say nothing about growth.
const LOOKS: usize = 20;

/// Memory at a quiet moment, in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    sandboxes: u64,
    own: u64,
    launcher: u64,
}

impl Resident {
    /// Looks now.
    pub(crate) fn look(sandboxes: u64) -> Self {
        let own = std::process::id();
        let launcher = process::launchers(own).and_then(|(_, inner)| process::resident(inner));
        Self { sandboxes, own: process::resident(own).unwrap_or_default(), launcher: launcher.unwrap_or_default() }
    }
}

/// Everything that is told at the end.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) sandboxes: u64,
    pub(crate) sandbox_time: Duration,
    pub(crate) rounds: u64,
    /// Processes killed from outside.
    pub(crate) victims: u64,
    pub(crate) ways: Counts,
    pub(crate) longest_settling: Duration,
    pub(crate) resident: Vec<Resident>,
    pub(crate) kills: Vec<Killed>,
    pub(crate) kill_time: Duration,
    /// Before the engine, with an idle engine, and at the end.
    pub(crate) before: Vec<(&'static str, usize)>,
    pub(crate) idle: Vec<(&'static str, usize)>,
    pub(crate) after: Vec<(&'static str, usize)>,
    pub(crate) machine_before: Machine,
    pub(crate) machine_after: Machine,
    pub(crate) problems: Vec<String>,
}

/// So many per second.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of sandboxes")]
    let count = count as f64;
    count / time.as_secs_f64().max(0.001)
}

/// The middle one.
fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// Milliseconds, for people.
fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

impl Report {
    /// Notes a problem and says it at once.
    pub(crate) fn problem(&mut self, text: String) {
        crate::ci::say(&format!("problem: {text}"));
        self.problems.push(text);
    }

    /// Medians of the first and the last fifth of what was in memory, after a tenth to warm up.
    fn growth(&self, of: fn(&Resident) -> u64) -> (u64, u64) {
        let looks = self.resident.get(self.resident.len() / 10..).unwrap_or_default();
        let fifth = (looks.len() / 5).max(1).min(looks.len());
        let part = |part: &[Resident]| median(part.iter().map(of).collect());
        (part(looks.get(..fifth).unwrap_or_default()), part(looks.get(looks.len() - fifth..).unwrap_or_default()))
    }

    /// Judges what can be judged only at the end.
    pub(crate) fn judge(&mut self) {
        for (index, killed) in self.kills.clone().into_iter().enumerate() {
            for problem in killed.problems {
                self.problem(format!("kill {}, {:?} {} after {}: {problem}", index + 1, killed.target, killed.pid, millis(killed.after_us)));
            }
        }
        self.judge_growth("this process", self.growth(|look| look.own), GROWTH_KIB);
        self.judge_growth("the launcher", self.growth(|look| look.launcher), LAUNCHER_GROWTH_KIB);
        if self.machine_after.leaks(&self.machine_before, self.sandboxes + self.kills.len() as u64) {
            self.problem(format!("network namespaces of the kernel: {:?} before, {:?} after", self.machine_before, self.machine_after));
        }
    }

    fn judge_growth(&mut self, name: &str, (first, last): (u64, u64), allowed: u64) {
        if self.resident.len() >= LOOKS && last > first + allowed {
            self.problem(format!("memory of {name} grew from {first} KiB to {last} KiB"));
        }
    }

    fn targets(&self) -> Vec<(Target, Vec<&Killed>)> {
        let of = |target| (target, self.kills.iter().filter(|killed| killed.target == target).collect());
        [Target::Belljar, Target::OuterLauncher, Target::InnerLauncher].into_iter().map(of).collect()
    }

    /// Prints it for people.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "seed {}", self.seed)?;
        self.print_sandboxes(&mut out)?;
        self.print_kills(&mut out)?;
        writeln!(out, "\n{:<28} {:>8} {:>8} {:>8}", "of ours", "before", "idle", "after")?;
        for (kind, idle) in &self.idle {
            let count = |counts: &[(&str, usize)]| counts.iter().find(|(name, _)| name == kind).map_or_else(|| "-".to_owned(), |(_, count)| count.to_string());
            writeln!(out, "{kind:<28} {:>8} {idle:>8} {:>8}", count(&self.before), count(&self.after))?;
        }
        writeln!(out, "\n{:<32} {:>9} {:>9}", "of the whole machine", "before", "after")?;
        for ((name, before), (_, after)) in self.machine_before.rows().into_iter().zip(self.machine_after.rows()) {
            let shown = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            writeln!(out, "{name:<32} {:>9} {:>9}", shown(before), shown(after))?;
        }
        writeln!(out, "\n{} problems", self.problems.len())?;
        for problem in &self.problems {
            writeln!(out, "- {problem}")?;
        }
        Ok(())
    }

    fn print_sandboxes(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let seconds = self.sandbox_time.as_secs_f64();
        writeln!(out, "{} sandboxes in {seconds:.1} s ({:.1}/s), {} rounds", self.sandboxes, rate(self.sandboxes, self.sandbox_time), self.rounds)?;
        writeln!(out, "{} processes killed from outside; everything gone at the latest after {:.1?}", self.victims, self.longest_settling)?;
        writeln!(out, "\n{:<52} {:>7} {:>9} {:>9}", "way", "done", "disturbed", "longest")?;
        for (way, count) in &self.ways {
            writeln!(out, "{way:<52} {:>7} {:>9} {:>8.1}s", count.done, count.failed, count.longest.as_secs_f64())?;
        }
        let ((own, own_last), (launcher, launcher_last)) = (self.growth(|look| look.own), self.growth(|look| look.launcher));
        writeln!(out, "\nresident KiB, first and last fifth: this process {own} {own_last}, launcher {launcher} {launcher_last}")?;
        Ok(())
    }

    fn print_kills(&self, out: &mut impl Write) -> anyhow::Result<()> {
        if self.kills.is_empty() {
            return Ok(());
        }
        let count = self.kills.len() as u64;
        writeln!(out, "\n{count} kills in {:.1} s ({:.1}/s)", self.kill_time.as_secs_f64(), rate(count, self.kill_time))?;
        let heads = ["killed", "times", "processes", "gone, mid", "gone, max", "groups", "staging", "problems"];
        let [target, times, processes, middle, longest, groups, staging, problems] = heads;
        writeln!(out, "{target:<14} {times:>6} {processes:>10} {middle:>11} {longest:>11} {groups:>7} {staging:>8} {problems:>9}")?;
        for (target, kills) in self.targets() {
            let gone: Vec<u64> = kills.iter().map(|killed| killed.gone_us).collect();
            let longest = millis(gone.iter().copied().max().unwrap_or_default());
            let sum = |of: fn(&Killed) -> usize| kills.iter().map(|killed| of(killed)).sum::<usize>();
            let (processes, groups, staging) = (sum(|killed| killed.descendants), sum(|killed| killed.groups), sum(|killed| killed.staging));
            let (times, middle, problems) = (kills.len(), millis(median(gone)), sum(|killed| killed.problems.len()));
            let target = format!("{target:?}");
            writeln!(out, "{target:<14} {times:>6} {processes:>10} {middle:>11} {longest:>11} {groups:>7} {staging:>8} {problems:>9}")?;
        }
        for killed in self.kills.iter().filter(|killed| !killed.slow.is_empty()) {
            writeln!(
                out,
                "slow: {:?} {} after {}, gone after {}: {}",
                killed.target,
                killed.pid,
                millis(killed.after_us),
                millis(killed.gone_us),
                killed.slow.join("; ")
            )?;
        }
        Ok(())
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Json {
        let counts = |counts: &[(&str, usize)]| counts.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect::<serde_json::Map<_, _>>();
        let machine = |machine: &Machine| machine.rows().iter().map(|(name, number)| ((*name).to_owned(), json!(number))).collect::<serde_json::Map<_, _>>();
        let ways = self
            .ways
            .iter()
            .map(|(way, count)| ((*way).to_owned(), json!({"done": count.done, "disturbed": count.failed, "longestSeconds": count.longest.as_secs_f64()})));
        json!({
            "seed": self.seed,
            "sandboxes": {
                "started": self.sandboxes, "seconds": self.sandbox_time.as_secs_f64(), "perSecond": rate(self.sandboxes, self.sandbox_time),
                "rounds": self.rounds, "killedFromOutside": self.victims, "longestSettlingSeconds": self.longest_settling.as_secs_f64(),
                "ways": ways.collect::<serde_json::Map<_, _>>(),
            },
            "residentKib": self.resident.iter().map(|look| json!([look.sandboxes, look.own, look.launcher])).collect::<Vec<_>>(),
            "kills": {"seconds": self.kill_time.as_secs_f64(), "each": self.kills},
            "before": counts(&self.before), "idle": counts(&self.idle), "after": counts(&self.after),
            "machineBefore": machine(&self.machine_before), "machineAfter": machine(&self.machine_after),
            "problems": self.problems,
        })
    }
}
