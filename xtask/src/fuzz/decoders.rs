//! The decoders between inside and outside, each under libFuzzer: `fuzz/`.
//!
//! On stable Rust: what cargo-fuzz asks of the compiler for coverage is stable, only its sanitizers are not, and outside two `sys` modules there is no
//! unsafe code for them to watch. See `docs/adr/0014-fuzzing.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::ci::{check, say};

/// Coverage as libFuzzer reads it, as cargo-fuzz has it put in.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cforce-frame-pointers=yes";
/// One input may take so many seconds, and a target so much memory, in MiB.
const INPUT_SECONDS: &str = "10";
const MEMORY_MIB: &str = "2048";
/// Lines of a target that fails that are shown.
const SHOWN_LINES: usize = 40;

/// Which targets, and for how long each.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// By name; empty: all.
    pub(crate) targets: Vec<String>,
    pub(crate) seconds: u64,
}

/// Runs them one after the other, each from what is committed in `fuzz/seeds` and what earlier runs have found; prints a table.
pub(crate) fn run(root: &Path, target: &Path, wanted: &Wanted) -> anyhow::Result<()> {
    let folder = root.join("fuzz");
    let names = names(&folder)?;
    if let Some(unknown) = wanted.targets.iter().find(|name| !names.contains(name)) {
        bail!("there is no target `{unknown}`; there are: {}", names.join(", "));
    }
    let programs = build(&folder, target)?;
    say("| target | executions | seconds | coverage (edges) | inputs kept |\n|---|---|---|---|---|");
    let mut failed = Vec::new();
    for name in names.iter().filter(|name| wanted.targets.is_empty() || wanted.targets.contains(name)) {
        match fuzz(&folder, target, &programs.join(name), wanted.seconds) {
            Ok(figures) => say(&figures),
            Err(error) => {
                say(&format!("| {name} | failed | | | |\n{error:#}"));
                failed.push(name.as_str());
            }
        }
    }
    ensure!(failed.is_empty(), "inputs were found on which these fail: {}", failed.join(", "));
    Ok(())
}

/// Names of the targets: one file each.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder.join("fuzz_targets"))?.flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.path().file_stem()?.to_str().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// Builds all of them; the folder of the programs.
fn build(folder: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let host = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned())).arg("-vV").output().context("cannot start rustc")?;
    let host = String::from_utf8(host.stdout)?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc tells no host")?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // With a target, build scripts and macros are built without the flags, which they would not link with.
    let mut command = Command::new(cargo);
    command.current_dir(folder).args(["build", "--locked", "--release", "--target", host, "--target-dir"]).arg(target.join("fuzz"));
    check(command.env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS")).context("libFuzzer is C++: is there a compiler for it?")?;
    Ok(target.join("fuzz").join(host).join("release"))
}

/// Runs one target; a row of figures.
fn fuzz(folder: &Path, target: &Path, program: &Path, seconds: u64) -> anyhow::Result<String> {
    let name = program.file_name().and_then(|name| name.to_str()).context("a target without a name")?;
    let (corpus, seeds, findings) = (target.join("fuzz/corpus").join(name), folder.join("seeds").join(name), target.join("fuzz/findings"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&findings)?;
    let mut command = Command::new(program);
    command.arg(&corpus).args(seeds.is_dir().then_some(&seeds));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={INPUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.args(["-print_final_stats=1", "-len_control=10"]).arg(format!("-artifact_prefix={}/{name}-", findings.display()));
    let output = command.current_dir(target).stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = said.lines().collect();
        bail!("{}", lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n"));
    }
    let executions = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")).unwrap_or_default().trim();
    let coverage = said.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split_whitespace().next()).unwrap_or("0");
    let took = said.lines().find_map(|line| line.strip_prefix("Done ")?.split_once(" in ")?.1.split_whitespace().next()).unwrap_or("0");
    let kept = fs::read_dir(&corpus)?.count();
    Ok(format!("| {name} | {executions} | {took} | {coverage} | {kept} |"))
}
