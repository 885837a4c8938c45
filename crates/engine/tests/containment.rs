//! The containment suite: what hostile code tries in a sandbox (`containment/expected.toml`), judged from outside.
//!
//! Each number of the list of threats has a probe that makes the attempts inside and prints what came of them; the same attempts with a
//! layer off, or on the host, must get further, or the result is INVALID; files, listeners and settings of the host must be untouched.
//! All of it is tried by the worker and by processes of commands, in sandboxes whose worker was executed or forked, fresh and used before;
//! beside it a second session has to go on. `containment/exhaustion.toml` has what uses things up: there a control must get more of it.
//!
//! The table of results is printed; `BELLJAR_CONTAINMENT_REPORT` names a file for it in JSON, `BELLJAR_CONTAINMENT_ONLY` picks numbers,
//! `BELLJAR_CONTAINMENT_CGROUPS=off` leaves control groups out, `BELLJAR_CONTAINMENT_FORM=full` tries with the figures of the list of
//! threats, and `BELLJAR_TEST_DATA` names the folder with the environment `core`, which is built there when it is missing.
//! `cargo xtask containment` runs it on every tier that can be had.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this program is a test, which panics where it cannot go on and prints its table"
)]

#[path = "containment/crowd.rs"]
mod crowd;
#[path = "containment/harness.rs"]
mod harness;
#[path = "containment/judge.rs"]
mod judge;
#[path = "containment/oracle.rs"]
mod oracle;
#[path = "containment/probes.rs"]
mod probes;
#[path = "containment/report.rs"]
mod report;
#[path = "containment/scene.rs"]
mod scene;
#[path = "containment/special.rs"]
mod special;
#[path = "containment/suite.rs"]
mod suite;
#[path = "containment/table.rs"]
mod table;
#[path = "containment/used.rs"]
mod used;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use engine::{Control, Engine, Language};
use harness::{Engines, Order, Silent, Way};
use judge::Verdict;
use oracle::{Canary, Listeners, Residue};
use report::{Pulse, Row};
use scene::Scene;
use suite::Suite;
use table::Tier;
use used::Neighbour;

#[test]
fn hostile_code_stays_inside() {
    // The first runtime of a process opens a pair of sockets for signals, and keeps it.
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build());
    let baseline = Residue::count();
    let folder = tempfile::Builder::new().prefix("belljar-containment-").tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("readable by all");
    let data = data();
    let engines = Engines::new(&data);
    // The first run builds the environment where it is missing.
    alive(engines.get("full"));
    let scene = scene(folder.path(), &data);
    let tier = tier(engines.full());
    println!("tier: {}, kernel {}", tier.name(), kernel());
    let (mut rows, pulse) = attempts(&engines, &scene, tier);
    rows.extend(special::programs_are_unchanged(&scene).map(|verdict| report::suite_row("programs", verdict)));
    let _ = fs::remove_file(Path::new("/dev/shm").join(&scene.shm_marker));
    engines.stop();
    drop(scene);
    drop(folder);
    let after = Residue::count();
    let left = if after == baseline { Verdict::Holds } else { Verdict::NotHeld(format!("before {baseline:?}, after {after:?}")) };
    rows.push(report::suite_row("residue", left));
    report::write(tier, &rows, &pulse);
    let bad: Vec<String> = rows.iter().filter(|row| !row.as_expected()).map(Row::told).collect();
    assert!(bad.is_empty(), "not as the tables say:\n{}", bad.join("\n"));
}

/// Everything that is tried, while a second session runs beside it.
fn attempts(engines: &Engines, scene: &Scene, tier: Tier) -> (Vec<Row>, Pulse) {
    let neighbour = Neighbour::start(engines.visits());
    neighbour.went_on().expect("a second session");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let quiet = neighbour.times();
    let only = std::env::var("BELLJAR_CONTAINMENT_ONLY").unwrap_or_default();
    let wanted = |number: &str| only.is_empty() || only.split(',').any(|one| one == number);
    let mut rows = Vec::new();
    for test in table::tests().iter().filter(|test| wanted(&test.number)) {
        rows.extend(Suite { engines, scene, neighbour: &neighbour, tier, test }.rows());
    }
    if wanted("T118") {
        rows.push(crowd::row(engines, &neighbour));
    }
    (rows, Pulse { quiet, during: neighbour.times() })
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

/// The kernel's version.
fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// A sandbox runs.
fn alive(way: Way<'_>) {
    let execution = harness::run(way, Language::Python, "print(1)", &Order::default(), (&mut Silent, &Control::default()));
    assert_eq!(execution.stdout, "1\n", "another sandbox must run: {:?}", execution.error);
}
