//! Processes as `/proc` shows them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// When it started, in clock ticks since boot: with the number, a name for it.
    pub(crate) start: u64,
    /// It has ended, and nobody has asked how.
    pub(crate) ended: bool,
}

/// What `/proc/<pid>/stat` says.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, start, ended: matches!(state, "Z" | "X") })
}

/// One process, if it is there.
pub(crate) fn find(pid: u32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All processes of the machine.
pub(crate) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| find(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Everything below a process.
pub(crate) fn below(root: u32) -> Vec<Process> {
    let mut rest = all();
    let mut family = vec![root];
    let mut found = Vec::new();
    while let Some(above) = family.pop() {
        let (children, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|process| process.parent == above);
        family.extend(children.iter().map(|child| child.pid));
        found.extend(children);
        rest = others;
    }
    found
}

/// Its command line, or its name in brackets.
pub(crate) fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    if line.is_empty() { format!("[{}]", fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim()) } else { line.chars().take(120).collect() }
}

/// The two processes of the launcher of the belljar `parent`: the one that it started, and the first of the outer namespace.
pub(crate) fn launchers(parent: u32) -> Option<(u32, u32)> {
    let all = all();
    let child = |above: u32| all.iter().find(|process| process.parent == above && command(process.pid).starts_with("belljar-launcher"));
    let outer = child(parent)?.pid;
    Some((outer, child(outer)?.pid))
}

/// Memory in use, in KiB.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Where the threads of a process wait, and what of that root alone may see.
pub(crate) fn waits(pid: u32) -> String {
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let told = tasks.map(|task| {
        let path = task.path();
        let stat = read(path.join("stat"));
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().next()).unwrap_or_default().to_owned();
        let stack: Vec<String> = read(path.join("stack")).lines().take(3).map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect();
        format!("{} {state} in {} ({})", read(path.join("comm")), read(path.join("wchan")), stack.join(" "))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Ends a process of ours: the one of this number that started then.
pub(crate) fn kill(process: &Process) -> bool {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let same = find(process.pid).is_some_and(|now| now.start == process.start);
    same && pid.is_some_and(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok())
}

/// Collects orphans that have come to this process and ended.
pub(crate) fn reap(family: &[Process], except: Option<u32>) {
    let own = std::process::id();
    for orphan in family.iter().filter(|process| process.parent == own && process.ended && Some(process.pid) != except) {
        let pid = i32::try_from(orphan.pid).ok().and_then(Pid::from_raw);
        let _ = rustix::process::waitpid(pid, WaitOptions::NOHANG);
    }
}

/// Collects orphans until there is nothing below this process, or time is up.
pub(crate) fn collect(patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let family = below(std::process::id());
        reap(&family, None);
        if family.is_empty() || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_name_whatever_it_is() {
        let stat = "12 (a) b) Z 7 1 1 0 -1 5 6 7 8 9 10 11 12 13 20 0 1 0 998877 0 0";
        assert_eq!(parse(12, stat), Some(Process { pid: 12, parent: 7, start: 998_877, ended: true }));
        assert_eq!(parse(12, "nonsense"), None);
        let own = find(std::process::id()).expect("this process");
        assert!(!own.ended && own.start > 0);
    }
}
