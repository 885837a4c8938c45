//! The Python runtime as it is shipped: its driver files and how its worker is started.

use sandbox::Template;
use serde::Deserialize;

use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::pool::Imports;

const MANIFEST: &str = include_str!("../../../runtimes/python/manifest.toml");

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!(concat!("../../../runtimes/python/", $name)))),*] };
}

/// The driver's files. The manifest lists the same names; a test compares.
const FILES: &[(&str, &[u8])] = files![
    "driver.py",
    "awaiting.py",
    "documents.py",
    "entering.py",
    "errors.py",
    "figures.py",
    "fresh.py",
    "hooks.py",
    "interactive.py",
    "template.py",
    "values.py",
];

#[derive(Debug, Deserialize)]
struct Manifest {
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with the embedded files by a test"))]
    files: Vec<String>,
    argv: Vec<String>,
    profiles: std::collections::BTreeMap<String, Profile>,
    environment: std::collections::BTreeMap<String, String>,
}

/// What a template's process brings along.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    /// Modules, in the order of their import.
    modules: Vec<String>,
    /// Code that runs once after them, so that what it uses is in place.
    warm_up: String,
}

/// What a template's process says of its imports. Text of packages, shortened.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Milliseconds that each import took.
    pub imported: std::collections::BTreeMap<String, f64>,
    /// Imports that failed, with their error.
    pub failed: std::collections::BTreeMap<String, String>,
    /// Modules left out, since a process that has imported them cannot be forked.
    pub skipped: std::collections::BTreeMap<String, String>,
}

impl Report {
    pub(crate) fn read(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }

    /// One line about what did not go as the profile says; `None` where all did.
    pub(crate) fn problem(&self, imports: &Imports) -> Option<String> {
        let bad: Vec<String> = self.failed.iter().chain(&self.skipped).map(|(module, reason)| format!("`{module}`: {reason}")).collect();
        let bad: Vec<String> = bad.iter().map(|line| line.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()).collect();
        let hint = "code that needs it imports it in its own sandbox; correct the profile or the environment";
        (!bad.is_empty()).then(|| format!("{imports} go without {}; {hint}", bad.join(", ")))
    }
}

/// The command line of a template's process.
///
/// # Errors
/// A profile that the manifest does not have.
pub(crate) fn template_command(imports: &Imports) -> Result<Vec<String>, Error> {
    let manifest: Manifest = toml::from_str(MANIFEST).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let profile = match imports {
        Imports::Modules { modules, warm_up } => return Ok(command_of(manifest.argv, modules, warm_up)),
        Imports::Profile(name) => name,
    };
    let Some(found) = manifest.profiles.get(profile) else {
        let known: Vec<&str> = manifest.profiles.keys().map(String::as_str).collect();
        let message = format!("the runtime has no import profile `{profile}`");
        return Err(Error::new(ErrorKind::InvalidRequest, message).hint(format!("choose one of: {}", known.join(", "))));
    };
    Ok(command_of(manifest.argv, &found.modules, &found.warm_up))
}

fn command_of(mut argv: Vec<String>, modules: &[String], warm_up: &str) -> Vec<String> {
    argv.push("--template".to_owned());
    argv.push(serde_json::json!({"modules": modules, "warmUp": warm_up}).to_string());
    argv
}

/// What a sandbox with this environment is made from.
pub(crate) fn template(environment: &Environment) -> Result<Template, toml::de::Error> {
    let manifest: Manifest = toml::from_str(MANIFEST)?;
    let mut variables: Vec<(String, String)> = manifest.environment.into_iter().collect();
    let libraries: Vec<String> = environment.library_path.iter().map(|path| path.display().to_string()).collect();
    if !libraries.is_empty() {
        variables.push(("LD_LIBRARY_PATH".to_owned(), libraries.join(":")));
    }
    let cache = environment.cache_dir();
    Ok(Template {
        environment: Some(environment.env_dir()),
        interpreter: environment.python_dir(),
        cache: cache.is_dir().then_some(cache),
        driver: FILES.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect(),
        worker: manifest.argv,
        variables,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_lists_the_embedded_files() {
        let manifest: Manifest = toml::from_str(MANIFEST).unwrap();
        let mut embedded: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        let mut listed: Vec<&str> = manifest.files.iter().map(String::as_str).collect();
        embedded.sort_unstable();
        listed.sort_unstable();
        assert_eq!(embedded, listed);
    }
}
