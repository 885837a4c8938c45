//! What single numbers need beyond the table: comparisons with published lists, a look from outside, files placed before.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use engine::{Control, Execution, Language, Observer, Output, Stream, Value};
use sandbox::seccomp::Arch;
use serde_json::Value as Json;

use crate::harness::{self, Document, Order, Silent};
use crate::judge::Verdict;
use crate::oracle;
use crate::probes;
use crate::scene::{HOOKS, Scene, hook_text};
use crate::suite::Suite;
use crate::table::Test;

const PUBLISHED: &str = include_str!("../../../sandbox/seccomp/allowed-x86_64.txt");
const PROC_VISIBLE: &str = include_str!("proc-visible.txt");
/// Names at once that a filter may let through.
const MAX_CALLS: usize = 130;
/// `uretprobe` and `uprobe`: the kernel exempts them from filters, and ends whoever calls them outside of a probe of its own.
const EXEMPT: &[u32] = &[335, 336];
/// What Python code loses before it runs.
const SHELL_ONLY: &[&str] = &["execve", "fork", "vfork", "seccomp"];
/// First host user of the sandboxes of a root launcher.
const FIRST_USER: u32 = 0x7000_0000;

/// What a run of this number gets besides its code.
pub(crate) fn order(test: &Test, scratch: &Path) -> Order {
    let mut order = Order::default();
    if test.number == "T019" {
        for name in HOOKS {
            let place = scratch.join(name);
            fs::write(&place, hook_text(name)).expect("a hook");
            order.files.push(((*name).to_owned(), place));
        }
    }
    if test.number == "T043" {
        order.out = Some(scratch.join("out"));
    }
    order
}

/// Files that come out carry no rights.
pub(crate) fn artifacts_are_harmless(test: &Test, scratch: &Path) {
    if test.number == "T043" {
        for entry in fs::read_dir(scratch.join("out")).into_iter().flatten().flatten() {
            let mode = entry.metadata().expect("its mode").permissions().mode();
            assert_eq!(mode & 0o7000, 0, "{} came out with mode {mode:o}", entry.path().display());
        }
    }
}

/// The document of a worker that its first foreign call ended.
pub(crate) fn killed(test: &Test, execution: &Execution) -> Option<Document> {
    let first = match test.number.as_str() {
        "T002" => "int 0x80 getpid",
        "T003" => "x32 getpid",
        _ => return None,
    };
    let mut document = Document::default();
    document.attempts.insert(first.to_owned(), Json::from("killed SIGSYS"));
    harness::killed_by_sigsys(execution).then_some(document)
}

/// What the number asks beyond its attempts and facts.
pub(crate) fn judge(suite: &Suite<'_>, language: &str, inside: &Document) -> Verdict {
    let problem = match suite.test.number.as_str() {
        "T001" => reachable_calls(suite, language, inside),
        "T012" if language == "python" => spawning_works(suite),
        "T018" if language == "python" => user_outside(suite),
        "T036" => second_command(suite),
        "T040" => visible_in_proc(inside),
        "T046" => shared_memory(suite),
        "T110" => suite.log_is_quiet(),
        _ => None,
    };
    problem.map_or(Verdict::Holds, Verdict::NotHeld)
}

/// The calls that reach the kernel are the published ones; without the filter there are more.
fn reachable_calls(suite: &Suite<'_>, language: &str, inside: &Document) -> Option<String> {
    let name = |line: &'static str| line.split(' ').next().unwrap_or(line);
    let published: BTreeSet<u32> =
        PUBLISHED.lines().map(name).filter(|name| language != "python" || !SHELL_ONLY.contains(name)).filter_map(|name| Arch::X86_64.number(name)).collect();
    // Python's clone is for threads, which zero arguments are not; that threads work is T012's fact.
    // A worker leads its session, so that the kernel itself refuses it another group or session.
    let natural = ["clone", "setsid", "setpgid"].into_iter().filter(|_| language == "python").filter_map(|name| Arch::X86_64.number(name));
    let denied: &[&str] = &["EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "ENOTTY", "EAFNOSUPPORT"];
    let calls = |document: &Document| -> BTreeSet<u32> {
        let calls = document.facts["calls"].as_object().expect("answers by number").iter();
        calls.filter(|(_, answer)| answer.as_str().is_some_and(|answer| !denied.contains(&answer))).filter_map(|(number, _)| number.parse().ok()).collect()
    };
    let reached: BTreeSet<u32> = calls(inside).into_iter().chain(natural).filter(|number| !EXEMPT.contains(number)).collect();
    let without = suite.run("seccomp", "shell", true).map(|document| calls(&document).len()).unwrap_or_default();
    if published.len() > MAX_CALLS || reached != published {
        let (more, fewer): (Vec<_>, Vec<_>) = (reached.difference(&published).collect(), published.difference(&reached).collect());
        return Some(format!("{} calls published; reached beyond them {more:?}, not reached {fewer:?}", published.len()));
    }
    (without <= reached.len() + 50).then(|| format!("without the filter only {without} calls are reached: the control fails"))
}

/// With process spawning allowed, programs that start processes work.
fn spawning_works(suite: &Suite<'_>) -> Option<String> {
    let scratch = suite.scratch();
    let code = probes::python("works.py", &suite.scene.inside(suite.test, "shell", false));
    let order = Order { process_spawning: true, ..Order::default() };
    let run = harness::inside(suite.engines.get("full"), "python", &code, order, scratch.path());
    let facts = run.document.map(|document| document.facts).unwrap_or_default();
    let wanted = [("subprocess", "hello"), ("fork", "7"), ("multiprocessing", "42")];
    let wrong: Vec<_> = wanted.iter().filter(|(name, value)| facts.get(*name).and_then(Json::as_str) != Some(*value)).collect();
    (!wrong.is_empty()).then(|| format!("with process spawning allowed, {wrong:?} is not so: {:?}", run.execution.error))
}

/// Looks for the worker from outside as soon as its code says that it runs, then lets it go.
struct Look<'a> {
    control: &'a Control,
    users: Vec<u32>,
}

impl Observer for Look<'_> {
    fn wrote(&mut self, _: Stream, _: &[u8]) {
        let status = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let command = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let workers = oracle::descendants().into_iter().filter(|pid| command(pid).contains("/opt/runtime/driver.py"));
        let user = |text: String| -> Option<u32> { text.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok()) };
        self.users.extend(workers.filter_map(|pid| user(status(&pid))));
        self.control.interrupt();
    }
    fn showed(&mut self, _: &Output) {}
    fn result(&mut self, _: &Value) {}
}

/// The user that the host sees.
fn user_outside(suite: &Suite<'_>) -> Option<String> {
    let control = Control::default();
    let mut look = Look { control: &control, users: Vec::new() };
    let code = "import select\nprint('here', flush=True)\nselect.select([], [], [], 20)";
    harness::run(suite.engines.get("full"), Language::Python, code, &Order::default(), (&mut look, &control));
    let own = fs::metadata("/proc/self").map(|facts| std::os::unix::fs::MetadataExt::uid(&facts)).unwrap_or_default();
    let fits = |user: u32| if own == 0 { (FIRST_USER..0x8000_0000).contains(&user) } else { user == own };
    let right = !look.users.is_empty() && look.users.iter().all(|user| fits(*user));
    (!right).then(|| format!("the host sees the users {:?}", look.users))
}

/// After one command tried to replace what a set-up might follow, the next one of the same run finds everything in place.
fn second_command(suite: &Suite<'_>) -> Option<String> {
    let scratch = suite.scratch();
    let script = scratch.path().join("probe.py");
    fs::write(&script, probes::python(&suite.test.probe, &suite.scene.inside(suite.test, "shell", false))).expect("the script is written");
    let code = "get_ipython().system('/opt/env/bin/python /mnt/data/probe.py')\nget_ipython().system('echo x > /dev/null && test -c /dev/null && echo alive')";
    let order = Order { files: vec![("probe.py".to_owned(), script)], ..Order::default() };
    let run = harness::run(suite.engines.get("full"), Language::Python, code, &order, (&mut Silent, &Control::default()));
    (!run.stdout.ends_with("alive\n")).then(|| format!("the second command said {:?} {:?}", run.stdout, run.stderr))
}

/// Nothing of `/proc` is visible beyond the published list.
fn visible_in_proc(inside: &Document) -> Option<String> {
    let published: BTreeSet<&str> = PROC_VISIBLE.lines().filter(|line| line.starts_with('/')).collect();
    let visible = inside.facts["visible"].as_array().expect("a list").iter().filter_map(Json::as_str);
    let more: Vec<_> = visible.filter(|name| !published.contains(name)).collect();
    (!more.is_empty()).then(|| format!("not in proc-visible.txt: {more:?}"))
}

/// What was written to `/dev/shm` inside is not in the host's.
fn shared_memory(suite: &Suite<'_>) -> Option<String> {
    let place = Path::new("/dev/shm").join(format!("{}-inside", suite.scene.shm_marker));
    place.exists().then(|| format!("{} is of a sandbox", place.display()))
}

/// Programs of the host and of the environment are what they were.
pub(crate) fn programs_are_unchanged(scene: &Scene) -> Option<Verdict> {
    let changed = scene.canary.changed_programs();
    Some(if changed.is_empty() { Verdict::Holds } else { Verdict::NotHeld(changed.join("; ")) })
}

/// The interpreter inside as the host sees it, for controls; and a file of the environment.
pub(crate) fn interpreter(data: &Path) -> (PathBuf, PathBuf) {
    let names = |folder: &Path| -> Vec<PathBuf> { fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect() };
    let environments = names(&data.join("environments"));
    let root = environments.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core-"))).expect("the environment core");
    let copied = names(&root.join("python/bin")).into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")));
    (copied.unwrap_or_else(|| root.join("env/bin/python")), root.join("env/pyvenv.cfg"))
}
