//! Environments: an interpreter and pinned packages in a folder named by its content, built once by uv from a lock with hashes.
//!
//! ```text
//! <data>/environments/core-<16 hex>/   env/               the virtual environment   inside: /opt/env
//!                                      python/            the interpreter's copy    inside: /opt/python
//!                                      cache/             what the finishing hook left there
//!                                      environment.json   what it is
//! <data>/environments/<name>.lock      what a user's own environment was resolved to
//! <data>/tools/uv-<version>/           uv, where the user has none
//! <data>/cache/uv/                     downloads; files of environments are hard links into it
//! <data>/logs/env-build-<name>.log     everything the tools of the last build said
//! ```
//!
//! Reading needs no right to write: whoever can read the data folder can use its environments.
//! A folder appears complete or not at all, and no build runs code of a package on the host.
//! This part knows nothing of sandboxes; the finishing hook is the caller's.

mod build;
mod elf;
mod error;
mod host;
mod interpreter;
mod lock;
mod prefix;
mod tool;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use error::EnvironmentError;
pub use host::Host;

/// Where a sandbox shows the virtual environment.
pub const ENV_INSIDE: &str = "/opt/env";
/// Where a sandbox shows the copy of the interpreter, if there is one.
pub const PYTHON_INSIDE: &str = prefix::INSIDE;

const MANIFEST: &str = "environment.json";

/// The environments of one data folder.
#[derive(Debug, Clone)]
pub struct Store {
    data: PathBuf,
    host: Host,
}

/// What to build; the default is the environment as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The user's requirements file; needed the first time for every name that is not built in.
    pub requirements: Option<PathBuf>,
    /// The interpreter to build on, instead of the first good one.
    pub python: Option<PathBuf>,
}

/// An environment that is ready for use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `core`, or the user's own name.
    pub name: String,
    /// 16 hexadecimal digits over lock, interpreter and layout.
    pub digest: String,
    /// Its folder. Not part of what is stored: the data folder may move.
    #[serde(skip)]
    pub root: PathBuf,
    /// `3.12.1`
    pub python_version: String,
    /// Where the interpreter is.
    pub interpreter: Interpreter,
    /// Folders, as seen inside, that must stand in `LD_LIBRARY_PATH`. Nearly always empty.
    pub library_path: Vec<PathBuf>,
    /// The installed packages with their versions, by name.
    pub packages: Vec<(String, String)>,
    layout: u32,
    lock_digest: String,
}

/// Where an environment's interpreter is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Interpreter {
    /// In the system's `/usr`, which every sandbox sees.
    System {
        /// The program.
        path: PathBuf,
    },
    /// In the environment's own folder, to be shown as [`PYTHON_INSIDE`].
    Copied,
}

/// A running use of an environment: while it lives, [`Store::remove`] refuses.
#[derive(Debug)]
pub struct Lease(#[expect(dead_code, reason = "held for its lock, which ends with it")] File);

/// What a build does, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Somebody else builds the same; this build waits for the result.
    Waiting {
        /// The environment.
        name: &'a str,
    },
    /// A step begins.
    Started(Step),
    /// A package's download begins.
    Downloading {
        /// The package.
        package: &'a str,
        /// Its size as uv words it, for example `15.0MiB`.
        size: &'a str,
    },
    /// A package has arrived.
    Downloaded {
        /// The package.
        package: &'a str,
    },
    /// A step has ended well.
    Finished(Step, Duration),
}

/// The steps of a build, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Looking for a Python that will do.
    FindPython,
    /// Finding uv, or installing it.
    PrepareUv,
    /// Resolving the user's requirements to a lock.
    Resolve,
    /// Copying the interpreter into the environment.
    CopyPython,
    /// Downloading and installing so many packages.
    InstallPackages(usize),
    /// Compiling so many Python files.
    Compile(usize),
    /// The caller's finishing hook.
    Finish,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FindPython => f.write_str("looking for Python"),
            Self::PrepareUv => f.write_str("preparing uv"),
            Self::Resolve => f.write_str("resolving the requirements"),
            Self::CopyPython => f.write_str("copying the interpreter"),
            Self::InstallPackages(count) => {
                write!(f, "downloading and installing {count} packages")
            }
            Self::Compile(count) => write!(f, "compiling {count} files"),
            Self::Finish => f.write_str("warming up"),
        }
    }
}

/// What the caller does with an environment before others see it, for example to fill `cache/` from inside a sandbox.
/// It fails with [`EnvironmentError::Finish`].
pub type FinishHook<'a> = dyn FnMut(&Environment) -> Result<(), EnvironmentError> + 'a;

impl Environment {
    /// The virtual environment on the host; shown inside as [`ENV_INSIDE`].
    #[must_use]
    pub fn env_dir(&self) -> PathBuf {
        self.root.join("env")
    }

    /// The interpreter's copy on the host, if there is one; shown inside as [`PYTHON_INSIDE`].
    #[must_use]
    pub fn python_dir(&self) -> Option<PathBuf> {
        (self.interpreter == Interpreter::Copied).then(|| self.root.join("python"))
    }

    /// What the finishing hook left.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The interpreter to start, as seen inside.
    #[must_use]
    pub fn python_inside(&self) -> String {
        format!("{ENV_INSIDE}/bin/python")
    }

    /// The folder of the packages, as seen inside.
    #[must_use]
    pub fn site_packages_inside(&self) -> String {
        format!("{ENV_INSIDE}/lib/python{}/site-packages", self.python_minor())
    }

    /// `3.12`
    #[must_use]
    pub fn python_minor(&self) -> &str {
        self.python_version.rsplit_once('.').map_or(self.python_version.as_str(), |(minor, _)| minor)
    }

    /// When it was built, as its folder says.
    ///
    /// # Errors
    /// When the folder is gone.
    pub fn built(&self) -> io::Result<SystemTime> {
        fs::metadata(self.root.join(MANIFEST))?.modified()
    }

    /// Marks the environment as in use until the lease is dropped. Needs only the right to read.
    ///
    /// # Errors
    /// When the environment has been removed meanwhile; ask the store again.
    pub fn hold(&self) -> io::Result<Lease> {
        let manifest = File::open(self.root.join(MANIFEST))?;
        manifest.lock_shared()?;
        Ok(Lease(manifest))
    }

    /// Reads the one in `root`; `None` where there is none of today's layout, or its interpreter is gone.
    fn load(root: &Path) -> Option<Self> {
        let text = fs::read(root.join(MANIFEST)).ok()?;
        let mut found: Self = serde_json::from_slice(&text).ok()?;
        root.clone_into(&mut found.root);
        let there = match &found.interpreter {
            Interpreter::System { path } => path.exists(),
            Interpreter::Copied => true,
        };
        (found.layout == lock::LAYOUT && there).then_some(found)
    }

    /// Better Pythons first.
    fn rank(&self) -> usize {
        let place = interpreter::VERSIONS.iter().position(|version| *version == self.python_minor());
        place.unwrap_or(interpreter::VERSIONS.len())
    }
}

impl Store {
    /// The store in `data`. Nothing is read or made yet; an absent folder is an empty store.
    #[must_use]
    pub fn open(data: &Path, host: Host) -> Self {
        // Links in the way are resolved once: Python derives its own paths from where it was started.
        let data = fs::canonicalize(data).or_else(|_| std::path::absolute(data)).unwrap_or_else(|_| data.to_owned());
        Self { data, host }
    }

    /// The environment `name` as its lock describes it, if it has been built.
    ///
    /// # Errors
    /// [`EnvironmentError::InvalidName`], or [`EnvironmentError::Unknown`] where the name has never been heard of.
    pub fn find(&self, name: &str) -> Result<Option<Environment>, EnvironmentError> {
        check_name(name)?;
        self.check_owner()?;
        let lock = match lock::built_in(name) {
            Some(lock) => lock.to_owned(),
            None => self.user_lock(name).ok_or_else(|| EnvironmentError::Unknown { name: name.to_owned() })?.text,
        };
        let digest = lock::sha256(&[&lock]);
        Ok(self.of(name).into_iter().find(|found| found.lock_digest == digest))
    }

    /// Refuses a data folder that somebody else could have filled: programs in it are run, and its folders are shown in sandboxes.
    fn check_owner(&self) -> Result<(), EnvironmentError> {
        use std::os::unix::fs::MetadataExt;
        let user = fs::metadata("/proc/self").map_err(|error| EnvironmentError::io("read", Path::new("/proc/self"), error))?.uid();
        let own = [self.data.clone(), self.data.join("environments"), self.data.join("tools")];
        let above = self.data.ancestors().skip(1).map(|folder| (folder, false));
        match own.iter().map(|folder| (folder.as_path(), true)).chain(above).find(|(folder, own)| !is_trusted(folder, user, *own)) {
            Some((folder, _)) => Err(EnvironmentError::Untrusted { path: folder.to_owned() }),
            None => Ok(()),
        }
    }

    /// Every environment that has been built, by name, older locks' included.
    #[must_use]
    pub fn list(&self) -> Vec<Environment> {
        let mut found: Vec<Environment> = self.folders().iter().filter_map(|(_, root)| Environment::load(root)).collect();
        found.sort_by(|a, b| (&a.name, a.rank(), &a.digest).cmp(&(&b.name, b.rank(), &b.digest)));
        found
    }

    /// The names of the environments that Belljar brings along.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        lock::BUILT_IN.iter().map(|entry| entry.name)
    }

    /// Gives the environment, building it first where needed. Two callers at the same time build it once.
    ///
    /// # Errors
    /// Whatever kept it from being built; nothing half-made is left in its place.
    pub fn ensure(
        &self,
        name: &str,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
        finish: &mut FinishHook<'_>,
    ) -> Result<Environment, EnvironmentError> {
        check_name(name)?;
        self.check_owner()?;
        if lock::built_in(name).is_some() && options.requirements.is_some() {
            return Err(EnvironmentError::BuiltIn { name: name.to_owned() });
        }
        let as_it_is = *options == Options::default();
        if as_it_is && let Some(found) = self.find(name)? {
            return Ok(found);
        }
        let lock = self.lock(name, &mut *progress)?;
        if as_it_is && let Some(found) = self.find(name)? {
            return Ok(found);
        }
        self.sweep(name);
        build::build(self, name, options, &lock, &mut build::Hooks { progress, finish })
    }

    /// Removes an environment in all its builds, and a user's lock with it.
    ///
    /// # Errors
    /// [`EnvironmentError::InUse`] while a [`Lease`] is held, [`EnvironmentError::Unknown`] where there is nothing to remove.
    pub fn remove(&self, name: &str) -> Result<(), EnvironmentError> {
        check_name(name)?;
        self.check_owner()?;
        let roots: Vec<PathBuf> = self.folders().into_iter().filter(|(found, _)| found == name).map(|(_, root)| root).collect();
        let user_lock = self.user_lock_path(name);
        if roots.is_empty() && !user_lock.exists() {
            return Err(EnvironmentError::Unknown { name: name.to_owned() });
        }
        let _lock = self.lock(name, &mut |_| {})?;
        let mut held = Vec::new();
        for root in &roots {
            // A folder without a readable manifest is nobody's: nothing can be using it.
            let Ok(manifest) = File::open(root.join(MANIFEST)) else {
                continue;
            };
            manifest.try_lock().map_err(|_| EnvironmentError::InUse { name: name.to_owned() })?;
            held.push(manifest);
        }
        for root in &roots {
            // Renamed first, so that it is gone at once and an interrupted removal is finished by the next build's sweep.
            let gone = self.folder().join(format!(".removing-{name}.{}", digest_of(root).unwrap_or_default()));
            fs::rename(root, &gone).map_err(|error| EnvironmentError::io("remove", root, error))?;
            fs::remove_dir_all(&gone).map_err(|error| EnvironmentError::io("remove", &gone, error))?;
        }
        match fs::remove_file(&user_lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EnvironmentError::io("remove", &user_lock, error)),
            _ => Ok(()),
        }
    }

    fn folder(&self) -> PathBuf {
        self.data.join("environments")
    }

    /// The finished folders with the name of each.
    fn folders(&self) -> Vec<(String, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.folder()) else {
            return Vec::new();
        };
        let named = entries.filter_map(Result::ok).filter_map(|entry| {
            let file_name = entry.file_name();
            let (name, digest) = file_name.to_str()?.rsplit_once('-')?;
            let ours = check_name(name).is_ok() && digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            ours.then(|| (name.to_owned(), entry.path()))
        });
        named.collect()
    }

    /// The usable builds of `name`, the best Python first.
    fn of(&self, name: &str) -> Vec<Environment> {
        self.list().into_iter().filter(|found| found.name == name).collect()
    }

    fn user_lock_path(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.lock"))
    }

    fn user_lock(&self, name: &str) -> Option<lock::UserLock> {
        fs::read_to_string(self.user_lock_path(name)).ok().and_then(lock::UserLock::parse)
    }

    /// Waits until nobody else builds or removes `name`. The lock ends with the file, even when the process is killed.
    fn lock(&self, name: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, EnvironmentError> {
        let folder = self.folder();
        make_readable_folder(&folder)?;
        let path = folder.join(format!(".{name}.building"));
        let failed = |error| EnvironmentError::io("lock", &path, error);
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress(Progress::Waiting { name });
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(file)
    }

    /// Removes what killed builds and removals of `name` left. Only under its lock: who holds it knows that they are dead.
    fn sweep(&self, name: &str) {
        let prefixes = [format!(".building-{name}."), format!(".removing-{name}.")];
        for entry in fs::read_dir(self.folder()).into_iter().flatten().filter_map(Result::ok) {
            let file_name = entry.file_name();
            if prefixes.iter().any(|prefix| file_name.to_string_lossy().starts_with(prefix)) {
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Names are 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter or digit: they become names of folders.
fn check_name(name: &str) -> Result<(), EnvironmentError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = (1..=64).contains(&name.len()) && name.bytes().all(|byte| plain(byte) || byte == b'-') && name.bytes().next().is_some_and(plain);
    if good { Ok(()) } else { Err(EnvironmentError::InvalidName { name: name.escape_default().to_string() }) }
}

fn digest_of(root: &Path) -> Option<String> {
    Some(root.file_name()?.to_str()?.rsplit_once('-')?.1.to_owned())
}

/// Whether nobody but `user` and root can change what is in this folder. Others may make entries only where the sticky bit keeps them
/// from replacing ours, and not in the data folder itself.
fn is_trusted(folder: &Path, user: u32, is_data: bool) -> bool {
    use std::os::unix::fs::MetadataExt;
    const NOBODY: u32 = 65534; // root of the host, as a container without that user sees it
    let Ok(facts) = fs::metadata(folder) else { return true };
    // A user's own group (the one with the user's number) and root's are nobody else.
    let own_group = [0, facts.uid()].contains(&facts.gid());
    let shared = facts.mode() & 0o002 != 0 || (facts.mode() & 0o020 != 0 && !own_group);
    let sticky = facts.mode() & 0o1000 != 0;
    [0, user, NOBODY].contains(&facts.uid()) && (!shared || (sticky && !is_data))
}

/// A folder that others may read, whatever the umask.
fn make_readable_folder(folder: &Path) -> Result<(), EnvironmentError> {
    use std::os::unix::fs::PermissionsExt;
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)))
        .map_err(|error| EnvironmentError::io("create", folder, error))
}

#[cfg(test)]
mod tests;
