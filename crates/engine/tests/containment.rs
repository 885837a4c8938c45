//! The containment suite: what hostile code tries in a sandbox (`containment/expected.toml`), judged from outside.
//!
//! Each number of the list of threats has a probe that makes the attempts inside and prints what came of them; the same attempts with a
//! layer off, or on the host, must get further, or the result is INVALID; files, listeners and settings of the host must be untouched.
//! The table of results is printed; `BELLJAR_CONTAINMENT_REPORT` names a file for it in JSON, `BELLJAR_CONTAINMENT_ONLY` picks numbers,
//! and `BELLJAR_TEST_DATA` the folder with the environment `core`, which is built there when it is missing.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this program is a test, which panics where it cannot go on and prints its table"
)]

#[path = "containment/harness.rs"]
mod harness;
#[path = "containment/judge.rs"]
mod judge;
#[path = "containment/oracle.rs"]
mod oracle;
#[path = "containment/probes.rs"]
mod probes;
#[path = "containment/scene.rs"]
mod scene;
#[path = "containment/special.rs"]
mod special;
#[path = "containment/table.rs"]
mod table;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use engine::{Control, Engine, Language};
use harness::{Document, Engines, Order, Silent, Way};
use judge::{Evidence, Verdict, judge};
use oracle::{Canary, Listeners, Residue};
use scene::Scene;
use serde_json::json;
use table::{Test, Tier};

/// One line of the result.
struct Row {
    number: String,
    language: String,
    verdict: Verdict,
    expected: String,
    control: String,
    note: String,
}

impl Row {
    fn result(&self) -> &str {
        match &self.verdict {
            // A row whose attempts were all refused came out as the table says it does.
            Verdict::Holds => "holds",
            Verdict::NotHeld(_) => "NOT HELD",
            Verdict::Invalid(_) => "INVALID",
        }
    }

    fn as_expected(&self) -> bool {
        match &self.verdict {
            Verdict::Holds => self.expected == "holds" || self.expected.starts_with("bounded by"),
            Verdict::NotHeld(_) => self.expected.starts_with("not held"),
            Verdict::Invalid(_) => false,
        }
    }
}

#[test]
fn hostile_code_stays_inside() {
    let baseline = Residue::count();
    let folder = tempfile::Builder::new().prefix("belljar-containment-").tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("readable by all");
    let data = data();
    let mut rows = Vec::new();
    {
        let engines = Engines::new(&data);
        // The first run builds the environment where it is missing.
        alive(engines.get("full"));
        let scene = scene(folder.path(), &data);
        let tier = tier(engines.full());
        println!("tier: {}, kernel {}", tier.name(), fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim());
        let only = std::env::var("BELLJAR_CONTAINMENT_ONLY").unwrap_or_default();
        for test in table::tests().iter().filter(|test| only.is_empty() || only.split(',').any(|number| number == test.number)) {
            let new = Suite { engines: &engines, scene: &scene, tier, test }.rows();
            new.iter().for_each(print);
            rows.extend(new);
        }
        rows.extend(special::programs_are_unchanged(&scene).map(|verdict| suite_row("programs", verdict, tier)));
        let _ = fs::remove_file(Path::new("/dev/shm").join(&scene.shm_marker));
    }
    drop(folder);
    let after = Residue::count();
    let left = if after == baseline { Verdict::Holds } else { Verdict::NotHeld(format!("before {baseline:?}, after {after:?}")) };
    rows.push(suite_row("residue", left, Tier::User));
    report(&rows);
    let bad: Vec<String> =
        rows.iter().filter(|row| !row.as_expected()).map(|row| format!("{} {}: {} {:?}", row.number, row.language, row.result(), row.verdict)).collect();
    assert!(bad.is_empty(), "not as expected.toml says:\n{}", bad.join("\n"));
}

/// Runs one number of the table.
struct Suite<'a> {
    engines: &'a Engines,
    scene: &'a Scene,
    tier: Tier,
    test: &'a Test,
}

impl Suite<'_> {
    fn rows(&self) -> Vec<Row> {
        let (controls, problems) = self.controls();
        let _ = self.scene.listeners.visits();
        let deep = self.test.deep.then(|| self.run("bare", self.indirect(), true)).flatten();
        let mut rows: Vec<Row> = self
            .test
            .languages
            .iter()
            .flat_map(|language| ["full", "forked"].map(|way| (language, way)))
            .map(|(language, way)| {
                let verdict = self.language(way, language, &controls, deep.as_ref());
                self.row(&if way == "full" { language.clone() } else { format!("{language}, {way}") }, verdict, &problems)
            })
            .collect();
        if let Some((probe, arguments)) = &self.test.bash {
            let verdict = self.bash(probe, arguments);
            rows.push(self.row("bash", verdict, &problems));
        }
        alive(self.engines.get("full"));
        rows
    }

    /// The language that stands for inside in a control: one in which a process may be lost.
    fn indirect(&self) -> &'static str {
        if self.test.languages.iter().any(|language| language == "bang") { "bang" } else { "shell" }
    }

    fn language(&self, way: &str, language: &str, controls: &[Document], deep: Option<&Document>) -> Verdict {
        let Some(inside) = self.run(way, language, false) else { return Verdict::NotHeld("the probe came to no end".to_owned()) };
        let verdict = judge(self.test, &Evidence { inside: &inside, controls, deep });
        let verdict = if verdict == Verdict::Holds { special::judge(self, language, &inside) } else { verdict };
        self.untouched(verdict)
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
            (Some(inside), Ok(control)) => self.untouched(judge::attempts(self.test, &inside, &[control])),
            (None, _) => Verdict::NotHeld(format!("the probe came to no end: {:?}", inside.execution.error)),
            (_, Err(problem)) => Verdict::Invalid(problem),
        }
    }

    /// Runs the probe in a sandbox.
    fn run(&self, engine: &str, language: &str, control: bool) -> Option<Document> {
        let scratch = self.scratch();
        let mode = if language == "python" { "worker" } else { "shell" };
        let code = probes::python(&self.test.probe, &self.scene.inside(self.test, mode, control));
        let inside = harness::inside(self.engines.get(engine), language, &code, special::order(self.test, scratch.path()), scratch.path());
        special::artifacts_are_harmless(self.test, scratch.path());
        if inside.document.is_none() && !harness::killed_by_sigsys(&inside.execution) {
            eprintln!("{} {language}: {:?} {}", self.test.number, inside.execution.outcome, inside.execution.stderr);
            if let Some(error) = &inside.execution.error {
                eprintln!("{}", error.traceback);
            }
        }
        inside.document.or_else(|| special::killed(self.test, &inside.execution))
    }

    /// The runs in which the attempts must get further, and what went wrong with them.
    fn controls(&self) -> (Vec<Document>, Vec<String>) {
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for control in &self.test.controls {
            let scratch = self.scratch();
            let result = match control.as_str() {
                "host" | "unshared" => {
                    let unshared = control == "unshared";
                    let code = probes::python(&self.test.probe, &self.scene.outside(self.test, unshared, scratch.path()));
                    harness::outside(&self.scene.interpreter, &code, "probe.py", unshared, scratch.path())
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

    /// A verdict, unless something outside was touched.
    fn untouched(&self, verdict: Verdict) -> Verdict {
        let mut touched = self.scene.canary.touched();
        let visits = self.scene.listeners.visits();
        if visits > 0 {
            touched.push(format!("{visits} visits at listeners of the host"));
        }
        if touched.is_empty() { verdict } else { Verdict::NotHeld(touched.join("; ")) }
    }

    fn scratch(&self) -> tempfile::TempDir {
        let scratch = tempfile::tempdir_in(&self.scene.folder).expect("a folder");
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("readable by all");
        scratch
    }

    fn row(&self, language: &str, verdict: Verdict, problems: &[String]) -> Row {
        let mut note = [Some(self.test.title.clone()), self.test.divides.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        if let Verdict::NotHeld(reason) | Verdict::Invalid(reason) = &verdict {
            note = format!("{}: {reason} {}", self.test.title, problems.join("; "));
        }
        Row {
            number: self.test.number.clone(),
            language: language.to_owned(),
            verdict,
            expected: self.test.expect.get(self.tier.name()).cloned().unwrap_or_default(),
            control: self.test.controls.join(", "),
            note,
        }
    }
}

/// Where the environment is.
fn data() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/belljar-test-data");
    std::env::var_os("BELLJAR_TEST_DATA").map_or_else(built, PathBuf::from)
}

fn scene(folder: &Path, data: &Path) -> Scene {
    let (interpreter, environment) = special::interpreter(data);
    let canary = Canary::place(folder, &["/usr/bin/env".into(), "/usr/bin/bash".into(), interpreter.clone(), environment]);
    let listeners = Listeners::start(folder);
    let shm_marker = format!("belljar-containment-{}", std::process::id());
    fs::write(Path::new("/dev/shm").join(&shm_marker), "of the host").expect("shared memory of the host");
    let _ = fs::set_permissions(Path::new("/dev/shm").join(&shm_marker), fs::Permissions::from_mode(0o644));
    Scene { folder: folder.to_owned(), canary, listeners, data: data.to_owned(), interpreter, shm_marker }
}

fn tier(engine: &Engine) -> Tier {
    let backend = engine.backend().expect("a backend");
    let bounded = !matches!(backend.cgroups(), sandbox::cgroup::Version::None(_));
    match (backend.own_users(), bounded) {
        (true, true) => Tier::RootCgroups,
        (true, false) => Tier::Root,
        (false, true) => Tier::UserCgroups,
        (false, false) => Tier::User,
    }
}

/// A second sandbox runs all the same.
fn alive(way: Way<'_>) {
    let execution = harness::run(way, Language::Python, "print(1)", &Order::default(), (&mut Silent, &Control::default()));
    assert_eq!(execution.stdout, "1\n", "another sandbox must run: {:?}", execution.error);
}

fn suite_row(name: &str, verdict: Verdict, tier: Tier) -> Row {
    let note = if let Verdict::NotHeld(reason) | Verdict::Invalid(reason) = &verdict { reason.clone() } else { format!("whole suite, {}", tier.name()) };
    let row = Row { number: name.to_owned(), language: String::new(), verdict, expected: "holds".to_owned(), control: String::new(), note };
    print(&row);
    row
}

fn print(row: &Row) {
    println!("{:<9} {:<14} {:<9} {:<24} {}", row.number, row.language, row.result(), row.control, row.note);
}

/// Writes the rows as JSON where the environment names a file.
fn report(rows: &[Row]) {
    let Some(place) = std::env::var_os("BELLJAR_CONTAINMENT_REPORT") else { return };
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "number": row.number, "language": row.language, "result": row.result(), "expected": row.expected,
                "asExpected": row.as_expected(), "controls": row.control, "note": row.note,
            })
        })
        .collect();
    fs::write(place, serde_json::to_string_pretty(&rows).expect("JSON") + "\n").expect("the report is written");
}
