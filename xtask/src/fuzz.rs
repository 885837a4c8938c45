//! What is tried with inputs that nobody wrote: the served description, and every decoder between inside and outside.

use std::process::Command;

use anyhow::{Context, bail};

use crate::ci;

pub(crate) mod decoders;
pub(crate) mod service;

/// Seconds for each decoder where nothing else is asked for: all of them take about a minute.
const SHORT: u64 = 4;

/// `cargo xtask fuzz [service [--cases N] [--seed N] | decoders [--seconds N] [TARGET]...]`
pub(crate) fn command(options: &[&str]) -> anyhow::Result<()> {
    match options.split_first() {
        None => {
            short_decoders()?;
            ci::only(service::run)
        }
        Some((&"service", rest)) => service::command(rest),
        Some((&"decoders", rest)) => {
            let root = ci::root()?;
            decoders::run(&root, &ci::target(&root)?, &wanted(rest)?)
        }
        Some((other, _)) => bail!("`{other}` cannot be fuzzed; say `service` or `decoders`"),
    }
}

/// All decoders, as `ci` tries them. libFuzzer is C++: where there is no compiler for it, that is told.
pub(crate) fn short_decoders() -> anyhow::Result<()> {
    if !Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success()) {
        ci::say("NOT RUN, a C++ compiler is missing: the decoders are not fuzzed");
        return Ok(());
    }
    let root = ci::root()?;
    decoders::run(&root, &ci::target(&root)?, &decoders::Wanted { targets: Vec::new(), seconds: SHORT })
}

fn wanted(options: &[&str]) -> anyhow::Result<decoders::Wanted> {
    let mut wanted = decoders::Wanted { targets: Vec::new(), seconds: SHORT };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--seconds" => wanted.seconds = options.next().and_then(|seconds| seconds.parse().ok()).context("`--seconds` needs a number")?,
            option if option.starts_with('-') => bail!("there is no option `{option}`"),
            target => wanted.targets.push(target.to_owned()),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let wanted = wanted(&["strict", "--seconds", "60", "json"]).unwrap();
        assert_eq!((wanted.seconds, wanted.targets), (60, vec!["strict".to_owned(), "json".to_owned()]));
        assert!(super::wanted(&["--seconds"]).is_err() && super::wanted(&["--second", "1"]).is_err());
    }
}
