//! The Python runtime as it is shipped: its driver files and how its worker is started.

use sandbox::Template;
use serde::Deserialize;

use crate::environment::Environment;

const MANIFEST: &str = include_str!("../../../runtimes/python/manifest.toml");

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!(concat!("../../../runtimes/python/", $name)))),*] };
}

/// The driver's files. The manifest lists the same names; a test compares.
const FILES: &[(&str, &[u8])] = files!["driver.py", "awaiting.py", "documents.py", "errors.py", "figures.py", "hooks.py", "interactive.py", "values.py"];

#[derive(Debug, Deserialize)]
struct Manifest {
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with the embedded files by a test"))]
    files: Vec<String>,
    argv: Vec<String>,
    environment: std::collections::BTreeMap<String, String>,
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
