//! Locks: what exactly an environment consists of. The built-in ones travel inside the binary.

use sha2::{Digest, Sha256};

/// An environment that Belljar brings along.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    pub(super) lock: &'static str,
}

/// To add an environment: a folder under `environments/` and a line here.
pub(super) const BUILT_IN: &[BuiltIn] = &[BuiltIn { name: "core", lock: include_str!("../../../../environments/core/requirements.txt") }];

/// The uv that is installed where none is found, with the hashes of its wheels.
pub(super) const UV: &str = include_str!("../../../../environments/uv.txt");

/// Changes whenever a folder built by an older Belljar can no longer be used as it is.
pub(super) const LAYOUT: u32 = 1;

/// One line of a lock: a package at one version, perhaps only for some Pythons.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) hashes: usize,
}

/// The lock of a built-in environment.
pub(super) fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|entry| entry.name == name).map(|entry| entry.lock)
}

/// The pins of a lock, in its order. Lines that are no pin (options, direct references) are left out.
pub(super) fn pins(lock: &str) -> Vec<Pin> {
    let mut pins: Vec<Pin> = Vec::new();
    for line in lock.lines().map(str::trim) {
        if line.starts_with("--hash=") {
            if let Some(last) = pins.last_mut() {
                last.hashes += 1;
            }
        } else if !line.starts_with(['#', '-'])
            && let Some((name, rest)) = line.split_once("==")
        {
            let version = rest.split([' ', ';', '\\']).next().unwrap_or_default();
            pins.push(Pin { name: name.trim().to_owned(), version: version.to_owned(), hashes: 0 });
        }
    }
    pins
}

/// The SHA-256 of the parts, in hexadecimal. Parts are kept apart, so that no two lists give the same text.
pub(super) fn sha256(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lock of a user's environment, with what it was resolved from in its first two lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserLock {
    pub(super) text: String,
    pub(super) requirements_digest: String,
    /// `3.12`: the pins hold for this Python only.
    pub(super) python: String,
}

const REQUIREMENTS: &str = "# requirements: ";
const PYTHON: &str = "# python: ";

impl UserLock {
    pub(super) fn new(resolved: &str, requirements: &str, python: &str) -> Self {
        let requirements_digest = sha256(&[requirements]);
        let text = format!("{REQUIREMENTS}{requirements_digest}\n{PYTHON}{python}\n{resolved}");
        Self { text, requirements_digest, python: python.to_owned() }
    }

    /// Reads one that was written before; `None` where its first lines are not ours.
    pub(super) fn parse(text: String) -> Option<Self> {
        let mut lines = text.lines();
        let requirements_digest = lines.next()?.strip_prefix(REQUIREMENTS)?.to_owned();
        let python = lines.next()?.strip_prefix(PYTHON)?.to_owned();
        Some(Self { text, requirements_digest, python })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = include_str!("../../../../environments/core/requirements.in");

    /// The way package indexes compare names.
    fn normalised(name: &str) -> String {
        name.to_ascii_lowercase().replace(['_', '.'], "-")
    }

    #[test]
    fn every_requirement_has_a_hash() {
        for text in [UV, built_in("core").unwrap()] {
            let pins = pins(text);
            assert!(!pins.is_empty());
            for pin in pins {
                assert!(pin.hashes > 0, "{} has no hash", pin.name);
                assert!(pin.version.starts_with(|c: char| c.is_ascii_digit()), "{pin:?}");
            }
        }
    }

    #[test]
    fn every_line_is_a_pin_a_hash_or_a_comment() {
        for text in [UV, built_in("core").unwrap()] {
            for line in text.lines() {
                let known = line.is_empty()
                    || line.trim_start().starts_with('#')
                    || line.starts_with("    --hash=sha256:")
                    || (line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains("=="));
                assert!(known, "unexpected line: {line}");
                assert!(!line.contains("://"), "a lock names no host: {line}");
            }
        }
    }

    #[test]
    fn all_that_was_asked_for_is_locked() {
        let pins = pins(built_in("core").unwrap());
        let asked = ASKED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in asked {
            let name = line.split(['<', '>', '=', '[', ' ']).next().unwrap();
            assert!(pins.iter().any(|pin| pin.name == normalised(name)), "{name} is not locked");
        }
    }

    #[test]
    fn what_analysts_expect_is_asked_for() {
        let expected = "numpy pandas scipy matplotlib seaborn plotly scikit-learn statsmodels pyarrow polars duckdb openpyxl \
            xlsxwriter python-docx python-pptx reportlab pypdf cryptography pdfplumber pillow requests beautifulsoup4 lxml \
            pyyaml h5py netcdf4 sympy networkx tabulate jinja2 ipython setuptools";
        let pins = pins(built_in("core").unwrap());
        for name in expected.split_whitespace() {
            assert!(pins.iter().any(|pin| pin.name == name), "{name} is not locked");
        }
    }

    #[test]
    fn setuptools_still_has_pkg_resources() {
        let pins = pins(built_in("core").unwrap());
        let setuptools = pins.iter().find(|pin| pin.name == "setuptools").unwrap();
        let major: u32 = setuptools.version.split('.').next().unwrap().parse().unwrap();
        assert!(major < 82);
    }

    #[test]
    fn markers_do_not_reach_the_version() {
        let text = "numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via x\n";
        assert_eq!(pins(text), [Pin { name: "numpy".into(), version: "2.4.6".into(), hashes: 2 }]);
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(sha256(&["ab", "c"]), sha256(&["a", "bc"]));
    }

    #[test]
    fn a_users_lock_remembers_what_it_came_from() {
        let lock = UserLock::new("six==1.17.0\n", "six\n", "3.12");
        assert_eq!(UserLock::parse(lock.text.clone()), Some(lock));
        assert_eq!(UserLock::parse("six==1.17.0\n".into()), None);
    }
}
