//! A look at the processes of sandboxes from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Private memory of processes, and their share of what they share, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) private: u64,
    pub(super) share: u64,
}

/// A line of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// CPU time of it and of those it waited for, in clock ticks.
    ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // After the name: state, parent; utime, stime, cutime and cstime are the 12th to the 15th.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // A zombie holds nothing, and who started it collects it.
        (*fields.first()? != "Z").then_some(())?;
        let ticks = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().unwrap_or_default()).sum();
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

fn all() -> BTreeMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stat = |pid: u32| Some((pid, Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?));
    entries.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Every process below this one.
fn family() -> BTreeSet<u32> {
    below(&all(), std::process::id())
}

fn below(all: &BTreeMap<u32, Stat>, root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = all.iter().filter(|(pid, stat)| found.contains(&stat.parent) && !found.contains(pid)).map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            found.remove(&root);
            return found;
        }
        found.extend(more);
    }
}

/// CPU time so far of all processes but ours and the kernel's own.
pub(super) fn others_ticks() -> u64 {
    /// The parent of the kernel's own.
    const KERNEL: u32 = 2;
    let (all, own) = (all(), std::process::id());
    let ours = below(&all, own);
    let others = all.iter().filter(|(pid, stat)| **pid != own && !ours.contains(pid) && **pid != KERNEL && stat.parent != KERNEL);
    others.map(|(_, stat)| stat.ticks).sum()
}

/// The init of every sandbox of this process.
pub(super) fn inits() -> BTreeSet<u32> {
    let is_init = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"belljar-init"));
    family().into_iter().filter(is_init).collect()
}

/// How many processes there are below this one.
pub(super) fn count() -> usize {
    family().len()
}

/// Memory of everything in the process namespace of each of these inits, in their order.
///
/// # Errors
/// What could not be read, in words.
pub(super) fn memory(inits: &BTreeSet<u32>) -> Result<Vec<Memory>, String> {
    let mut by_namespace: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    let mut unseen = 0;
    for pid in family() {
        match namespace(pid) {
            Ok(namespace) => by_namespace.entry(namespace).or_default().push(pid),
            Err(_) => unseen += 1,
        }
    }
    let one = |init: &u32| {
        let namespace = namespace(*init).map_err(|error| format!("the namespace of a sandbox cannot be read: {error}"))?;
        let members = by_namespace.get(&namespace).map_or(&[][..], Vec::as_slice);
        if members.len() < 2 {
            return Err(format!("the interpreter of a sandbox cannot be found: {unseen} processes cannot be looked at"));
        }
        members.iter().try_fold(Memory::default(), |sum, pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let text = text.map_err(|error| format!("the memory of a sandbox cannot be read: {error}"))?;
            let one = parse(&text).ok_or("the memory of a sandbox cannot be read: unknown words")?;
            Ok(Memory { private: sum.private + one.private, share: sum.share + one.share })
        })
    };
    inits.iter().map(one).collect()
}

fn namespace(pid: u32) -> std::io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid"))
}

/// Reads a `smaps_rollup`.
fn parse(text: &str) -> Option<Memory> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    };
    Some(Memory { private: of("Private_Clean")? + of("Private_Dirty")?, share: of("Pss")? })
}

/// How many control groups of sandboxes of this process there are, in all trees.
pub(super) fn groups() -> usize {
    fn walk(folder: &Path, prefix: &str, depth: usize) -> usize {
        let folders = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders
            .map(|entry| {
                if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                    fs::read_dir(entry.path()).into_iter().flatten().flatten().filter(|group| group.file_type().is_ok_and(|kind| kind.is_dir())).count()
                } else if depth > 0 {
                    walk(&entry.path(), prefix, depth - 1)
                } else {
                    0
                }
            })
            .sum()
    }
    walk(Path::new("/sys/fs/cgroup"), &format!("belljar-{}-", std::process::id()), 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_clean_and_dirty() {
        let text = "5581-7ffd ---p 00000000 00:00 0    [rollup]\nRss:  100 kB\nPss:   40 kB\nPss_Dirty:  5 kB\nPrivate_Clean:  3 kB\nPrivate_Dirty:  20 kB\n";
        assert_eq!(parse(text), Some(Memory { private: 23 * 1024, share: 40 * 1024 }));
        assert_eq!(parse("Pss: 4 kB\n"), None);
    }

    #[test]
    fn a_family_is_everything_below() {
        let line = |state: &str, parent: u32| Stat::parse(&format!("7 (a) b) {state} {parent} 3 4 5 6 7 8 9 10 11 12 13 14 15 20 0"));
        assert_eq!(line("S", 1), Some(Stat { parent: 1, ticks: 12 + 13 + 14 + 15 }));
        assert_eq!((line("Z", 1), Stat::parse("7 (a) S")), (None, None));
        let all: BTreeMap<u32, Stat> = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1)].into_iter().map(|(pid, parent)| (pid, line("S", parent).unwrap())).collect();
        assert_eq!(below(&all, 5), BTreeSet::from([6, 7]));
        assert_eq!(below(&all, 7), BTreeSet::new());
    }

    #[test]
    fn a_process_that_is_no_sandbox_has_no_memory_of_one() {
        assert!(!family().contains(&std::process::id()));
        assert!(memory(&BTreeSet::from([std::process::id()])).is_err());
        assert_eq!(memory(&BTreeSet::new()), Ok(Vec::new()));
    }
}
