//! What could be left behind, each object by its name, so that a difference can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process;

/// Namespaces of a process.
const NAMESPACES: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// Everything of ours at one moment: kind, then objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Residue(BTreeMap<&'static str, BTreeSet<String>>);

impl Residue {
    /// Looks at this process, at what is below it, and at the places where belljar writes.
    pub(crate) fn look(data: &Path) -> Self {
        let family = process::below(std::process::id());
        let own = std::process::id();
        let mut found = BTreeMap::new();
        found.insert("processes", family.iter().map(|process| format!("{} {}", process.pid, process::command(process.pid))).collect());
        found.insert("namespaces", namespaces(&family));
        found.insert("control groups", groups(&format!("belljar-{own}-")).iter().map(|path| path.display().to_string()).collect());
        found.insert("mounts", lines("/proc/self/mountinfo"));
        found.insert("descriptors", descriptors(own));
        found.insert("threads", threads());
        found.insert("temporary files", temporary());
        found.insert("data folder", names(data).into_iter().chain(names(&data.join("environments"))).collect());
        found.insert("shared memory", shared_memory());
        if let Some((_, inner)) = process::launchers(own) {
            found.insert("launcher's mounts", lines(&format!("/proc/{inner}/mountinfo")));
            found.insert("launcher's descriptors", descriptors(inner));
            found.insert("locked user ids", locks(inner));
        }
        Self(found)
    }

    /// Looks until everything is as it was, or time is up.
    pub(crate) fn settle(data: &Path, before: &Self, patience: Duration) -> (Self, Vec<String>) {
        let deadline = Instant::now() + patience;
        loop {
            process::reap(&process::below(std::process::id()), None);
            let now = Self::look(data);
            let differences = before.differences(&now);
            if differences.is_empty() || Instant::now() >= deadline {
                return (now, differences);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every object that is in one and not in the other.
    pub(crate) fn differences(&self, after: &Self) -> Vec<String> {
        let nothing = BTreeSet::new();
        let kinds: BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        let mut found = Vec::new();
        for kind in kinds {
            let (before, after) = (self.0.get(kind).unwrap_or(&nothing), after.0.get(kind).unwrap_or(&nothing));
            found.extend(after.difference(before).map(|object| format!("{kind}: `{object}` was left")));
            found.extend(before.difference(after).map(|object| format!("{kind}: `{object}` is gone")));
        }
        found
    }

    /// How many of each kind.
    pub(crate) fn counts(&self) -> Vec<(&'static str, usize)> {
        self.0.iter().map(|(kind, objects)| (*kind, objects.len())).collect()
    }
}

fn lines(path: &str) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Namespaces that processes are in and this one is not.
fn namespaces(family: &[process::Process]) -> BTreeSet<String> {
    let link = |pid: &str, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok().map(|link| link.display().to_string());
    let own: BTreeSet<String> = NAMESPACES.iter().filter_map(|name| link("self", name)).collect();
    let all = family.iter().flat_map(|process| NAMESPACES.iter().filter_map(move |name| link(&process.pid.to_string(), name)));
    all.filter(|found| !own.contains(found)).collect()
}

/// Open descriptors of a process, but for the one that looks.
fn descriptors(pid: u32) -> BTreeSet<String> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let looking = |target: &Path| target.starts_with("/proc") && target.ends_with("fd");
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?)));
    all.filter(|(_, target)| !looking(target)).map(|(name, target)| format!("{} {}", name.display(), target.display())).collect()
}

/// Bytes of the file of user ids that a launcher has locked.
fn locks(pid: u32) -> BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let text: String = files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect();
    text.lines().filter(|line| line.starts_with("lock:")).map(str::to_owned).collect()
}

fn threads() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|task| format!("{} {}", task.file_name().display(), fs::read_to_string(task.path().join("comm")).unwrap_or_default().trim())).collect()
}

/// Whether a name carries the number of another process, or is one of the test suites': its own to clean up.
fn is_foreign(name: &str) -> bool {
    let number = name.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
    ["-containment-", "-bench-"].iter().any(|suite| name.contains(suite)) || number.is_some_and(|pid| pid != std::process::id())
}

/// Ours among the temporary files.
fn temporary() -> BTreeSet<String> {
    names(&std::env::temp_dir()).into_iter().filter(|name| name.contains("belljar") && !is_foreign(name)).collect()
}

fn shared_memory() -> BTreeSet<String> {
    let objects = |name: &str| lines(&format!("/proc/sysvipc/{name}")).into_iter().map(move |line| format!("{name} {line}")).collect::<Vec<_>>();
    let files = names(Path::new("/dev/shm")).into_iter().filter(|name| !is_foreign(name));
    files.chain(["shm", "sem", "msg"].into_iter().flat_map(objects)).collect()
}

/// Control groups whose name begins so, in all trees, and what is below them.
pub(crate) fn groups(prefix: &str) -> Vec<PathBuf> {
    fn search(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.extend(names(&path).into_iter().map(|name| path.join(name)).filter(|path| path.is_dir()));
                found.push(path);
            } else if depth > 0 {
                search(&path, prefix, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), prefix, 6, &mut found);
    found
}

/// Numbers of the whole machine, which others move too: told, and judged only where they grow as a leak would make them grow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    /// Network namespaces that the kernel has memory for.
    pub(crate) network_namespaces: Option<u64>,
    /// Those that a process is in: the others are on their way out, or nobody knows who holds them.
    pub(crate) inhabited: Option<u64>,
    /// Memory control groups, with those that are removed and not yet freed.
    pub(crate) memory_groups: Option<u64>,
    /// Kernel memory in slabs, in KiB.
    pub(crate) slab_kib: Option<u64>,
    /// Bytes locked in files by anybody.
    pub(crate) locks: Option<u64>,
}

impl Machine {
    /// Looks now.
    pub(crate) fn look() -> Self {
        let number = |path: &str, name: &str, at: usize| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(name))?;
            line.split_ascii_whitespace().nth(at)?.parse::<u64>().ok()
        };
        Self {
            network_namespaces: number("/proc/slabinfo", "net_namespace", 1),
            inhabited: Some(inhabited()),
            memory_groups: number("/proc/cgroups", "memory", 2),
            slab_kib: number("/proc/meminfo", "Slab:", 1),
            locks: fs::read_to_string("/proc/locks").ok().map(|text| text.lines().count() as u64),
        }
    }

    /// Whether there are more network namespaces than others and the kernel's own slack account for. `sandboxes` have had one each.
    pub(crate) fn leaks(&self, before: &Self, sandboxes: u64) -> bool {
        let allowed = 64 + sandboxes / 100;
        let empty = |machine: &Self| Some(machine.network_namespaces?.saturating_sub(machine.inhabited?));
        matches!((empty(before), empty(self)), (Some(before), Some(now)) if now > before + allowed)
    }

    /// Name and number of each.
    pub(crate) fn rows(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("network namespaces", self.network_namespaces),
            ("those with processes", self.inhabited),
            ("memory groups, with dying ones", self.memory_groups),
            ("slab KiB", self.slab_kib),
            ("file locks", self.locks),
        ]
    }
}

/// Network namespaces that processes are in, as far as we may look.
fn inhabited() -> u64 {
    let all = process::all();
    let links: BTreeSet<PathBuf> = all.iter().filter_map(|process| fs::read_link(format!("/proc/{}/ns/net", process.pid)).ok()).collect();
    links.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_by_name() {
        let look = |names: &[&str]| Residue(BTreeMap::from([("mounts", names.iter().map(|name| (*name).to_owned()).collect())]));
        assert_eq!(look(&["a", "b"]).differences(&look(&["a", "b"])), Vec::<String>::new());
        assert_eq!(look(&["a", "b"]).differences(&look(&["b", "c"])), ["mounts: `c` was left", "mounts: `a` is gone"]);
        assert_eq!(Residue::default().differences(&look(&["a"])), ["mounts: `a` was left"]);
    }
}
