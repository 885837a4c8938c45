//! The same jobs without Belljar: the environment's own interpreter on the host, plain and in bubblewrap.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::environment::{ENV_INSIDE, Environment, PYTHON_INSIDE};

/// A command line that runs Python code, put last.
#[derive(Debug)]
pub(super) struct Interpreter {
    program: PathBuf,
    arguments: Vec<OsString>,
    libraries: Option<OsString>,
}

/// One run of it.
pub(super) struct Run {
    /// From the start until something was printed.
    pub(super) first: Duration,
    /// From the start until it had ended.
    pub(super) total: Duration,
    pub(super) text: String,
}

impl Interpreter {
    /// Runs code.
    ///
    /// # Errors
    /// Where it does not start, or fails.
    pub(super) fn run(&self, code: &str) -> anyhow::Result<Run> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(["-I", "-X", "utf8", "-c", code]).env_clear();
        command.envs([("LANG", "C.UTF-8"), ("OPENBLAS_NUM_THREADS", "1"), ("OMP_NUM_THREADS", "1"), ("PATH", "/usr/bin:/bin")]);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", self.program.display()))?;
        let (mut stdout, mut stderr) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        let mut first = None;
        loop {
            let count = stdout.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            first.get_or_insert_with(|| start.elapsed());
            text.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        let status = child.wait()?;
        let total = start.elapsed();
        let Some(first) = first.filter(|_| status.success()) else {
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            bail!("`{}` failed: {}", self.program.display(), said.trim().lines().last().unwrap_or("it printed nothing"));
        };
        Ok(Run { first, total, text: String::from_utf8_lossy(&text).into_owned() })
    }
}

/// The environment's interpreter as the host can start it. A copied one knows itself by its place inside, so it gets a folder of its own
/// (in `scratch`) that leads to it, as a virtual environment does.
pub(super) fn python(environment: &Environment, scratch: &Path) -> anyhow::Result<Interpreter> {
    let Some(copied) = environment.python_dir() else {
        return Ok(Interpreter { program: environment.env_dir().join("bin/python"), arguments: Vec::new(), libraries: None });
    };
    let minor = environment.python_minor();
    let (folder, bin) = (scratch.join("python"), copied.join("bin"));
    let packages = format!("lib/python{minor}/site-packages");
    std::fs::create_dir_all(folder.join("bin"))?;
    std::fs::create_dir_all(folder.join(format!("lib/python{minor}")))?;
    std::fs::write(folder.join("pyvenv.cfg"), format!("home = {}\ninclude-system-site-packages = false\n", bin.display()))?;
    symlink(bin.join(format!("python{minor}")), folder.join("bin/python"))?;
    symlink(environment.env_dir().join(&packages), folder.join(&packages))?;
    // As seen inside: the copy's folder is elsewhere here.
    let outside = |path: &PathBuf| path.strip_prefix(PYTHON_INSIDE).map_or_else(|_| path.clone(), |rest| copied.join(rest));
    let libraries: Vec<PathBuf> = environment.library_path.iter().map(outside).collect();
    Ok(Interpreter { program: folder.join("bin/python"), arguments: Vec::new(), libraries: joined(&libraries)? })
}

fn joined(folders: &[PathBuf]) -> anyhow::Result<Option<OsString>> {
    Ok(if folders.is_empty() { None } else { Some(std::env::join_paths(folders)?) })
}

/// The same interpreter in bubblewrap, at the places it has in our sandboxes, with its version.
///
/// # Errors
/// Why it cannot be had, in words.
pub(super) fn bwrap(environment: &Environment) -> Result<(Interpreter, String), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|folder| folder.join("bwrap")).find(|program| program.is_file()).ok_or("not installed")?;
    let version = Command::new(&program).arg("--version").output().map_err(|error| error.to_string())?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let mut arguments: Vec<OsString> = ["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr"].map(OsString::from).to_vec();
    for place in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc"].map(Path::new) {
        match std::fs::read_link(place) {
            Ok(target) => arguments.extend(["--symlink".into(), target.into(), place.into()]),
            Err(_) if place.is_dir() => arguments.extend(["--ro-bind".into(), place.into(), place.into()]),
            Err(_) => {}
        }
    }
    arguments.extend(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"].map(OsString::from));
    arguments.extend(["--ro-bind".into(), environment.env_dir().into(), ENV_INSIDE.into()]);
    if let Some(copied) = environment.python_dir() {
        arguments.extend(["--ro-bind".into(), copied.into(), PYTHON_INSIDE.into()]);
    }
    arguments.push(environment.python_inside().into());
    let libraries = joined(&environment.library_path).map_err(|error| error.to_string())?;
    let interpreter = Interpreter { program, arguments, libraries };
    match interpreter.run("print(1)") {
        Ok(_) => Ok((interpreter, version)),
        Err(error) => Err(format!("does not run here: {error}")),
    }
}
