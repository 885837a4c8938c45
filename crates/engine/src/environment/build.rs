//! Building one environment: in a hidden folder, step by step, and renamed into place at the end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::error::EnvironmentError;
use super::interpreter::{self, Python};
use super::lock::{self, UserLock};
use super::tool::{Running, Uv};
use super::{Environment, FinishHook, Interpreter, MANIFEST, Options, Progress, Step, Store, prefix};

/// The caller's side of a build.
pub(super) struct Hooks<'a, 'b> {
    pub(super) progress: &'a mut dyn FnMut(Progress<'_>),
    pub(super) finish: &'a mut FinishHook<'b>,
}

impl Hooks<'_, '_> {
    fn step<T>(&mut self, step: Step, work: impl FnOnce(&mut Self) -> Result<T, EnvironmentError>) -> Result<T, EnvironmentError> {
        (self.progress)(Progress::Started(step));
        let begin = Instant::now();
        let result = work(self)?;
        (self.progress)(Progress::Finished(step, begin.elapsed()));
        Ok(result)
    }
}

/// Builds `name`; `held` is its lock.
pub(super) fn build(store: &Store, name: &str, options: &Options, held: &File, hooks: &mut Hooks<'_, '_>) -> Result<Environment, EnvironmentError> {
    let logs = store.data.join("logs");
    fs::create_dir_all(&logs).map_err(|error| EnvironmentError::io("create", &logs, error))?;
    let running = Running { name, data: &store.data, log: logs.join(format!("env-build-{name}.log")), lock: held };
    running.begin()?;

    let wanted = Wanted::read(store, name, options)?;
    let python = hooks.step(Step::FindPython, |_| interpreter::choose(&store.host, options.python.as_deref(), wanted.minor(options)))?;
    let mut uv = None;
    let lock = match wanted.lock(&python) {
        Some(lock) => lock.to_owned(),
        None => {
            let uv = uv.insert(hooks.step(Step::PrepareUv, |_| Uv::get(&store.host, &python, &running))?);
            hooks.step(Step::Resolve, |_| resolve(store, &wanted, &python, uv, &running))?
        }
    };
    let digest = digest(&lock, &python);
    let root = store.folder().join(format!("{name}-{digest}"));
    if let Some(found) = Environment::load(&root) {
        return Ok(found);
    }
    let uv = match uv {
        Some(uv) => uv,
        None => hooks.step(Step::PrepareUv, |_| Uv::get(&store.host, &python, &running))?,
    };
    let staged = tempfile::Builder::new().prefix(&format!(".building-{name}.")).tempdir_in(store.folder());
    let staged = staged.map_err(|error| EnvironmentError::io("create", &store.folder(), error))?;
    let stage = Stage { root: staged.path(), running: &running, uv: &uv, lock: &lock, digest };
    let mut environment = stage.fill(&python, hooks)?;
    // What stands there can only be a folder that `load` refused.
    let _ = fs::remove_dir_all(&root);
    fs::rename(staged.path(), &root).map_err(|error| EnvironmentError::io("create", &root, error))?;
    environment.root = root;
    Ok(environment)
}

/// The 16 digits that name a folder: what is in it depends on nothing else.
fn digest(lock: &str, python: &Python) -> String {
    let kind = if python.is_system() { "system" } else { "copied" };
    let mut digest = lock::sha256(&[&lock::LAYOUT.to_string(), kind, &python.version, &python.abi, lock]);
    digest.truncate(16);
    digest
}

/// What an environment is to be built from.
enum Wanted {
    BuiltIn(&'static str),
    User { requirements: Option<(PathBuf, String)>, before: Option<UserLock> },
}

impl Wanted {
    fn read(store: &Store, name: &str, options: &Options) -> Result<Self, EnvironmentError> {
        if let Some(lock) = lock::built_in(name) {
            return Ok(Self::BuiltIn(lock));
        }
        let before = store.user_lock(name);
        let requirements = match &options.requirements {
            Some(path) => {
                let failed = |error| EnvironmentError::io("read", path, error);
                let text = fs::read_to_string(path).map_err(failed)?;
                Some((std::path::absolute(path).map_err(failed)?, text))
            }
            None if before.is_none() => {
                return Err(EnvironmentError::Unknown { name: name.to_owned() });
            }
            None => None,
        };
        Ok(Self::User { requirements, before })
    }

    /// The version that the interpreter must have: that of the lock, where no other can be made.
    fn minor(&self, options: &Options) -> Option<&str> {
        match self {
            Self::User { requirements: None, before: Some(before) } => Some(&before.python),
            Self::User { before: Some(before), .. } if options.python.is_none() && self.unchanged(before) => Some(&before.python),
            _ => None,
        }
    }

    /// The lock that is there already, if it still says what is wanted.
    fn lock(&self, python: &Python) -> Option<&str> {
        match self {
            Self::BuiltIn(lock) => Some(lock),
            Self::User { before: Some(before), .. } if before.python == python.minor && self.unchanged(before) => Some(&before.text),
            Self::User { .. } => None,
        }
    }

    fn unchanged(&self, before: &UserLock) -> bool {
        match self {
            Self::User { requirements: Some((_, text)), .. } => lock::sha256(&[text]) == before.requirements_digest,
            _ => true,
        }
    }
}

/// Resolves the user's requirements for this Python and keeps the lock.
fn resolve(store: &Store, wanted: &Wanted, python: &Python, uv: &Uv, running: &Running<'_>) -> Result<String, EnvironmentError> {
    let Wanted::User { requirements: Some((path, requirements)), .. } = wanted else {
        return Err(EnvironmentError::Unknown { name: running.name.to_owned() });
    };
    let folder = store.folder();
    let resolved = tempfile::NamedTempFile::new_in(&folder).map_err(|error| EnvironmentError::io("create", &folder, error))?;
    let mut command = uv.command();
    command.args(["pip", "compile", "--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate"]);
    command.args(["--no-emit-index-url", "--quiet", "--python"]).arg(python.executable());
    command.arg("--output-file").arg(resolved.path()).arg("--").arg(path);
    let ended = running.run(&mut command, &mut |_| {})?;
    if !ended.status.success() {
        return Err(running.failure("resolving the requirements", &ended.said));
    }
    let failed = |error| EnvironmentError::io("write", &folder, error);
    let text = fs::read_to_string(resolved.path()).map_err(failed)?;
    let lock = UserLock::new(&text, requirements, &python.minor);
    fs::write(resolved.path(), &lock.text).map_err(failed)?;
    fs::set_permissions(resolved.path(), fs::Permissions::from_mode(0o644)).map_err(failed)?;
    resolved.persist(store.user_lock_path(running.name)).map_err(|error| failed(error.error))?;
    Ok(lock.text)
}

/// The hidden folder in which an environment grows.
struct Stage<'a> {
    root: &'a Path,
    running: &'a Running<'a>,
    uv: &'a Uv,
    lock: &'a str,
    digest: String,
}

impl Stage<'_> {
    fn fill(&self, python: &Python, hooks: &mut Hooks<'_, '_>) -> Result<Environment, EnvironmentError> {
        let mut needs_library_path = false;
        let local = if python.is_system() {
            python.clone()
        } else {
            let copy = hooks.step(Step::CopyPython, |_| prefix::copy(python, &self.root.join("python")))?;
            needs_library_path = copy.needs_library_path;
            copy.python
        };
        let libraries = needs_library_path.then(|| local.prefix.join("lib"));
        self.install(&local, libraries.as_deref(), hooks)?;
        self.relocate(&local)?;
        self.compile(&local, libraries.as_deref(), hooks)?;

        let cache = self.root.join("cache");
        fs::create_dir_all(&cache).map_err(|error| EnvironmentError::io("create", &cache, error))?;
        let environment = self.describe(&local, needs_library_path)?;
        publish(self.root)?;
        hooks.step(Step::Finish, |hooks| (hooks.finish)(&environment))?;
        publish(&cache)?;
        Ok(environment)
    }

    /// Makes the virtual environment and puts the packages of the lock into it, each checked against its hash.
    fn install(&self, python: &Python, libraries: Option<&Path>, hooks: &mut Hooks<'_, '_>) -> Result<(), EnvironmentError> {
        let env = self.root.join("env");
        let lock = self.root.join("lock.txt");
        fs::write(&lock, self.lock).map_err(|error| EnvironmentError::io("write", &lock, error))?;
        let uv = || {
            let mut command = self.uv.command();
            command.envs(libraries.map(|folder| ("LD_LIBRARY_PATH", folder)));
            command
        };
        // A package may stand in the lock once per Python.
        let count = lock::pins(self.lock).into_iter().map(|pin| pin.name).collect::<BTreeSet<_>>().len();
        hooks.step(Step::InstallPackages(count), |hooks| {
            let mut command = uv();
            command.args(["venv", "--quiet", "--relocatable", "--python"]).arg(python.executable()).arg(&env);
            self.check(self.running.run(&mut command, &mut |_| {})?, "making the virtual environment")?;
            let mut command = uv();
            command.args(["pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"]);
            // Hard links into our own cache: one tenth of the time of copies, half of the space.
            command.args(["--link-mode", "hardlink", "--python"]).arg(env.join("bin/python")).arg("-r").arg(&lock);
            let ended = self.running.run(&mut command, &mut |line| tell(line, hooks.progress))?;
            self.check(ended, "installing the packages")
        })
    }

    fn check(&self, ended: super::tool::Ended, step: &str) -> Result<(), EnvironmentError> {
        if ended.status.success() { Ok(()) } else { Err(self.running.failure(step, &ended.said)) }
    }

    /// Makes the virtual environment speak of where the sandbox will show things, and of nothing else.
    fn relocate(&self, python: &Python) -> Result<(), EnvironmentError> {
        let env = self.root.join("env");
        let bin = env.join("bin");
        let home = if python.is_system() { python.prefix.clone() } else { PathBuf::from(prefix::INSIDE) }.join("bin");
        // Written anew: uv's own file also names the folder that it was made from.
        let settings = format!(
            "home = {}\nimplementation = CPython\nversion_info = {}\ninclude-system-site-packages = false\nrelocatable = true\n",
            home.display(),
            python.version
        );
        let path = env.join("pyvenv.cfg");
        fs::write(&path, settings).map_err(|error| EnvironmentError::io("write", &path, error))?;
        let scripts = ["activate", "activate.bat", "activate.csh", "activate.fish", "activate.nu", "activate.ps1", "activate.xsh"];
        let scripts = scripts.iter().chain(&["activate_this.py", "deactivate.bat", "pydoc.bat"]).map(|name| bin.join(name));
        // uv's import hook for old virtual environments costs every start a millisecond and serves nobody here.
        let packages = env.join(format!("lib/python{}/site-packages", python.minor));
        let hook = ["_virtualenv.pth", "_virtualenv.py"].map(|name| packages.join(name));
        let marks = [".gitignore", ".lock", "CACHEDIR.TAG"].map(|name| env.join(name));
        for path in scripts.chain(hook).chain(marks).chain([self.root.join("lock.txt")]) {
            let _ = fs::remove_file(path);
        }
        let links = [("python", home.join(python.program())), ("python3", "python".into()), (&python.program(), "python".into())];
        for (name, target) in links {
            let path = bin.join(name);
            let _ = fs::remove_file(&path);
            symlink(&target, &path).map_err(|error| EnvironmentError::io("create", &path, error))?;
        }
        Ok(())
    }

    /// Compiles all modules ahead, since nobody can write their bytecode later. The base interpreter does it, without `site`: the
    /// virtual environment's own would execute the `.pth` files of packages on the host.
    fn compile(&self, python: &Python, libraries: Option<&Path>, hooks: &mut Hooks<'_, '_>) -> Result<(), EnvironmentError> {
        let mut files = Vec::new();
        sources(&self.root.join("env/lib"), &mut files)?;
        if !python.is_system() {
            sources(&self.root.join("python/lib"), &mut files)?;
        }
        hooks.step(Step::Compile(files.len()), |_| {
            let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().max(1));
            let run = |worker: usize| {
                let share: Vec<String> = files.iter().skip(worker).step_by(workers).map(|path| format!("{}\n", path.display())).collect();
                self.compile_files(python, libraries, &share.concat(), worker)
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || run(worker))).collect();
                let ends = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                ends.collect::<Result<Vec<()>, _>>().map(drop)
            })
        })
    }

    fn compile_files(&self, python: &Python, libraries: Option<&Path>, files: &str, worker: usize) -> Result<(), EnvironmentError> {
        let list = self.root.join(format!("compile-{worker}.txt"));
        fs::write(&list, files).map_err(|error| EnvironmentError::io("write", &list, error))?;
        let mut command = Command::new(python.executable());
        command.env_clear().envs(libraries.map(|folder| ("LD_LIBRARY_PATH", folder)));
        // Unchecked: the folder never changes, so that no import has to look at the source's date.
        // Forced: uv has started the copied interpreter already, which left some bytecode of the other kind.
        command.args(["-I", "-S", "-B", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]);
        command.arg("-i").arg(&list);
        command.arg("-s").arg(self.root).args(["-p", "/opt"]);
        let ended = self.running.run(&mut command, &mut |_| {})?;
        let _ = fs::remove_file(&list);
        // 1 also means that some file is no valid Python: packages carry templates and files for other versions.
        if ended.status.success() || (ended.status.code() == Some(1) && !ended.said.contains("Traceback")) {
            return Ok(());
        }
        Err(self.running.failure("compiling", &ended.said))
    }

    fn describe(&self, python: &Python, needs_library_path: bool) -> Result<Environment, EnvironmentError> {
        let (interpreter, library_path) = if python.is_system() {
            (Interpreter::System { path: python.executable() }, python.unusual_library_folders())
        } else {
            (Interpreter::Copied, needs_library_path.then(|| Path::new(prefix::INSIDE).join("lib")).into_iter().collect())
        };
        let packages = self.root.join("env").join(format!("lib/python{}/site-packages", python.minor));
        let environment = Environment {
            name: self.running.name.to_owned(),
            digest: self.digest.clone(),
            root: self.root.to_owned(),
            python_version: python.version.clone(),
            interpreter,
            library_path,
            packages: installed(&packages)?,
            layout: lock::LAYOUT,
            lock_digest: lock::sha256(&[self.lock]),
        };
        let path = self.root.join(MANIFEST);
        let mut text = serde_json::to_vec_pretty(&environment).map_err(|error| EnvironmentError::io("write", &path, error.into()))?;
        text.push(b'\n');
        fs::write(&path, text).map_err(|error| EnvironmentError::io("write", &path, error))?;
        Ok(environment)
    }
}

/// What uv says while it downloads: `Downloading numpy (15.0MiB)`, then ` Downloaded numpy`.
fn tell(line: &str, progress: &mut dyn FnMut(Progress<'_>)) {
    let line = line.trim();
    if let Some((package, size)) = line.strip_prefix("Downloading ").and_then(|rest| rest.split_once(" (")) {
        progress(Progress::Downloading { package, size: size.trim_end_matches(')') });
    } else if let Some(package) = line.strip_prefix("Downloaded ") {
        progress(Progress::Downloaded { package });
    }
}

/// The Python files below `folder`. Test suites of packages are left out: they are a third of all files and nobody imports them.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), EnvironmentError> {
    for entry in entries(folder)? {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            if !path.ends_with("tests") && !path.ends_with("test") {
                sources(&path, found)?;
            }
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "py") {
            found.push(path);
        }
    }
    Ok(())
}

/// Names and versions of what is installed, as the names of its `.dist-info` folders have them.
fn installed(packages: &Path) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut found: Vec<(String, String)> = entries(packages)?
        .iter()
        .filter_map(|entry| {
            let name = entry.file_name();
            let (name, version) = name.to_str()?.strip_suffix(".dist-info")?.split_once('-')?;
            Some((name.replace(['_', '.'], "-").to_ascii_lowercase(), version.to_owned()))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Lets everybody read what is below `path`, and nobody write its files.
fn publish(path: &Path) -> Result<(), EnvironmentError> {
    let failed = |error| EnvironmentError::io("set the permissions of", path, error);
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let executable = metadata.permissions().mode() & 0o111 != 0;
    // Folders stay writable for their owner, who could not remove them otherwise.
    let mode = if metadata.is_dir() {
        0o755
    } else if executable {
        0o555
    } else {
        0o444
    };
    if metadata.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    if metadata.is_dir() {
        for entry in entries(path)? {
            publish(&entry.path())?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, EnvironmentError> {
    let all = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut all = all.map_err(|error| EnvironmentError::io("read", folder, error))?;
    all.sort_by_key(fs::DirEntry::file_name);
    Ok(all)
}
