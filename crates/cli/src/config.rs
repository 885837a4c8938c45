//! Configuration: defaults, then the file, then variables and flags. The only place that reads any of them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use sandbox::Limits;
use serde::Deserialize;

use crate::args::Global;
use crate::exit::usage;

/// The defaults, as a file that documents every key.
const DEFAULTS: &str = include_str!("config.default.toml");

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File,
    Flag,
}

/// A value with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Known<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Everything that is configured.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    pub(crate) data: Known<PathBuf>,
    pub(crate) environment: Known<String>,
    pub(crate) python: Known<Option<PathBuf>>,
    pub(crate) process_spawning: Known<bool>,
    pub(crate) require: Known<Vec<String>>,
    pub(crate) limits: Limits,
    limit_origins: Vec<(String, Origin)>,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    environment: Option<String>,
    python: Option<PathBuf>,
    process_spawning: Option<Spawning>,
    require: Option<Vec<String>>,
    limits: Option<FileLimits>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Spawning {
    Allow,
    Deny,
}

macro_rules! limits {
    ($($name:ident: $kind:ty),* $(,)?) => {
        /// Limits as the file words them.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct FileLimits { $($name: Option<$kind>),* }

        impl FileLimits {
            /// Puts what is given over `limits`, and lists every limit with its origin.
            fn apply(&self, limits: &mut Limits, origin: Origin, origins: &mut Vec<(String, Origin)>) {
                $(
                    if let Some(value) = self.$name {
                        limits.$name = value;
                        origins.retain(|(name, _)| name != stringify!($name));
                        origins.push((stringify!($name).to_owned(), origin));
                    }
                )*
            }
        }

        fn limit_lines(limits: &Limits) -> Vec<(&'static str, String)> {
            vec![$((stringify!($name), limits.$name.to_string())),*]
        }
    };
}

limits! {
    wall_seconds: u64,
    cpu_seconds: u64,
    cpus: f64,
    memory_bytes: u64,
    processes: u64,
    open_files: u64,
    workspace_bytes: u64,
    workspace_inodes: u64,
    tmp_bytes: u64,
    output_bytes: u64,
}

impl Configuration {
    /// Reads everything.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, or has an unknown key or a value out of range.
    pub(crate) fn read(global: &Global) -> anyhow::Result<Self> {
        let defaults: File = toml::from_str(DEFAULTS)?;
        let file = match &global.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        let mut limits = Limits::default();
        let mut limit_origins = Vec::new();
        for (layer, origin) in [(&defaults, Origin::Default), (&file, Origin::File)] {
            if let Some(given) = &layer.limits {
                given.apply(&mut limits, origin, &mut limit_origins);
            }
        }
        let data = match (&global.data, file.data) {
            (Some(data), _) => Known { value: data.clone(), origin: Origin::Flag },
            (None, Some(data)) => Known { value: data, origin: Origin::File },
            (None, None) => Known { value: default_data()?, origin: Origin::Default },
        };
        let spawning = layered(file.process_spawning, defaults.process_spawning.unwrap_or(Spawning::Deny));
        let configuration = Self {
            data,
            environment: layered(file.environment, defaults.environment.unwrap_or_default()),
            python: layered(file.python.map(Some), None),
            process_spawning: Known { value: spawning.value == Spawning::Allow, origin: spawning.origin },
            require: layered(file.require, defaults.require.unwrap_or_default()),
            limits,
            limit_origins,
        };
        configuration.check()?;
        Ok(configuration)
    }

    fn check(&self) -> anyhow::Result<()> {
        let known = crate::command::doctor_layers();
        if let Some(name) = self.require.value.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(usage(format!("`require` names the unknown layer `{name}`"), format!("known are: {}", known.join(", "))));
        }
        if !(0.01..=4096.0).contains(&self.limits.cpus) {
            return Err(usage(format!("the limit `cpus` is {}", self.limits.cpus), "give a number from 0.01 to 4096"));
        }
        if !(1..=900).contains(&self.limits.wall_seconds) {
            return Err(usage(format!("the limit `wall_seconds` is {}", self.limits.wall_seconds), "give a number from 1 to 900"));
        }
        match limit_lines(&self.limits).iter().find(|(_, value)| value == "0") {
            Some((name, _)) => Err(usage(format!("the limit `{name}` is 0"), "leave it out to keep the default")),
            None => Ok(()),
        }
    }

    /// Every value with its origin, as TOML.
    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str, origin: Origin| {
            let origin = match origin {
                Origin::Default => "default",
                Origin::File => "file",
                Origin::Flag => "flag or variable",
            };
            let _ = writeln!(text, "{name} = {value}  # {origin}");
        };
        line("data", &format!("{:?}", self.data.value), self.data.origin);
        line("environment", &format!("{:?}", self.environment.value), self.environment.origin);
        if let Some(python) = &self.python.value {
            line("python", &format!("{python:?}"), self.python.origin);
        }
        line("process_spawning", if self.process_spawning.value { "\"allow\"" } else { "\"deny\"" }, self.process_spawning.origin);
        line("require", &format!("{:?}", self.require.value), self.require.origin);
        for (name, value) in limit_lines(&self.limits) {
            let origin = self.limit_origins.iter().find(|(limit, _)| limit == name).map_or(Origin::Default, |(_, origin)| *origin);
            line(&format!("limits.{name}"), &value, origin);
        }
        text
    }
}

fn layered<T>(file: Option<T>, default: T) -> Known<T> {
    match file {
        Some(value) => Known { value, origin: Origin::File },
        None => Known { value: default, origin: Origin::Default },
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("cannot read the configuration `{name}`: {error}"), "check --config or BELLJAR_CONFIG"))?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        usage(format!("the configuration `{name}` is not valid at line {place}: {}", error.message()), "see `belljar config show` for every key")
    })
}

/// `$XDG_DATA_HOME/belljar`, else `~/.local/share/belljar`.
fn default_data() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    base.map(|base| base.join("belljar")).ok_or_else(|| usage("there is no folder for data: HOME is not set", "name one with --data or BELLJAR_DATA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Configuration> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belljar.toml");
        std::fs::write(&path, text).unwrap();
        Configuration::read(&Global { data: Some("/d".into()), config: Some(path) })
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let configuration = Configuration::read(&Global { data: Some("/d".into()), config: None }).unwrap();
        assert_eq!(configuration.limits, Limits::default());
        assert_eq!(limit_lines(&configuration.limits).len(), configuration.limit_origins.len(), "every limit is documented");
        assert_eq!(configuration.environment.value, "core");
    }

    #[test]
    fn the_file_is_over_the_defaults_and_says_so() {
        let configuration = read("environment = \"mine\"\n[limits]\nmemory_bytes = 5\n").unwrap();
        let shown = configuration.show();
        assert!(shown.contains("environment = \"mine\"  # file\n") && shown.contains("limits.memory_bytes = 5  # file\n"), "{shown}");
        assert!(shown.contains("limits.cpus = 1  # default\n") && shown.contains("data = \"/d\"  # flag or variable\n"), "{shown}");
    }

    #[test]
    fn bad_files_are_refused_with_the_place() {
        for (text, expected) in [
            ("nonsense = 1", "unknown field `nonsense`"),
            ("\n\n[limits]\nmemory = 1", "at line 4"),
            ("[limits]\ncpus = 0.0", "`cpus` is 0"),
            ("[limits]\nprocesses = 0", "`processes` is 0"),
            ("[limits]\nwall_seconds = 901", "`wall_seconds` is 901"),
            ("require = [\"moat\"]", "unknown layer `moat`"),
            ("process_spawning = \"maybe\"", "at line 1"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
