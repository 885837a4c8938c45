//! `belljar doctor`: which layers hold on this host, what is missing, and how to get it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use engine::{Command, Reply};
use sandbox::probe::{self, Place, Report, SHARED_KERNEL, Status};

use crate::config::Configuration;
use crate::{exit, terminal};

/// Columns of the text.
const WIDTH: usize = 118;
/// Columns of a layer's mark.
const MARK: usize = 7;

/// Looks at this host and says what it finds.
pub(crate) fn run(json: bool, configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let environment = &configuration.environment.value;
    let built = built(configuration, environment);
    let place = Place { data: &configuration.data.value, environment, built: built.as_deref(), limits: configuration.limits };
    let report = probe::examine(&place, &configuration.require.value);
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        out.write_all(text(&report, out.is_terminal()).as_bytes())?;
    }
    let unmet = unmet(&report);
    if !unmet.is_empty() {
        terminal::note(&format!("error: the configuration requires what is missing here: {}", unmet.join(", ")));
    }
    Ok(ExitCode::from(if report.ok { exit::DONE } else { exit::FAILED }))
}

/// The environment in words, where it is built.
fn built(configuration: &Configuration, name: &str) -> Option<String> {
    let Ok(Reply::Environments(all)) = super::engine(configuration).dispatch(Command::ListEnvironments) else { return None };
    let environment = all.into_iter().find(|environment| environment.name == name)?;
    Some(format!("Python {}, {} packages", environment.python_version, environment.packages.len()))
}

fn text(report: &Report, colours: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "isolation: {} (backend `{}`)", report.isolation, report.backend);
    text.push_str(&paragraph("", "  ", SHARED_KERNEL));
    let _ = writeln!(
        text,
        "host: Linux {}, {}; belljar runs as {}; tier `{}`\n\n* the configuration requires it (key `require`)\n",
        report.kernel,
        report.arch,
        user(report),
        report.tier
    );
    let longest = report.layers.iter().map(|layer| layer.id.len()).max().unwrap_or_default();
    for (index, layer) in report.layers.iter().enumerate().filter(|(_, layer)| !layer.unseen) {
        let (mark, colour) = mark(layer.status);
        let mark = if colours { format!("\x1b[{colour}m{mark:<MARK$}\x1b[0m") } else { format!("{mark:<MARK$}") };
        let star = if layer.required { '*' } else { ' ' };
        let _ = write!(text, "{mark} {star} {:<longest$}  ", layer.id);
        let indent = " ".repeat(MARK + longest + 5);
        text.push_str(paragraph(&indent, "", &format!("{}: {}", layer.title, layer.detail)).trim_start());
        if layer.status != Status::Holds {
            text.push_str(&paragraph(&indent, "means   ", &layer.means));
            let told = report.layers.iter().take(index).find(|earlier| earlier.status != Status::Holds && !earlier.unseen && earlier.remedy == layer.remedy);
            let remedy = told.map_or_else(|| layer.remedy.clone(), |earlier| format!("as for `{}`", earlier.id));
            text.push_str(&paragraph(&indent, "remedy  ", &remedy));
        }
    }
    let unseen: Vec<&str> = report.layers.iter().filter(|layer| layer.unseen).map(|layer| layer.id).collect();
    if !unseen.is_empty() {
        text.push_str(&paragraph("", "not seen, since no sandbox runs: ", &unseen.join(", ")));
    }
    text.push('\n');
    text + &paragraph("", "", &summary(report))
}

fn user(report: &Report) -> &'static str {
    if report.user == "root" { "root, its sandboxes do not" } else { "an ordinary user" }
}

fn mark(status: Status) -> (&'static str, u8) {
    match status {
        Status::Holds => ("holds", 32),
        Status::Bounded => ("bounded", 33),
        Status::Missing => ("MISSING", 31),
        Status::Info => ("info", 36),
    }
}

/// Layers that the configuration demands in vain.
fn unmet(report: &Report) -> Vec<&'static str> {
    report.layers.iter().filter(|layer| layer.required && !layer.is_met()).map(|layer| layer.id).collect()
}

fn summary(report: &Report) -> String {
    let of = |status: Status| report.layers.iter().filter(|layer| layer.status == status).count();
    let counts = format!("{} hold, {} bounded, {} missing, {} to know", of(Status::Holds), of(Status::Bounded), of(Status::Missing), of(Status::Info));
    let unmet = unmet(report);
    if unmet.is_empty() {
        format!("{counts}; every layer that the configuration requires (*) holds or is bounded")
    } else {
        format!("{counts}; the configuration requires what is missing here: {}", unmet.join(", "))
    }
}

/// Words in lines of [`WIDTH`]: the first one behind `label`, the others below its end.
fn paragraph(indent: &str, label: &str, words: &str) -> String {
    let (mut text, mut line) = (String::new(), format!("{indent}{label}"));
    let start = line.chars().count();
    for word in words.split(' ') {
        if line.chars().count() + word.chars().count() > WIDTH && line.trim() != label.trim() {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(start);
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(text, "{}", line.trim_end());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::probe::Checked;

    fn layer(id: &'static str, status: Status, required: bool) -> Checked {
        let words = |text: &str| text.to_owned();
        Checked { id, title: "a title", status, detail: words("a detail"), means: words("a meaning"), remedy: words("a remedy"), required, unseen: false }
    }

    fn report(layers: Vec<Checked>) -> Report {
        Report {
            backend: "namespace",
            isolation: "shared kernel",
            kernel: "6.1".to_owned(),
            arch: "x86_64",
            user: "ordinary",
            tier: "user",
            layers,
            missing: vec![],
            ok: true,
        }
    }

    #[test]
    fn what_holds_is_one_line_and_the_rest_has_its_meaning_and_remedy() {
        let text = text(&report(vec![layer("one", Status::Holds, true), layer("two", Status::Bounded, false), layer("three", Status::Missing, false)]), false);
        assert!(text.starts_with("isolation: shared kernel (backend `namespace`)\n"), "{text}");
        assert!(text.contains("holds   * one    a title: a detail\nbounded   two    a title: a detail\n"), "{text}");
        assert_eq!((text.matches("means   a meaning\n").count(), text.matches("remedy  a remedy\n").count()), (2, 1), "{text}");
        assert!(text.contains("remedy  as for `two`\n"), "{text}");
        assert!(!text.contains('\x1b') && text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn what_is_required_and_missing_is_named() {
        let all = report(vec![layer("one", Status::Missing, true), layer("two", Status::Info, true), layer("three", Status::Bounded, true)]);
        assert!(summary(&all).ends_with("the configuration requires what is missing here: one, two"), "{}", summary(&all));
        assert!(super::text(&all, true).contains("\x1b[31mMISSING\x1b[0m * one"));
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = paragraph("  ", "label ", &"word ".repeat(60));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() > 2 && lines[0].starts_with("  label word") && lines[1].starts_with("        word"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.matches("word").count(), 60);
    }

    #[test]
    fn json_has_every_field_by_its_name() {
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report(vec![layer("one", Status::Bounded, true)])).unwrap()).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(&json), "backend isolation kernel arch user tier layers missing ok");
        assert_eq!(keys(&json["layers"][0]), "id title status detail means remedy required");
        assert_eq!(json["layers"][0]["status"], "bounded");
    }

    #[test]
    fn the_report_of_this_host_is_json_with_each_layer_once() {
        let place = Place { data: std::path::Path::new("/"), environment: "core", built: None, limits: sandbox::Limits::default() };
        let report = probe::examine(&place, &[]);
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        let ids: Vec<&str> = json["layers"].as_array().unwrap().iter().map(|layer| layer["id"].as_str().unwrap()).collect();
        assert_eq!(ids, super::super::doctor_layers());
        assert_eq!(ids.len(), ids.iter().collect::<std::collections::BTreeSet<_>>().len());
        let missing: Vec<&str> = json["missing"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        assert!(missing.iter().all(|id| text(&report, false).contains(id)));
    }
}
