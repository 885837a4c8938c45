//! What the environments may know of the machine they are built on, handed in by the caller.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variables of the process that started the build. The engine reads none by itself.
#[derive(Debug, Clone, Default)]
pub struct Host {
    variables: BTreeMap<OsString, OsString>,
}

/// Settings of the user's package index, proxy and certificates, and where their files are found.
/// Nothing else of the caller's environment reaches uv or pip: a stray `PIP_TARGET` or `UV_NO_BINARY` changes what gets installed.
const PASSED: &[&str] = &[
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "NETRC",
    "NO_PROXY",
    "PATH",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_TRUSTED_HOST",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "SSL_CLIENT_CERT",
    "TMPDIR",
    "UV_CONFIG_FILE",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_INDEX_URL",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS",
    "UV_NO_INDEX",
    "UV_OFFLINE",
    "UV_SYSTEM_CERTS",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
];

impl Host {
    /// Takes the variables of the calling process.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    /// The value of a variable, unless it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The folders of `PATH` that are absolute: a relative one would mean whatever folder the user stands in.
    pub(super) fn path(&self) -> Vec<PathBuf> {
        let path = self.get("PATH").unwrap_or_default();
        std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect()
    }

    /// Where pyenv keeps its interpreters.
    pub(super) fn pyenv_versions(&self) -> Option<PathBuf> {
        let root = match self.get("PYENV_ROOT") {
            Some(root) => PathBuf::from(root),
            None => Path::new(self.get("HOME")?).join(".pyenv"),
        };
        Some(root.join("versions"))
    }

    /// What a probed interpreter may see; pyenv's shims need to know where they are.
    pub(super) fn for_interpreters(&self) -> Vec<(OsString, OsString)> {
        self.only(|name| matches!(name, "PATH" | "HOME" | "PYENV_ROOT" | "PYENV_VERSION" | "LD_LIBRARY_PATH"))
    }

    /// What uv and pip may see.
    pub(super) fn for_tools(&self) -> Vec<(OsString, OsString)> {
        // uv reads the credentials of a named index from `UV_INDEX_<NAME>_USERNAME` and `…_PASSWORD`.
        self.only(|name| PASSED.binary_search(&name.to_ascii_uppercase().as_str()).is_ok() || name.starts_with("UV_INDEX_"))
    }

    fn only(&self, keep: impl Fn(&str) -> bool) -> Vec<(OsString, OsString)> {
        let kept = self.variables.iter().filter(|(name, _)| name.to_str().is_some_and(&keep));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pairs: &[(&str, &str)]) -> Host {
        Host::new(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(PASSED.is_sorted());
    }

    #[test]
    fn tools_see_the_index_and_nothing_private() {
        let host = host(&[
            ("UV_DEFAULT_INDEX", "i"),
            ("UV_INDEX_CORP_PASSWORD", "p"),
            ("https_proxy", "h"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("PIP_TARGET", "t"),
            ("UV_NO_BINARY", "1"),
        ]);
        let names: Vec<_> = host.for_tools().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["UV_DEFAULT_INDEX", "UV_INDEX_CORP_PASSWORD", "https_proxy"]);
    }

    #[test]
    fn relative_folders_of_path_are_left_out() {
        let host = host(&[("PATH", "bin:/usr/bin::/bin")]);
        assert_eq!(host.path(), [Path::new("/usr/bin"), Path::new("/bin")]);
    }

    #[test]
    fn pyenv_is_found_by_its_variable_or_at_home() {
        let named = host(&[("PYENV_ROOT", "/p"), ("HOME", "/h")]);
        assert_eq!(named.pyenv_versions(), Some("/p/versions".into()));
        assert_eq!(host(&[("HOME", "/h")]).pyenv_versions(), Some("/h/.pyenv/versions".into()));
        assert_eq!(host(&[]).pyenv_versions(), None);
    }
}
