//! Transcripts: text files that say what a user does and sees, played unchanged on every surface against the real program.
//!
//! `tests/transcripts/README.md` says how they are written. Each surface prints what it played and what it skipped by which declaration, and
//! what of it the surface cannot tell; all of that stands in `counts.golden.txt`, so that none of it grows unseen.
//!
//! | variable | what |
//! |---|---|
//! | `BELLJAR_TEST_TRANSCRIPTS` | folder of the transcripts [default: the repository's] |
//! | `BELLJAR_TRANSCRIPTS_ONLY` | names, with commas between them: only these are played, and nothing is counted |
//!
//! and those of the tests `cli`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "what was skipped is told")]

#[path = "../cli/support.rs"]
#[expect(dead_code, reason = "shared with the tests `cli`, which need more of it")]
mod support;

mod aca;
mod cli;
mod compare;
mod mcp;
mod parse;
mod rest;
mod seen;
mod server;
mod surface;

use std::path::{Path, PathBuf};

use parse::{Action, Need, Transcript};
use surface::{Kind, Surface};

/// What every surface plays, skips and cannot tell.
const COUNTS: &str = include_str!("counts.golden.txt");

/// All transcripts by name.
fn transcripts() -> Vec<Transcript> {
    let folder = std::env::var_os("BELLJAR_TEST_TRANSCRIPTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/transcripts"), PathBuf::from);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        Transcript::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap_or_else(|bad| panic!("{name}.txt, {bad}"))
    };
    paths.iter().map(read).collect()
}

/// Names of the transcripts that alone are wanted.
fn only() -> Option<Vec<String>> {
    let names = std::env::var("BELLJAR_TRANSCRIPTS_ONLY").ok()?;
    Some(names.split(',').map(str::to_owned).collect())
}

/// What came of all transcripts on one surface.
#[derive(Default)]
struct Tally {
    played: usize,
    skipped: Vec<(Need, String)>,
    checked: usize,
    untold: usize,
    problems: Vec<String>,
}

impl Tally {
    /// Its lines in the golden file.
    fn lines(&self, kind: Kind) -> String {
        let skipped = |need: Need| self.skipped.iter().filter(|(of, _)| *of == need).map(|(_, name)| name.as_str()).collect::<Vec<_>>();
        let mut lines = format!("{kind}: {} played, {} facts checked, {} it cannot tell\n", self.played, self.checked, self.untold);
        for need in Need::ALL {
            let names = skipped(need);
            if !names.is_empty() {
                lines.push_str(&format!("{kind}: {} skipped, {need}: {}\n", names.len(), names.join(" ")));
            }
        }
        lines
    }
}

/// Plays all transcripts on one surface.
fn play_all(kind: Kind, surface: &mut dyn Surface, transcripts: &[Transcript]) {
    let (only, mut tally) = (only(), Tally::default());
    for transcript in transcripts.iter().filter(|transcript| only.as_ref().is_none_or(|only| only.contains(&transcript.name))) {
        if let Some(need) = transcript.needs.iter().find(|need| !kind.meets(**need)) {
            tally.skipped.push((*need, transcript.name.clone()));
            continue;
        }
        tally.played += 1;
        surface.begin(transcript);
        play(kind, surface, transcript, &mut tally);
    }
    let lines = tally.lines(kind);
    eprint!("{lines}");
    assert!(tally.problems.is_empty(), "{kind} differs from the transcripts:\n\n{}", tally.problems.join("\n\n"));
    let golden: String = COUNTS.lines().filter(|line| line.starts_with(&format!("{kind}: "))).map(|line| format!("{line}\n")).collect();
    assert!(only.is_some() || lines == golden, "if this is meant, write it into counts.golden.txt:\n{lines}");
}

fn play(kind: Kind, surface: &mut dyn Surface, transcript: &Transcript, tally: &mut Tally) {
    let session = |name: &str| format!("{}-{name}", transcript.name);
    let mut now = session("one");
    for step in &transcript.steps {
        let compared = match &step.action {
            Action::Execute(execute) => compare::execution(kind, step, &surface.execute(&now, execute)),
            Action::Upload { path, content } => compare::done(step, surface.upload(&now, path, content.as_bytes())),
            Action::Delete { path } => compare::done(step, surface.delete(&now, path)),
            Action::Download { path } => compare::download(step, surface.download(&now, path)),
            Action::List => compare::list(kind, step, surface.list(&now)),
            Action::End => compare::done(step, surface.end(&now)),
            Action::Session { name } => {
                now = session(name);
                continue;
            }
        };
        tally.checked += compared.checked;
        tally.untold += compared.untold;
        tally.problems.extend(compared.problems.iter().map(|problem| format!("{}.txt, line {}: {problem}", transcript.name, step.line)));
    }
}

#[test]
fn on_the_command_line() {
    play_all(Kind::Cli, &mut cli::CommandLine::new(None), &transcripts());
}

#[test]
fn on_the_command_line_by_way_of_a_server() {
    let transcripts = transcripts();
    play_all(Kind::CliServed, &mut cli::CommandLine::new(Some(server::Server::start(&transcripts))), &transcripts);
}

#[test]
fn on_the_native_routes() {
    let transcripts = transcripts();
    play_all(Kind::Rest, &mut rest::Native::new(server::Server::start(&transcripts)), &transcripts);
}

#[test]
fn on_the_tools_of_mcp() {
    let transcripts = transcripts();
    play_all(Kind::Mcp, &mut mcp::Tools::new(server::Server::start(&transcripts)), &transcripts);
}

#[test]
fn on_the_old_routes_of_dynamic_sessions() {
    let transcripts = transcripts();
    play_all(Kind::AcaOld, &mut aca::DynamicSessions::new(Kind::AcaOld, server::Server::start(&transcripts)), &transcripts);
}

#[test]
fn on_the_new_routes_of_dynamic_sessions() {
    let transcripts = transcripts();
    play_all(Kind::AcaNew, &mut aca::DynamicSessions::new(Kind::AcaNew, server::Server::start(&transcripts)), &transcripts);
}
