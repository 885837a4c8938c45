//! The rows of the result: printed, and written as JSON.

use std::fs;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use crate::judge::Verdict;
use crate::table::Tier;

/// One line of the result.
pub(crate) struct Row {
    pub(crate) number: String,
    pub(crate) title: String,
    pub(crate) language: String,
    pub(crate) way: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) expected: String,
    pub(crate) control: String,
    pub(crate) note: String,
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

    pub(crate) fn as_expected(&self) -> bool {
        match &self.verdict {
            Verdict::Holds => self.expected == "holds" || self.expected.starts_with("bounded by"),
            Verdict::NotHeld(_) => self.expected.starts_with("not held"),
            Verdict::Invalid(_) => false,
        }
    }

    /// In one line, with why.
    pub(crate) fn told(&self) -> String {
        format!("{} {} ({}, {}): {} {:?}, expected `{}`", self.number, self.title, self.language, self.way, self.result(), self.verdict, self.expected)
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        println!("{:<9} {:<7} {:<15} {:<9} {:<24} {}", self.number, self.language, self.way, self.result(), self.control, self.note);
    }

    fn json(&self) -> Json {
        json!({
            "number": self.number, "title": self.title, "language": self.language, "way": self.way, "result": self.result(), "expected": self.expected,
            "asExpected": self.as_expected(), "controls": self.control, "note": self.note,
        })
    }
}

/// How a way in is called in the result.
pub(crate) fn way(name: &str) -> &'static str {
    match name {
        "forked" => "forked",
        "used" => "executed, used",
        "used forked" => "forked, used",
        _ => "executed",
    }
}

/// How long the second session's executions took: how many, the 99th percentile and the longest, in milliseconds.
pub(crate) struct Pulse {
    /// Before anything was tried.
    pub(crate) quiet: (usize, u64, u64),
    /// Beside everything that was tried.
    pub(crate) during: (usize, u64, u64),
}

/// A row of the whole suite.
pub(crate) fn suite_row(name: &str, verdict: Verdict) -> Row {
    let note = if let Verdict::NotHeld(reason) | Verdict::Invalid(reason) = &verdict { reason.clone() } else { "whole suite".to_owned() };
    let row = Row {
        number: name.to_owned(),
        title: "whole suite".to_owned(),
        language: String::new(),
        way: "",
        verdict,
        expected: "holds".to_owned(),
        control: String::new(),
        note,
    };
    row.print();
    row
}

/// Writes the result as JSON where the environment names a file.
pub(crate) fn write(tier: Tier, rows: &[Row], pulse: &Pulse) {
    let told = |(count, p99, longest): (usize, u64, u64)| json!({"executions": count, "p99Milliseconds": p99, "longestMilliseconds": longest});
    println!("second session: quiet {:?}, during {:?} (executions, p99 ms, longest ms)", pulse.quiet, pulse.during);
    let Some(place) = std::env::var_os("BELLJAR_CONTAINMENT_REPORT") else { return };
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    let report = json!({
        "tier": tier.name(), "kernel": crate::kernel(), "endedAtUnixSeconds": seconds, "form": if is_full() { "full" } else { "short" },
        "secondSession": {"quiet": told(pulse.quiet), "during": told(pulse.during)},
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    fs::write(place, serde_json::to_string_pretty(&report).expect("JSON") + "\n").expect("the report is written");
}

/// Whether the figures of the list of threats are asked for.
pub(crate) fn is_full() -> bool {
    std::env::var_os("BELLJAR_CONTAINMENT_FORM").is_some_and(|form| form == "full")
}
