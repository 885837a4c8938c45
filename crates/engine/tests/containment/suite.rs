//! Runs one number of the tables: its controls, then the probe on every way in, each judged from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{self, Document, Engines, Inside, Order, ways};
use crate::judge::{self, Evidence, Verdict, judge};
use crate::report::{self, Row};
use crate::scene::Scene;
use crate::table::{Test, Tier};
use crate::used::Neighbour;
use crate::{oracle, probes, special};

/// What this process may take during one row, in MiB.
const HOST_MEBIBYTES: u64 = 64;
/// How often a control with other limits is tried.
const ROOMY_TURNS: u32 = 6;
/// What is left of a probe has this long to go. Nothing is measured with it.
const GONE: Duration = Duration::from_secs(10);

/// Runs one number of the table.
pub(crate) struct Suite<'a> {
    pub(crate) engines: &'a Engines,
    pub(crate) scene: &'a Scene,
    pub(crate) neighbour: &'a Neighbour,
    pub(crate) tier: Tier,
    pub(crate) test: &'a Test,
}

impl Suite<'_> {
    /// All rows of the number.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let (controls, problems) = self.controls();
        let _ = self.scene.listeners.visits();
        let deep = self.test.deep.then(|| self.run("bare", self.indirect(), true)).flatten();
        let mut rows: Vec<Row> = self
            .test
            .languages
            .iter()
            .flat_map(|language| ways().iter().map(move |way| (language, *way)))
            .map(|(language, way)| {
                let verdict = self.watched(|| self.language(way, language, &controls, deep.as_ref()));
                self.row(language, way, verdict, &problems)
            })
            .collect();
        if let Some((probe, arguments)) = &self.test.bash {
            let verdict = self.watched(|| self.bash(probe, arguments));
            rows.push(self.row("bash", "full", verdict, &problems));
        }
        rows
    }

    /// The language that stands for inside in a control: one in which a process may be lost.
    fn indirect(&self) -> &'static str {
        if self.test.languages.iter().any(|language| language == "bang") { "bang" } else { "shell" }
    }

    /// Whether the kernel's log tells of calls that were refused, other than of those that ended a process.
    pub(crate) fn log_is_quiet(&self) -> Option<String> {
        let lines = oracle::kernel_lines(&["sig=0 arch="]);
        (lines > 0).then(|| format!("{lines} lines in the kernel's log"))
    }

    /// A verdict, unless something outside was touched or left, the second session did not go on, or this process took more than it may.
    fn watched(&self, attempt: impl FnOnce() -> Verdict) -> Verdict {
        let (before, _) = oracle::resident();
        oracle::forget_peak();
        let verdict = attempt();
        let (_, peak) = oracle::resident();
        let allowed = HOST_MEBIBYTES + self.test.host_mebibytes.as_ref().map_or(0, |(more, _)| *more);
        let mut touched = self.touched();
        touched.extend(self.neighbour.went_on().err());
        if peak > before + allowed {
            touched.push(format!("this process took {} MiB meanwhile", peak - before));
        }
        let deadline = Instant::now() + GONE;
        while !oracle::probes_running().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !oracle::probes_running().is_empty() {
            touched.push("processes of the probe are left".to_owned());
        }
        if touched.is_empty() { verdict } else { Verdict::NotHeld(touched.join("; ")) }
    }

    fn language(&self, way: &'static str, language: &str, controls: &[Document], deep: Option<&Document>) -> Verdict {
        let run = self.execute(way, language, false);
        if let Some(trouble) = run.trouble {
            return Verdict::NotHeld(trouble);
        }
        if let Some(end) = judge::wrong_end(self.test, &run.execution) {
            return Verdict::NotHeld(end);
        }
        let ended_is_all = !self.test.outcomes.is_empty() && self.test.bounds.is_empty() && self.test.facts.is_empty();
        let inside = match run.document.or_else(|| special::killed(self.test, &run.execution)) {
            Some(inside) => inside,
            // The end is the whole result, and it is as it should be.
            None if ended_is_all => return Verdict::Holds,
            None => return Verdict::NotHeld("the probe came to no end".to_owned()),
        };
        let verdict = judge(self.test, &Evidence { inside: &inside, controls, deep, tier: self.tier });
        if verdict == Verdict::Holds { special::judge(self, language, &inside) } else { verdict }
    }

    fn bash(&self, probe: &str, arguments: &str) -> Verdict {
        let words = |parameters: &serde_json::Map<String, serde_json::Value>| -> Vec<String> {
            parameters[arguments].as_array().expect("a list").iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
        };
        let code = probes::bash(probe, &words(&self.scene.inside(self.test, "bash", false)));
        let scratch = self.scratch();
        let inside = harness::inside(self.engines.get("full"), "bash", &code, Order::default(), scratch.path());
        let control = self.scratch();
        let code = probes::bash(probe, &words(&self.scene.outside(self.test, false, control.path())));
        let control = harness::outside(Path::new("/bin/bash"), &code, "probe.sh", false, control.path());
        let _ = self.scene.listeners.visits();
        match (inside.document, control) {
            (Some(inside), Ok(control)) => judge::attempts(self.test, &inside, &[control], self.tier),
            (None, _) => Verdict::NotHeld(format!("the probe came to no end: {:?}", inside.execution.error)),
            (_, Err(problem)) => Verdict::Invalid(problem),
        }
    }

    /// Runs the probe in a sandbox; what it printed.
    pub(crate) fn run(&self, engine: &str, language: &str, control: bool) -> Option<Document> {
        let run = self.execute(engine, language, control);
        run.document.or_else(|| special::killed(self.test, &run.execution))
    }

    /// Runs the probe in a sandbox.
    fn execute(&self, engine: &str, language: &str, control: bool) -> Inside {
        let scratch = self.scratch();
        let mode = if language == "python" { "worker" } else { "shell" };
        let code = probes::python(&self.test.probe, &self.scene.inside(self.test, mode, control));
        let second = self.test.second.as_ref().map(|probe| probes::python(probe, &self.scene.inside(self.test, "shell", control)));
        let limits = self.test.limits(engine == "roomy");
        let order = Order { limits, second, ..special::order(self.test, scratch.path()) };
        let inside = harness::inside(self.engines.get(engine), language, &code, order, scratch.path());
        special::artifacts_are_harmless(self.test, scratch.path());
        let told = inside.document.is_some() || harness::killed_by_sigsys(&inside.execution) || !self.test.outcomes.is_empty();
        if !told {
            let run = &inside.execution;
            eprintln!("{} {language} {engine}: {:?} {} {:?}", self.test.number, run.outcome, run.stderr, run.error);
        }
        inside
    }

    /// The runs in which the attempts must get further, and what went wrong with them.
    fn controls(&self) -> (Vec<Document>, Vec<String>) {
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for control in &self.test.controls {
            let scratch = self.scratch();
            let result = match control.as_str() {
                "host" | "unshared" => {
                    let unshared = control == "unshared";
                    let parameters = self.scene.outside(self.test, unshared, scratch.path());
                    let code = probes::python(&self.test.probe, &parameters);
                    match &self.test.second {
                        Some(second) => harness::outside_twice(&self.scene.interpreter, (&code, &probes::python(second, &parameters)), scratch.path()),
                        None => harness::outside(&self.scene.interpreter, &code, "probe.py", unshared, scratch.path()),
                    }
                }
                // What others do on this machine takes from what a control can get, and never adds to it.
                "roomy" => {
                    (0..ROOMY_TURNS).map(|_| self.roomy()).find(|came| came.as_ref().is_ok_and(|found| self.exceeds(found))).unwrap_or_else(|| self.roomy())
                }
                inside => self.run(inside, self.indirect(), true).ok_or_else(|| format!("the control {inside} came to no end")),
            };
            match result {
                Ok(document) => documents.push(document),
                Err(problem) => problems.push(problem),
            }
        }
        (documents, problems)
    }

    /// Whether a control got more than may be had.
    fn exceeds(&self, control: &Document) -> bool {
        let counted = |name: &str| control.facts.get(name).and_then(serde_json::Value::as_f64).unwrap_or_default();
        self.test.bounds(self.tier).iter().all(|(name, bound)| counted(name) > *bound)
    }

    /// The run with other limits: it has to get further, or to the end that the table names.
    fn roomy(&self) -> Result<Document, String> {
        let language = if self.test.languages.iter().any(|language| language == "shell") { "shell" } else { self.indirect() };
        let language = if self.test.languages.iter().all(|language| language == "python") { "python" } else { language };
        let run = self.execute("roomy", language, true);
        let expected = &self.test.roomy_outcomes;
        let word = serde_json::to_value(run.execution.outcome).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
        if !expected.is_empty() && !expected.contains(&word) {
            return Err(format!("the control with more room ended as `{word}`"));
        }
        run.document.or_else(|| (!expected.is_empty()).then(Document::default)).ok_or_else(|| "the control with more room said nothing".to_owned())
    }

    /// What was touched outside.
    fn touched(&self) -> Vec<String> {
        let mut touched = self.scene.canary.touched();
        let visits = self.scene.listeners.visits();
        if visits > 0 {
            touched.push(format!("{visits} visits at listeners of the host"));
        }
        touched
    }

    /// A folder on the host.
    pub(crate) fn scratch(&self) -> tempfile::TempDir {
        let scratch = tempfile::tempdir_in(&self.scene.folder).expect("a folder");
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("readable by all");
        scratch
    }

    fn row(&self, language: &str, way: &str, verdict: Verdict, problems: &[String]) -> Row {
        // A proof by the end of a control is missing where that came to another end.
        let verdict = match verdict {
            Verdict::Holds if !self.test.roomy_outcomes.is_empty() && !problems.is_empty() => Verdict::Invalid(problems.join("; ")),
            verdict => verdict,
        };
        let mut note = [Some(self.test.title.clone()), self.test.divides.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        if let Verdict::NotHeld(reason) | Verdict::Invalid(reason) = &verdict {
            note = format!("{}: {reason} {}", self.test.title, problems.join("; "));
        }
        let row = Row {
            number: self.test.number.clone(),
            title: self.test.title.clone(),
            language: language.to_owned(),
            way: report::way(way),
            verdict,
            expected: self.test.expect.get(self.tier.name()).cloned().unwrap_or_default(),
            control: self.test.controls.join(", "),
            note,
        };
        row.print();
        row
    }
}
