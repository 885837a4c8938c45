//! `belljar bench`: the shape of what it tells, never a time.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::support::{Ended, Scene, family, is_root, living};

fn document(ended: &Ended) -> Json {
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let text = ended.text();
    assert!(text.ends_with('\n') && !text.trim_end().contains('\n'), "the object stands on one line");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("stdout is one JSON object: {error}: {text:?}"))
}

/// The series by their names.
fn series(document: &Json) -> BTreeMap<&str, &Json> {
    let rows = document["rows"].as_array().unwrap();
    let series: BTreeMap<&str, &Json> = rows.iter().map(|row| (row["id"].as_str().unwrap(), row)).collect();
    assert_eq!(series.len(), rows.len(), "each is there once");
    series
}

#[test]
fn a_quick_bench_has_every_row_and_leaves_nothing() {
    let scene = Scene::new();
    let ended = scene.call(["bench", "--quick", "--json", "--parked", "4"], "");
    let document = document(&ended);
    assert_eq!(document["left"], serde_json::json!({"processes": 0, "cgroups": 0}));
    assert_eq!((document["quick"].as_bool(), document["rounds"].as_u64()), (Some(true), Some(2)));
    for name in ["kernel", "cpuModel", "user", "cgroups"] {
        assert!(document["machine"][name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {}", document["machine"]);
    }
    assert!(document["machine"]["cpus"].as_u64() > Some(0) && document["machine"]["memoryBytes"].as_u64() > Some(0));
    assert_eq!(document["machine"]["loadAtEnd"].as_array().unwrap().len(), 3);
    let phases: Vec<&str> = document["machine"]["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(phases, ["latency", "rate", "refill", "many"]);
    assert!(document["versions"]["python"].is_string() && document["versions"]["pandas"].is_string() && document["versions"]["bwrap"].is_string());
    assert!(document["environment"].as_str().unwrap().starts_with("core-"));
    assert_eq!(document["problems"], serde_json::json!([]));

    let series = series(&document);
    let mut rows: Vec<&str> = series.values().map(|line| line["row"].as_str().unwrap()).collect();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(
        rows,
        ["bwrap", "cold", "compute", "demand", "detail", "kill", "many", "memory", "once", "parked", "python", "rate", "refill"],
        "all rows are there"
    );
    for (id, line) in &series {
        check(id, line, &series);
    }
    assert_eq!(series["parkedPrint"]["notForked"], 0, "workers are forked");
    assert_eq!(series["manyParked"]["p50"], 4.0);
}

fn check(id: &str, line: &Json, series: &BTreeMap<&str, &Json>) {
    let figure = |line: &Json, name: &str| line[name].as_f64();
    let count = line["count"].as_u64().unwrap();
    if count == 0 {
        // What a machine may lack: the program, or the right to look at a sandbox's memory.
        let may_lack = line["row"] == "bwrap" || (line["row"] == "memory" && !is_root());
        assert!(may_lack && line["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{id} has samples: {line}");
        assert!(line["p50"].is_null() && line["ratio"].is_null() && line["reached"].is_null(), "{line}");
        return;
    }
    let (min, p50, max) = (figure(line, "min").unwrap(), figure(line, "p50").unwrap(), figure(line, "max").unwrap());
    // Two messages can come in one piece; a host can have more memory available than before.
    let positive = if line["row"] == "detail" || id.starts_with("manyMemory") { min >= 0.0 } else { min > 0.0 };
    assert!(positive && min <= p50 && p50 <= max, "{id}: {line}");
    assert_eq!((line["p95"].is_null(), line["p99"].is_null()), (count < 20, count < 100), "{id}: {line}");
    let compared = line["figure"].as_str().unwrap();
    match line["baseline"].as_str().map(|baseline| figure(series[baseline], compared)) {
        Some(Some(baseline)) => {
            let expected = figure(line, compared).unwrap() / baseline;
            assert!((figure(line, "ratio").unwrap() - expected).abs() <= expected * 1e-9, "{id}: {line}");
        }
        _ => assert!(line["ratio"].is_null(), "{id}: {line}"),
    }
    assert_eq!(line["goal"].is_null(), line["reached"].is_null(), "{id}: {line}");
}

#[test]
fn only_what_is_asked_for_is_measured_and_told() {
    let scene = Scene::new();
    let ended = scene.call(["bench", "--quick", "--rounds", "1", "--only", "python,kill"], "");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let text = ended.text();
    assert!(text.starts_with("belljar ") && text.contains("\nmachine: ") && text.contains("\nversions: "), "{text}");
    assert!(text.contains("\nkill a parked one: until nothing is left ") && text.contains("\npython -c: print(1), until its end "), "{text}");
    assert!(!text.contains("parked: first byte") && !text.contains("bwrap python"), "{text}");
}

#[test]
fn options_that_make_no_sense_are_refused_with_a_remedy() {
    let scene = Scene::new();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--only", "nothing"], &["invalid value 'nothing'", "possible values: parked"]),
        (&["--rounds", "0"], &["--rounds", "not in 1..=10000"]),
        (&["--quick", "--only", "many"], &["parks no sandbox", "hint: say how many with --parked"]),
        (&["--only", "kill", "--parked", "5"], &["--parked is of no use", "hint: add it"]),
        (&["--environment", "nosuch"], &["nosuch", "hint: "]),
    ];
    for (arguments, words) in cases {
        let ended = scene.call([&["bench"], arguments].concat(), "");
        assert_eq!((ended.code(), ended.text().as_str()), (2, ""), "{arguments:?}");
        assert!(words.iter().all(|word| ended.stderr.contains(word)), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn an_interrupt_ends_everything_and_reports_nothing() {
    let scene = Scene::new();
    let running = scene.start(["bench", "--only", "python,parked", "--rounds", "10000"], "");
    let mut seen = Vec::new();
    assert!(crate::support::eventually(|| {
        seen = family(running.pid());
        // The launcher, a template's process, and the sandboxes of its pool.
        seen.len() > 5
    }));
    running.signal(rustix::process::Signal::INT);
    let ended = running.end();
    assert_eq!((ended.code(), ended.text().as_str()), (1, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    scene.assert_clean(&ended);
    assert!(crate::support::eventually(|| living(&seen).is_empty()));
}
