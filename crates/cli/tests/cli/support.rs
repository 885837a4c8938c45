//! What every test needs: the program, a folder of its own, and a look at processes from outside.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

/// A run that is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);
/// Once so many processes were noted below a program, launcher and init are among them.
const FAMILY: usize = 10;

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    from_variable("BELLJAR_TEST_BINARY").unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_belljar")))
}

/// The folder of the examples.
pub(crate) fn examples() -> PathBuf {
    from_variable("BELLJAR_TEST_EXAMPLES").unwrap_or_else(|| repository().join("examples"))
}

/// The folder of the workspace.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn from_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// The data folder, with `core` in it.
pub(crate) fn data() -> &'static Path {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let data = from_variable("BELLJAR_TEST_DATA").unwrap_or_else(|| repository().join("target/belljar-test-data"));
        let built = Command::new(binary()).arg("--data").arg(&data).args(["env", "build", "core"]).output().unwrap();
        assert!(built.status.success(), "core is built: {}", String::from_utf8_lossy(&built.stderr));
        data
    })
}

/// Whether this is root, who reads and writes everywhere and has control groups.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether the kernel bounds memory and processes of a sandbox together: control groups that we may make.
pub(crate) fn has_groups() -> bool {
    is_root() && !cgroup_trees().is_empty()
}

/// A text that no other test, and no other run of the tests, has: to find a process by.
pub(crate) fn marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // `sleep` takes it as seconds.
    format!("9{:07}.{count:04}1", std::process::id())
}

/// Looks until `condition` holds; false where it never did.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}

/// A folder to run the program in, its home and its temporary files.
pub(crate) struct Scene {
    home: TempDir,
    temporary: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), temporary: tempfile::tempdir().unwrap() }
    }

    /// A scene with a configuration file that has these lines.
    pub(crate) fn configured(lines: &str) -> Self {
        let scene = Self::new();
        std::fs::write(scene.temporary_config(), lines).unwrap();
        scene
    }

    /// A scene with these limits configured, as `name = value` lines.
    pub(crate) fn limited(limits: &str) -> Self {
        Self::configured(&format!("[limits]\n{limits}\n"))
    }

    fn temporary_config(&self) -> PathBuf {
        // A dot file: it stands in the home, but is not among the files of the test.
        self.home.path().join(".belljar.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file, folders included.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// What a run saved.
    pub(crate) fn saved(&self, name: &str) -> Vec<u8> {
        let path = self.path("belljar-out").join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("`{name}` was saved: {error}; there is {:?}", self.files()))
    }

    /// All files and folders of the scene, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, base: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(base).unwrap().display().to_string();
                if name != ".belljar.toml" {
                    found.push(name);
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    walk(&path, base, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.home.path(), self.home.path(), &mut found);
        found.sort();
        found
    }

    /// The program with arguments, in a small environment that holds secrets.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments);
        self.dress(&mut command);
        command
    }

    /// Gives any program the folder and environment that [`Self::command`] gives.
    pub(crate) fn dress(&self, command: &mut Command) {
        command.env_clear().current_dir(self.home.path());
        for name in ["PATH", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.home.path()).env("TMPDIR", self.temporary.path()).env("BELLJAR_DATA", data());
        command.env("OPENAI_API_KEY", "secret-1").env("GITHUB_TOKEN", "secret-2").env("BELLJAR_DEV_KEY", "secret-3-secret-3");
        if self.temporary_config().exists() {
            command.env("BELLJAR_CONFIG", self.temporary_config());
        }
    }

    /// Starts it with this standard input.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: &str) -> Running {
        Running::start(self.command(arguments), input.as_bytes())
    }

    /// Runs it to its end with this standard input. It leaves no temporary file, no control group and no process of its own.
    pub(crate) fn call<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: impl AsRef<[u8]>) -> Ended {
        let ended = Running::start(self.command(arguments), input.as_ref()).end();
        self.assert_clean(&ended);
        ended
    }

    /// Nothing of a run that ended is there any more but what it saved.
    pub(crate) fn assert_clean(&self, ended: &Ended) {
        let left: Vec<_> = std::fs::read_dir(self.temporary.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
        assert_eq!(groups_of(ended.pid), Vec::<PathBuf>::new(), "control groups are left");
        assert!(eventually(|| living(&ended.family).is_empty()), "processes are left: {:?}", living(&ended.family));
        assert!(!self.files().iter().any(|name| name.contains(".belljar-")), "a staging folder is left: {:?}", self.files());
    }

    /// `belljar run` of Python code.
    pub(crate) fn python(&self, code: &str) -> Ended {
        self.call(["run", "-"], code)
    }

    /// `belljar run --json` of Python code, with its execution object.
    pub(crate) fn python_json(&self, code: &str) -> Execution {
        self.call(["run", "--json", "-"], code).execution()
    }

    /// `belljar run --language shell` of a command.
    pub(crate) fn shell(&self, code: &str) -> Ended {
        self.call(["run", "--language", "shell", "-"], code)
    }

    /// `belljar run --language shell --json` of a command, with its execution object.
    pub(crate) fn shell_json(&self, code: &str) -> Execution {
        self.call(["run", "--language", "shell", "--json", "-"], code).execution()
    }
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<Vec<u8>>,
    stdout: Vec<u8>,
    stderr: Receiver<Vec<u8>>,
    input: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(mut command: Command, input: &[u8]) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        // Whoever does not read its input closes it.
        let input = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let (send, lines) = mpsc::channel();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) && send.send(std::mem::take(&mut line)).is_ok() {}
        });
        let (send, errors) = mpsc::channel();
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = stderr.read_to_end(&mut all);
            let _ = send.send(all);
        });
        Self { child, lines, stdout: Vec::new(), stderr: errors, input: Some(input) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("a line comes: {error}"));
        self.stdout.extend_from_slice(&line);
        String::from_utf8(line).unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let (mut peak_bytes, mut family) = (0, Vec::new());
        let status = loop {
            peak_bytes = peak_bytes.max(peak_bytes_of(self.pid()));
            if family.len() < FAMILY {
                family.extend(self::family(self.pid()));
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("the program ends; it printed {:?}", String::from_utf8_lossy(&self.stdout));
            }
            std::thread::sleep(STEP);
        };
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.stdout.extend_from_slice(&line);
        }
        let stderr = self.stderr.recv_timeout(PATIENCE).expect("stderr is closed");
        if let Some(input) = self.input.take() {
            let _ = input.join();
        }
        let stdout = std::mem::take(&mut self.stdout);
        Ended { pid: self.pid(), status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned(), peak_bytes, family }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed half-way leaves nothing running.
        if std::thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The most memory a process has had so far.
fn peak_bytes_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) pid: u32,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// The most memory it was seen with.
    pub(crate) peak_bytes: u64,
    /// Processes seen below it.
    family: Vec<Process>,
}

impl Ended {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("it ended by itself: {:?} {}", self.status, self.stderr))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap_or_else(|_| panic!("stdout is UTF-8"))
    }

    /// It went well, and printed this.
    pub(crate) fn prints(&self, expected: &str) {
        assert_eq!((self.text().as_str(), self.code()), (expected, 0), "stderr: {}", self.stderr);
    }

    /// The execution object, which is all that stdout holds.
    pub(crate) fn execution(&self) -> Execution {
        let text = self.text();
        let json: Json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("stdout is one JSON object: {error}: {text:?} {}", self.stderr));
        assert!(text.ends_with('\n') && !text.trim_end().contains('\n'), "the object stands on one line");
        let done = json["outcome"] == "completed";
        assert_eq!(self.code(), i32::from(!done), "the exit code says whether it completed: {json}");
        Execution(json)
    }
}

/// An execution object.
#[derive(Debug)]
pub(crate) struct Execution(pub(crate) Json);

impl Execution {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_else(|| panic!("`{key}` is a text: {}", self.0))
    }

    pub(crate) fn outcome(&self) -> &str {
        self.text("outcome")
    }

    pub(crate) fn stdout(&self) -> &str {
        self.text("stdout")
    }

    pub(crate) fn error_name(&self) -> &str {
        self.0["error"]["name"].as_str().unwrap_or_else(|| panic!("there is an error: {}", self.0))
    }

    pub(crate) fn limits_hit(&self) -> Vec<&str> {
        self.0["limitsHit"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
    }

    /// Paths of the artifacts.
    pub(crate) fn artifacts(&self) -> Vec<&str> {
        self.0["artifacts"].as_array().unwrap().iter().map(|artifact| artifact["path"].as_str().unwrap()).collect()
    }

    /// Media types of what was shown.
    pub(crate) fn shown(&self) -> Vec<&str> {
        self.0["outputs"].as_array().unwrap().iter().map(|output| output["type"].as_str().unwrap()).collect()
    }

    /// It completed and wrote this.
    pub(crate) fn prints(&self, expected: &str) {
        assert_eq!((self.outcome(), self.stdout()), ("completed", expected), "{}", self.0);
    }
}

/// A process: its id and when it started, so that a later one with the same id is another.
pub(crate) type Process = (u32, u64);

/// All processes with their parents.
fn processes() -> BTreeMap<Process, u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // A zombie holds nothing, and who started it collects it.
        (fields.first() != Some(&"Z")).then_some(())?;
        Some(((pid, fields.get(19)?.parse().ok()?), fields.get(1)?.parse().ok()?))
    })
    .collect()
}

/// Everything below a process, itself left out.
pub(crate) fn family(pid: u32) -> Vec<Process> {
    let all = processes();
    let mut parents = vec![pid];
    let mut found: Vec<Process> = Vec::new();
    loop {
        let more: Vec<Process> =
            all.iter().filter(|(process, parent)| parents.contains(parent) && !found.contains(process)).map(|(process, _)| *process).collect();
        if more.is_empty() {
            return found;
        }
        parents.extend(more.iter().map(|(pid, _)| *pid));
        found.extend(more);
    }
}

/// Those of `family` that still live.
pub(crate) fn living(family: &[Process]) -> Vec<Process> {
    let all = processes();
    family.iter().filter(|process| all.contains_key(process)).copied().collect()
}

/// Processes that have this among their arguments. Belljar and this test never have: it is in code passed by standard input.
pub(crate) fn with_argument(marker: &str) -> Vec<u32> {
    let holds = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes())
    };
    processes().into_keys().map(|(pid, _)| pid).filter(|pid| holds(*pid)).collect()
}

fn cgroup_trees() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect()
}

/// Control groups of the belljar process with this id.
pub(crate) fn groups_of(pid: u32) -> Vec<PathBuf> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                    found.push(entry.path());
                }
                walk(&entry.path(), prefix, found);
            }
        }
    }
    let mut found = Vec::new();
    for tree in cgroup_trees() {
        walk(&tree, &format!("belljar-{pid}-"), &mut found);
    }
    found
}
