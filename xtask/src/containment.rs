//! Everything that hostile code and hostile callers try, on every tier that this machine gives; the result as a table, a file and pages.
//!
//! What is tried where stands in `xtask/containment/coverage.toml`. The full form uses the figures of the list of threats and every way in;
//! what it came to is written to `docs/containment.json`, and from there into SECURITY.md and `docs/containment.md` ([`page`]).

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::ci::{self, say};
use crate::data;

pub(crate) mod coverage;
mod delegated;
mod named;
mod page;
mod result;
mod tier;

use coverage::Coverage;
use result::Run;
use tier::Place;

/// How the command is called.
pub(crate) const USAGE: &str = "cargo xtask containment [--short] [--only T001,…] [--tier NAME] [--tests] [--at-once] | containment pages [--check]";

/// What is asked for.
#[derive(Debug, Default)]
struct Options {
    short: bool,
    only: String,
    tier: Option<String>,
    /// Only the tests of other programs.
    tests: bool,
    /// All tiers side by side: what they do is waiting, mostly.
    at_once: bool,
}

impl Options {
    fn parse(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "--short" => options.short = true,
                "--tests" => options.tests = true,
                "--at-once" => options.at_once = true,
                "--only" => options.only = (*arguments.next().context(USAGE)?).to_owned(),
                "--tier" => options.tier = Some((*arguments.next().context(USAGE)?).to_owned()),
                other => bail!("`{other}` is unknown; usage: {USAGE}"),
            }
        }
        Ok(options)
    }

    /// Whether its result is kept: everything is tried, with the figures of the list, on all tiers or on one.
    fn is_kept(&self) -> bool {
        !self.short && self.only.is_empty()
    }
}

/// The command.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    if let ["pages", check @ ..] = arguments {
        return page::write(&root, check == ["--check"]);
    }
    let options = Options::parse(arguments)?;
    let coverage = Coverage::load(&root)?;
    ci::cargo(&root, &["build", "--workspace"])?;
    let target = ci::target(&root)?;
    let data = std::env::var_os("BELLJAR_TEST_DATA").map_or_else(|| data::folder(&target), |folder| Ok(PathBuf::from(folder)))?;
    ci::check(std::process::Command::new(target.join("debug/belljar")).args(["env", "build", "core", "--data"]).arg(&data))?;
    let mut result = attempt(&root, &data, &options, &coverage)?;
    result.print()?;
    if options.is_kept() {
        if options.tier.is_some() || options.tests {
            result = Run::load(&root)?.with(result);
        }
        result.write(&root)?;
        page::write(&root, false)?;
    }
    let problems = result.problems();
    ensure!(problems.is_empty(), "not as the tables say:\n{}", problems.join("\n"));
    Ok(())
}

/// The short form on the tiers that `cargo test`, as root and as an ordinary user, is not: without control groups, and with delegated ones.
pub(crate) fn others(root: &Path, data: &Path) -> anyhow::Result<()> {
    let mut run = Run::begin(true)?;
    let stage = tier::Stage::prepare(root, &named::binaries(root)?)?;
    for place in [Place::Ungrouped, Place::Delegated] {
        run.tiers.push(place.suite(&stage, data, true, "")?);
    }
    run.print()?;
    let problems = run.problems();
    ensure!(problems.is_empty(), "not as the tables say:\n{}", problems.join("\n"));
    Ok(())
}

/// All tiers that can be had here, then the tests of other programs.
fn attempt(root: &Path, data: &Path, options: &Options, coverage: &Coverage) -> anyhow::Result<Run> {
    let binaries = named::binaries(root)?;
    let mut run = Run::begin(options.short)?;
    let stage = tier::Stage::prepare(root, &binaries)?;
    let places: Vec<Place> = Place::all().into_iter().filter(|place| options.tier.as_ref().is_none_or(|name| name == place.name()) && !options.tests).collect();
    for places in places.chunks(if options.at_once { places.len().max(1) } else { 1 }) {
        say(&format!("\n== as {}", places.iter().map(|place| place.name()).collect::<Vec<_>>().join(", ")));
        let suite = |place: Place| place.suite(&stage, data, options.short, &options.only);
        let tiers: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = places.iter().map(|place| scope.spawn(move || suite(*place))).collect();
            running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        for tier in tiers {
            run.tiers.push(tier.map_err(|_| anyhow::anyhow!("a tier was lost"))??);
        }
    }
    if options.tier.is_none() {
        run.tests = named::run(&stage, data, coverage, options.short, &options.only)?;
    }
    Ok(run)
}
