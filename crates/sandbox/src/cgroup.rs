//! Control groups: version 2 where its controllers are ours to use, version 1 as root, or none.
//!
//! One folder per backend of a belljar process (`belljar-<pid>-<start>-<count>`), one group per sandbox below it. Folders whose process is gone are
//! removed by the next one that starts.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::limits::Limits;

/// Processes of ours inside a sandbox that the caller's limit does not count: init and two runners.
const OWN_PROCESSES: u64 = 3;
/// How long the last process of a group may take to be gone. What is left then, the next start removes.
const EMPTY_PATIENCE: Duration = Duration::from_secs(10);
/// Period of the CPU quota, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Which control groups this process can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Version 2 with the memory and pids controllers.
    V2,
    /// Version 1 with the memory and pids controllers.
    V1,
    /// None, and why.
    None(String),
}

/// A controller of version 1, or the one tree of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Unified,
    Memory,
    Pids,
    Cpu,
    Freezer,
}

/// The place for groups of this process.
#[derive(Debug)]
pub struct Cgroups {
    version: Version,
    /// Our folder in each tree.
    folders: Vec<(Controller, PathBuf)>,
}

/// The group of one sandbox.
#[derive(Debug)]
pub struct Group {
    folders: Vec<(Controller, PathBuf)>,
}

/// Counters of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processes that the kernel killed for the group's memory.
    pub memory_kills: u64,
    /// Forks refused for the group's number of processes.
    pub process_refusals: u64,
}

/// A mounted tree, from `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    v2: bool,
    controllers: Vec<String>,
    root: String,
    place: PathBuf,
}

fn parse_mountinfo(text: &str) -> Vec<Mounted> {
    text.lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let (root, place) = (before.next()?, before.next()?);
            let mut after = after.split(' ');
            let kind = after.next()?;
            let options = after.nth(1)?;
            let v2 = kind == "cgroup2";
            (v2 || kind == "cgroup").then(|| Mounted {
                v2,
                controllers: options.split(',').map(str::to_owned).collect(),
                root: root.to_owned(),
                place: PathBuf::from(place),
            })
        })
        .collect()
}

/// Our own group in the tree with this controller (empty: version 2), from `/proc/self/cgroup`.
fn own_path<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let same = if controller.is_empty() { controllers.is_empty() } else { controllers.split(',').any(|name| name == controller) };
        same.then_some(path)
    })
}

/// Where a group's folder is: the path is told relative to the hierarchy, the mount shows it from `root`.
fn folder_of(mounted: &Mounted, path: &str) -> PathBuf {
    let relative = path.strip_prefix(mounted.root.trim_end_matches('/')).unwrap_or(path);
    let folder = mounted.place.join(relative.trim_start_matches('/'));
    if folder.is_dir() { folder } else { mounted.place.clone() }
}

impl Cgroups {
    /// Finds what can be used and makes our folder there.
    #[must_use]
    pub fn detect() -> Self {
        let mounts = parse_mountinfo(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = own_folder_name();
        let mut reasons = Vec::new();
        match detect_v2(&mounts, &own, &name) {
            Ok(folders) => return Self { version: Version::V2, folders },
            Err(reason) => reasons.push(format!("v2: {reason}")),
        }
        match detect_v1(&mounts, &own, &name) {
            Ok(folders) => return Self { version: Version::V1, folders },
            Err(reason) => reasons.push(format!("v1: {reason}")),
        }
        Self { version: Version::None(reasons.join("; ")), folders: Vec::new() }
    }

    /// Uses none, whatever the host has.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self { version: Version::None(reason.to_owned()), folders: Vec::new() }
    }

    /// What was found.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Makes the group of a sandbox with its limits; `None` where there are no control groups.
    ///
    /// # Errors
    /// Where the kernel refuses the folder or a limit.
    pub fn create(&self, sandbox: u64, limits: &Limits) -> io::Result<Option<Group>> {
        if self.folders.is_empty() {
            return Ok(None);
        }
        let mut group = Group { folders: Vec::new() };
        for (controller, folder) in &self.folders {
            let folder = folder.join(sandbox.to_string());
            fs::create_dir(&folder)?;
            group.folders.push((*controller, folder.clone()));
            set_limits(*controller, &folder, limits)?;
        }
        Ok(Some(group))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for (_, folder) in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// `belljar-<pid>-<start>-<count>`: tells a later process whether its maker lives; one for each backend of a process.
fn own_folder_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    format!("belljar-{pid}-{}-{}", start_ticks(pid).unwrap_or_default(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// When a process started, in clock ticks since boot.
fn start_ticks(pid: u32) -> Option<u64> {
    start_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same of a `/proc/<pid>/stat`. The name in it is the process's own choice, so fields count from its end.
fn start_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Removes folders of processes that are gone.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mut numbers = name.to_str().and_then(|name| name.strip_prefix("belljar-")).unwrap_or_default().split('-').map(str::parse::<u64>);
        let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else { continue };
        let Ok(pid) = u32::try_from(pid) else { continue };
        if start_ticks(pid) != Some(start) {
            for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(group.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn detect_v2(mounts: &[Mounted], own: &str, name: &str) -> Result<Vec<(Controller, PathBuf)>, String> {
    let mounted = mounts.iter().find(|mounted| mounted.v2).ok_or("not mounted")?;
    let own = own_path(own, "").ok_or("this process is in no group")?;
    // Moved aside by an earlier start: the group to divide is the one above.
    let folder = folder_of(mounted, own.strip_suffix("/belljar-supervisor").unwrap_or(own));
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).map_err(|error| error.to_string())?;
    let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
    if !has("memory") || !has("pids") {
        return Err(format!("the controllers memory and pids are not available in `{}`", folder.display()));
    }
    sweep(&folder);
    let ours = folder.join(name);
    fs::create_dir(&ours).map_err(|error| format!("cannot create a group in `{}`: {error}", folder.display()))?;
    let wanted = if has("cpu") { "+memory +pids +cpu" } else { "+memory +pids" };
    let enabled = enable(&folder, wanted).and_then(|()| fs::write(ours.join("cgroup.subtree_control"), wanted).map_err(|error| error.to_string()));
    match enabled {
        Ok(()) => Ok(vec![(Controller::Unified, ours)]),
        Err(error) => {
            let _ = fs::remove_dir(&ours);
            Err(format!("cannot enable controllers in `{}`: {error}", folder.display()))
        }
    }
}

/// Enables controllers for the children of our own group. A group with processes may not do that, so this process moves aside first.
fn enable(folder: &Path, wanted: &str) -> Result<(), String> {
    let control = folder.join("cgroup.subtree_control");
    if fs::write(&control, wanted).is_ok() {
        return Ok(());
    }
    let aside = folder.join("belljar-supervisor");
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.to_string()),
        _ => {}
    }
    fs::write(aside.join("cgroup.procs"), "0").map_err(|error| error.to_string())?;
    fs::write(&control, wanted).map_err(|error| error.to_string())
}

fn detect_v1(mounts: &[Mounted], own: &str, name: &str) -> Result<Vec<(Controller, PathBuf)>, String> {
    let mut folders = Vec::new();
    let wanted =
        [("memory", Controller::Memory, true), ("pids", Controller::Pids, true), ("cpu", Controller::Cpu, false), ("freezer", Controller::Freezer, false)];
    let result = wanted.iter().try_for_each(|(wanted, controller, needed)| {
        let mounted = mounts.iter().find(|mounted| !mounted.v2 && mounted.controllers.iter().any(|name| name == wanted));
        let Some(mounted) = mounted else {
            return if *needed { Err(format!("the controller {wanted} is not mounted")) } else { Ok(()) };
        };
        let parent = folder_of(mounted, own_path(own, wanted).unwrap_or("/"));
        sweep(&parent);
        match fs::create_dir(parent.join(name)) {
            Ok(()) => folders.push((*controller, parent.join(name))),
            // Two controllers of one tree share their folder.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => folders.push((*controller, parent.join(name))),
            Err(error) if *needed => return Err(format!("cannot create a group in `{}`: {error}", parent.display())),
            Err(_) => {}
        }
        Ok(())
    });
    if let Err(reason) = result {
        for (_, folder) in folders {
            let _ = fs::remove_dir(folder);
        }
        return Err(reason);
    }
    Ok(folders)
}

fn set_limits(controller: Controller, folder: &Path, limits: &Limits) -> io::Result<()> {
    let memory = limits.memory_bytes.saturating_add(limits.files_bytes()).to_string();
    let processes = limits.processes.saturating_add(OWN_PROCESSES).to_string();
    let quota = cpu_quota(limits.cpus);
    // Swap is off where the kernel counts it.
    let optional = |file: &str, text: &str| {
        let place = folder.join(file);
        if place.exists() { fs::write(place, text) } else { Ok(()) }
    };
    match controller {
        Controller::Unified => {
            fs::write(folder.join("memory.max"), memory)?;
            optional("memory.swap.max", "0")?;
            fs::write(folder.join("pids.max"), processes)?;
            optional("cpu.max", &format!("{quota} {CPU_PERIOD}"))
        }
        Controller::Memory => {
            // The limit with swap is never below the one without, so raising begins there and lowering ends there.
            let raised = optional("memory.memsw.limit_in_bytes", &memory);
            fs::write(folder.join("memory.limit_in_bytes"), &memory)?;
            raised.or_else(|_| optional("memory.memsw.limit_in_bytes", &memory))
        }
        Controller::Pids => fs::write(folder.join("pids.max"), processes),
        Controller::Cpu => {
            optional("cpu.cfs_period_us", &CPU_PERIOD.to_string())?;
            optional("cpu.cfs_quota_us", &quota.to_string())
        }
        Controller::Freezer => Ok(()),
    }
}

/// CPU microseconds per period; the kernel wants at least a millisecond.
fn cpu_quota(cpus: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a small positive range")]
    let quota = (cpus.clamp(0.01, 4096.0) * 100_000.0) as u64;
    quota
}

impl Group {
    /// Opens what the launcher writes the sandbox's process into: one descriptor per tree.
    ///
    /// # Errors
    /// Where a folder is gone or not ours.
    pub fn open_processes(&self) -> io::Result<Vec<OwnedFd>> {
        let mut folders: Vec<&PathBuf> = self.folders.iter().map(|(_, folder)| folder).collect();
        folders.dedup();
        folders.into_iter().map(|folder| Ok(OwnedFd::from(fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?))).collect()
    }

    /// Whether its processes get the processor only when nobody else wants it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_background(&self, background: bool) -> io::Result<()> {
        self.folders.iter().try_for_each(|(controller, folder)| match controller {
            Controller::Cpu => fs::write(folder.join("cpu.shares"), if background { "2" } else { "1024" }),
            Controller::Unified if folder.join("cpu.weight").exists() => fs::write(folder.join("cpu.weight"), if background { "1" } else { "100" }),
            _ => Ok(()),
        })
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// Where the kernel refuses one; the others may have been changed.
    pub fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        self.folders.iter().try_for_each(|(controller, folder)| set_limits(*controller, folder, limits))
    }

    /// Paths of its folders.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.folders.iter().map(|(_, folder)| folder.display().to_string()).collect()
    }

    /// What the kernel counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        for (controller, folder) in &self.folders {
            match controller {
                Controller::Unified => {
                    counters.memory_kills = field(&read(folder, "memory.events"), "oom_kill");
                    counters.process_refusals = field(&read(folder, "pids.events"), "max");
                }
                Controller::Memory => counters.memory_kills = field(&read(folder, "memory.oom_control"), "oom_kill"),
                Controller::Pids => counters.process_refusals = field(&read(folder, "pids.events"), "max"),
                Controller::Cpu | Controller::Freezer => {}
            }
        }
        counters
    }

    /// Memory in use now, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.folders.iter().find_map(|(controller, folder)| {
            let file = match controller {
                Controller::Unified => "memory.current",
                Controller::Memory => "memory.usage_in_bytes",
                Controller::Pids | Controller::Cpu | Controller::Freezer => return None,
            };
            fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
        })
    }

    /// Stops or continues every process of the group; false where no tree can.
    #[must_use]
    pub fn freeze(&self, frozen: bool) -> bool {
        self.folders.iter().any(|(controller, folder)| match controller {
            Controller::Unified => fs::write(folder.join("cgroup.freeze"), if frozen { "1" } else { "0" }).is_ok(),
            Controller::Freezer => fs::write(folder.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" }).is_ok(),
            _ => false,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + EMPTY_PATIENCE;
        for (_, folder) in &self.folders {
            // The last process may still be on its way out: on a machine that has much to do, for long.
            while let Err(error) = fs::remove_dir(folder) {
                if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() >= deadline {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// The number behind a name, in a file of `name number` lines.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or_default()
}

/// Reads a text as each of the files that are read here, for `fuzz/`; gives how much was found.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_all(text: &str) -> usize {
    let mounts = parse_mountinfo(text);
    let groups = ["", "memory", "pids"].into_iter().filter_map(|controller| own_path(text, controller));
    let found = groups.map(|path| mounts.iter().filter(|mounted| folder_of(mounted, path).starts_with(&mounted.place)).count()).sum::<usize>();
    let counted = field(text, "oom_kill") > 0 || field(text, "max") > 0;
    found.saturating_add(mounts.len()).saturating_add(usize::from(counted)).saturating_add(usize::from(start_of(text).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 /docker/abc /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
33 24 0:29 / /proc rw - proc proc rw
";

    #[test]
    fn trees_are_found_in_mountinfo() {
        let mounts = parse_mountinfo(HYBRID);
        assert_eq!(mounts.len(), 3);
        assert!(mounts[1].controllers.iter().any(|name| name == "cpuacct") && !mounts[1].v2);
        assert!(mounts[2].v2 && mounts[2].root == "/docker/abc");
        assert_eq!(parse_mountinfo("nonsense\n1 2 - \n"), Vec::new());
    }

    #[test]
    fn our_own_group_is_found_by_controller() {
        let own = "4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/d:e\n";
        assert_eq!(own_path(own, "memory"), Some("/a/b"));
        assert_eq!(own_path(own, "cpuacct"), Some("/c"));
        assert_eq!(own_path(own, ""), Some("/d:e"));
        assert_eq!(own_path(own, "pids"), None);
    }

    /// A folder that looks like a delegated version 2 group, which this machine may not have.
    #[test]
    fn version_2_limits_go_where_the_kernel_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["memory.swap.max", "cpu.max"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let limits = Limits { memory_bytes: 100, workspace_bytes: 10, tmp_bytes: 1, processes: 7, cpus: 1.5, ..Limits::default() };
        set_limits(Controller::Unified, folder.path(), &limits).unwrap();
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(
            (read("memory.max"), read("memory.swap.max"), read("pids.max"), read("cpu.max")),
            ("112".into(), "0".into(), "10".into(), "150000 100000".into())
        );
        fs::write(folder.path().join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
        fs::write(folder.path().join("pids.events"), "max 5\n").unwrap();
        let group = Group { folders: vec![(Controller::Unified, folder.path().to_owned())] };
        assert_eq!(group.counters(), Counters { memory_kills: 2, process_refusals: 5 });
        assert!(group.freeze(true));
        assert_eq!(read("cgroup.freeze"), "1");
        std::mem::forget(group);
    }

    #[test]
    fn folders_of_dead_processes_are_swept_and_ours_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let own = own_folder_name();
        for name in [own.as_str(), "belljar-1-999999999999-1", "belljar-1-999999999999", "belljar-x-y", "other"] {
            fs::create_dir_all(parent.path().join(name).join("7")).unwrap();
        }
        sweep(parent.path());
        let mut left: Vec<String> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected = vec![own, "belljar-x-y".to_owned(), "other".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
    }

    proptest! {
        #[test]
        fn a_group_is_never_given_less_than_its_limits(memory in any::<u64>(), workspace in any::<u64>(), tmp in any::<u64>(), processes in any::<u64>(), cpus in any::<f64>()) {
            let folder = tempfile::tempdir_in("/dev/shm").unwrap();
            fs::write(folder.path().join("cpu.max"), "").unwrap();
            let limits = Limits { memory_bytes: memory, workspace_bytes: workspace, tmp_bytes: tmp, processes, cpus, ..Limits::default() };
            set_limits(Controller::Unified, folder.path(), &limits).unwrap();
            let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
            prop_assert!(read("memory.max").parse::<u64>().unwrap() >= memory.max(workspace).max(tmp));
            prop_assert!(read("pids.max").parse::<u64>().unwrap() >= processes);
            let quota = read("cpu.max").split_once(' ').map(|(quota, _)| quota.parse::<u64>().unwrap()).unwrap();
            // What is no number is as good as nothing.
            prop_assert!(if cpus.is_nan() { quota == 0 } else { (1000..=409_600_000).contains(&quota) }, "{}", quota);
        }
    }

    #[test]
    fn quotas_are_within_what_the_kernel_takes() {
        assert_eq!((cpu_quota(1.0), cpu_quota(0.0), cpu_quota(0.5), cpu_quota(f64::MAX)), (100_000, 1000, 50_000, 409_600_000));
    }
}
