//! The pruned copy of an interpreter that lives where the sandbox does not look, such as a home folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::elf;
use super::error::EnvironmentError;
use super::interpreter::{self, Python};

/// Where the sandbox shows the copy.
pub(super) const INSIDE: &str = "/opt/python";

/// Folders of the standard library that no analysis needs: test suites, the editor, tkinter, and what only builds other Pythons.
const LEFT_OUT: &[&str] = &["__pycache__", "ensurepip", "idlelib", "lib2to3", "pip", "site-packages", "test", "tests", "tkinter", "turtledemo"];

/// A finished copy.
pub(super) struct Copy {
    /// The interpreter as it describes itself at its new place.
    pub(super) python: Python,
    /// Whether the loader must be told where its libraries are, because their search path could not be rewritten.
    pub(super) needs_library_path: bool,
}

/// Copies `python` to `target` and asks the copy whether it is complete.
pub(super) fn copy(python: &Python, target: &Path) -> Result<Copy, EnvironmentError> {
    let mut copying = Copying { from: &python.prefix, to: target, stuck: false, libraries: BTreeSet::new() };
    copying.file(&python.executable())?;
    let folders: BTreeSet<&PathBuf> = [&python.stdlib, &python.platstdlib].into();
    for folder in folders {
        copying.folder(folder)?;
    }
    let mut copied = BTreeSet::new();
    while let Some(library) = copying.libraries.pop_first() {
        if copied.insert(library.clone()) {
            copying.file(&library)?;
        }
    }
    let needs_library_path = copying.stuck;
    let python = verify(python, target, needs_library_path)?;
    Ok(Copy { python, needs_library_path })
}

struct Copying<'a> {
    from: &'a Path,
    to: &'a Path,
    stuck: bool,
    /// Libraries of the prefix that some copied file needs.
    libraries: BTreeSet<PathBuf>,
}

impl Copying<'_> {
    fn folder(&mut self, folder: &Path) -> Result<(), EnvironmentError> {
        let entries = fs::read_dir(folder).map_err(|error| EnvironmentError::io("read", folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| EnvironmentError::io("read", folder, error))?;
            let path = entry.path();
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            }; // a dangling link
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if metadata.is_dir() {
                let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                if !linked && !LEFT_OUT.contains(&&*name) && !name.starts_with("config-") {
                    self.folder(&path)?;
                }
            } else if metadata.is_file() && !is_left_out(&name) {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Copies one file to its place, with whatever in it speaks of the old place rewritten.
    fn file(&mut self, path: &Path) -> Result<(), EnvironmentError> {
        let Ok(relative) = path.strip_prefix(self.from) else {
            return Ok(());
        };
        let target = self.to.join(relative);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|error| EnvironmentError::io("create", folder, error))?;
        }
        fs::copy(path, &target).map_err(|error| EnvironmentError::io("write", &target, error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if relative.starts_with("bin") || name.contains(".so") {
            self.rewrite_library(relative, &target)?;
        } else if name.starts_with("_sysconfig") {
            self.rewrite_text(&target)?;
        }
        Ok(())
    }

    /// The record of how Python was built names its prefix in many places.
    fn rewrite_text(&self, target: &Path) -> Result<(), EnvironmentError> {
        let text = fs::read_to_string(target).map_err(|error| EnvironmentError::io("read", target, error))?;
        let text = text.replace(&*self.from.to_string_lossy(), INSIDE);
        replace(target, text.as_bytes())
    }

    fn rewrite_library(&mut self, relative: &Path, target: &Path) -> Result<(), EnvironmentError> {
        let mut file = fs::read(target).map_err(|error| EnvironmentError::io("read", target, error))?;
        let Some(dynamic) = elf::dynamic(&file) else {
            return Ok(());
        };
        let library_folder = self.from.join("lib");
        let needed = dynamic.needed.iter().map(|name| library_folder.join(name));
        let needed: Vec<PathBuf> = needed.filter(|path| path.is_file()).collect();
        let own = !needed.is_empty();
        self.libraries.extend(needed);
        let Some((old, _)) = &dynamic.search_path else {
            self.stuck |= own && relative.starts_with("bin");
            return Ok(());
        };
        let new = moved(old, self.from, relative);
        if new == *old {
            return Ok(());
        }
        if !elf::replace_search_path(&mut file, &dynamic, &new) {
            self.stuck = true;
            return Ok(());
        }
        replace(target, &file)
    }
}

/// Writes a file anew: the copy of a read-only file is read-only too.
fn replace(target: &Path, content: &[u8]) -> Result<(), EnvironmentError> {
    let permissions = fs::metadata(target).and_then(|metadata| {
        fs::remove_file(target)?;
        fs::write(target, content)?;
        Ok(metadata.permissions())
    });
    let permissions = permissions.map_err(|error| EnvironmentError::io("write", target, error))?;
    fs::set_permissions(target, permissions).map_err(|error| EnvironmentError::io("write", target, error))
}

fn is_left_out(name: &str) -> bool {
    let module = name.split('.').next().unwrap_or_default();
    name.ends_with(".a")
        || name == "EXTERNALLY-MANAGED"
        || (name.contains(".so") && (module.starts_with("_test") || module.starts_with("xx") || module == "_tkinter" || module == "_ctypes_test"))
}

/// A search path with every folder below `prefix` named relative to the file at `relative`.
fn moved(search_path: &str, prefix: &Path, relative: &Path) -> String {
    let up = "/..".repeat(relative.components().count().saturating_sub(1));
    let mut folders: Vec<String> = Vec::new();
    for folder in search_path.split(':') {
        let folder = match Path::new(folder).strip_prefix(prefix) {
            Ok(below) => format!("$ORIGIN{up}/{}", below.display()).trim_end_matches('/').to_owned(),
            Err(_) => folder.to_owned(),
        };
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders.join(":")
}

/// Runs the copy: it must be as complete as the original, and use none of the original's files.
fn verify(python: &Python, target: &Path, needs_library_path: bool) -> Result<Python, EnvironmentError> {
    let program = target.join("bin").join(python.program());
    let refuse = |reason: String| EnvironmentError::NoInterpreter { tried: vec![(python.executable(), reason)] };
    let mut command = Command::new(&program);
    command.env_clear();
    if needs_library_path {
        command.env("LD_LIBRARY_PATH", target.join("lib"));
    }
    let copy = interpreter::ask(command).map_err(|reason| refuse(format!("cannot be copied: the copy {reason}")))?;
    // Python tells its prefix without `..`, and the data folder may be named with it.
    if copy.prefix.canonicalize().ok() != target.canonicalize().ok() {
        return Err(refuse("cannot be copied: the copy looks for its files elsewhere".to_owned()));
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_paths_move_with_their_file() {
        let prefix = Path::new("/home/x/py");
        let moved = |path, relative| moved(path, prefix, Path::new(relative));
        assert_eq!(moved("/home/x/py/lib", "bin/python3.12"), "$ORIGIN/../lib");
        assert_eq!(moved("/home/x/py/lib", "lib/libpython3.12.so.1.0"), "$ORIGIN/../lib");
        assert_eq!(moved("/home/x/py/lib", "lib/python3.12/lib-dynload/_ssl.so"), "$ORIGIN/../../../lib");
        assert_eq!(moved("/usr/lib:/home/x/py/lib:/home/x/py/lib", "bin/p"), "/usr/lib:$ORIGIN/../lib");
        assert_eq!(moved("/home/x/python/lib", "bin/p"), "/home/x/python/lib");
    }

    #[test]
    fn test_modules_stay_behind_and_others_do_not() {
        for name in ["_testcapi.cpython-312-x86_64-linux-gnu.so", "_tkinter.cpython-312.so", "libpython3.12.a"] {
            assert!(is_left_out(name), "{name}");
        }
        for name in ["_ssl.cpython-312-x86_64-linux-gnu.so", "_tkinter.py", "xxx.py", "os.py"] {
            assert!(!is_left_out(name), "{name}");
        }
    }
}
