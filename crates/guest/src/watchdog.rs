//! Reads what the processes of the sandbox use, and says when it is too much. Memory is watched only where no cgroup bounds it.

use rustix::process::Pid;

/// A clock tick as `/proc` counts: `USER_HZ` is 100 on every architecture we run on.
const TICK_MICROSECONDS: u64 = 10_000;

/// A process as `/proc/<pid>/stat` shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its parent's.
    pub parent: Option<Pid>,
    /// It has ended and waits to be collected.
    pub zombie: bool,
    /// CPU time of all its threads and of the children it has collected, in clock ticks.
    pub cpu_ticks: u64,
}

/// The processes of the sandbox that init may see: all but itself.
pub(crate) fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != 1)
        .filter_map(|pid| parse_stat(&read_small(&format!("/proc/{pid}/stat"))?))
        .collect()
}

/// Reads a small file of `/proc` with one call.
fn read_small(path: &str) -> Option<Vec<u8>> {
    let file = rustix::fs::open(path, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()).ok()?;
    let mut text = vec![0; 1024];
    let count = rustix::io::read(&file, &mut text).ok()?;
    text.truncate(count);
    Some(text)
}

/// Parses `/proc/<pid>/stat`. The name in it is the process's own choice and may hold anything, so fields count from its end.
#[must_use]
pub fn parse_stat(text: &[u8]) -> Option<Process> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let open = text.iter().position(|byte| *byte == b'(')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok().and_then(one_process)?;
    let mut fields = std::str::from_utf8(text.get(close.checked_add(1)?..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok().and_then(one_process);
    // The state is field 3; utime, stime and those of collected children are 14 to 17.
    let mut cpu_ticks: u64 = fields.nth(9)?.parse().ok()?;
    for _ in 0..3 {
        cpu_ticks = cpu_ticks.saturating_add(fields.next()?.parse().ok()?);
    }
    // Field 20. A leader that has left shows as a zombie while its other threads live: that is no dead process.
    let threads: u64 = fields.nth(2)?.parse().ok()?;
    Some(Process { pid, parent, zombie: matches!(state, "Z" | "X") && threads < 2, cpu_ticks })
}

/// A number that names one process: none below 1, which would name a group of them, or all.
pub(crate) fn one_process(number: i32) -> Option<Pid> {
    Pid::from_raw(number.max(0))
}

/// CPU microseconds used so far by everything below init, alive or collected.
pub(crate) fn cpu_microseconds() -> u64 {
    let ticks: u64 = processes().iter().map(|process| process.cpu_ticks).fold(0, u64::saturating_add);
    crate::sys::children_cpu_microseconds().saturating_add(ticks.saturating_mul(TICK_MICROSECONDS))
}

/// Bytes of private and shared memory of all processes, without file pages.
pub(crate) fn memory_bytes() -> u64 {
    let own = std::fs::read("/proc/self/status").ok().and_then(|status| parse_status(&status)).unwrap_or_default();
    processes().iter().filter_map(|process| memory_of(process.pid)).fold(own, u64::saturating_add)
}

/// Memory of a process, from its first thread that still has any: a leader that has left tells none.
pub(crate) fn memory_of(pid: Pid) -> Option<u64> {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let status = std::fs::read(format!("{folder}/status")).ok().and_then(|status| parse_status(&status));
    status.or_else(|| {
        let threads = std::fs::read_dir(format!("{folder}/task")).ok()?;
        threads.flatten().find_map(|thread| parse_status(&std::fs::read(thread.path().join("status")).ok()?))
    })
}

/// Whether a process has given up what a worker gives up, as the kernel tells it: who forks for us is trusted to do it, and checked.
pub(crate) fn is_confined(pid: Pid, filtered: bool) -> bool {
    std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).is_ok_and(|status| parse_confinement(&status, filtered))
}

/// Reads users, groups, capabilities, `no_new_privs` and seccomp of a `/proc/<pid>/status`.
#[must_use]
pub fn parse_confinement(status: &str, filtered: bool) -> bool {
    let is = |name: &str, accept: fn(&str) -> bool| {
        let mut values = status.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.next().is_some_and(accept) && values.next().is_none()
    };
    let nothing: fn(&str) -> bool = |text| u64::from_str_radix(text.trim(), 16) == Ok(0);
    let inside: fn(&str) -> bool = |text| text.split_ascii_whitespace().eq(["1000"; 4]);
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].into_iter().all(|set| is(set, nothing))
        && is("Uid", inside)
        && is("Gid", inside)
        && is("NoNewPrivs", |text| text.trim() == "1")
        // One that had a second thread could have left it out.
        && is("Threads", |text| text.trim() == "1")
        // The template's filter, that of all processes, and the worker's own.
        && (!filtered || is("Seccomp", |text| text.trim() == "2") && is("Seccomp_filters", |text| text.trim().parse::<u32>().is_ok_and(|count| count >= 3)))
}

/// Adds up `RssAnon` and `RssShmem` of a `/proc/<pid>/status`, in bytes; `None` where it has neither.
#[must_use]
pub fn parse_status(text: &[u8]) -> Option<u64> {
    let mut kibibytes = None;
    for line in text.split(|byte| *byte == b'\n') {
        let value = line.strip_prefix(b"RssAnon:").or_else(|| line.strip_prefix(b"RssShmem:"));
        let number = value.and_then(|value| std::str::from_utf8(value).ok()).and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        if let Some(number) = number {
            kibibytes = Some(number.saturating_add(kibibytes.unwrap_or_default()));
        }
    }
    kibibytes.map(|kibibytes| kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_fields() {
        let text = b"42 (x) Z 1 (y) 7) S 12 42 42 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 1 0 9 1 1";
        let process = parse_stat(text).unwrap();
        assert_eq!((process.pid.as_raw_nonzero().get(), process.parent.unwrap().as_raw_nonzero().get()), (42, 12));
        assert_eq!((process.zombie, process.cpu_ticks), (false, 210));
        let left = |threads| parse_stat(format!("42 (x) Z 12 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 {threads} 0 9 1 1").as_bytes()).unwrap().zombie;
        assert!(left(1) && !left(2), "threads outlive their leader");
        assert_eq!(parse_stat(b"42 (x) S -1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 9 1 1").unwrap().parent, None);
        for broken in [
            &b""[..],
            b"-42 (x) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 9 1 1",
            b"42",
            b"42 (",
            b"42 (x)",
            b"42 (x) S",
            b")(",
            b"x (y) S 1 1 1 1 1 1 1 1 1 1 1 1",
        ] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_worker_is_confined_when_every_line_says_so() {
        let good = "Name:\tpython\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
            CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nThreads:\t1\n";
        assert!(parse_confinement(good, true));
        assert!(parse_confinement(&good.replace("Seccomp:\t2", "Seccomp:\t0"), false));
        for (from, to) in [
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("Uid:\t1000\t1000\t1000\t1000", "Uid:\t1000\t0\t1000\t1000"),
            ("Gid:\t1000", "Gid:\t65534"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000200000"),
            ("CapPrm:\t0000000000000000\n", ""),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp_filters:\t3", "Seccomp_filters:\t1"),
            ("Threads:\t1", "Threads:\t2"),
            ("Name:\tpython", "NoNewPrivs:\t1"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(!parse_confinement(&bad, true), "{from} → {to}");
        }
    }

    #[test]
    fn memory_is_anonymous_and_shared_but_not_files() {
        assert_eq!(parse_status(b"Name:\tx\nRssAnon:\t    100 kB\nRssFile:\t 900 kB\nRssShmem:\t      4 kB\n"), Some(104 * 1024));
        assert_eq!(parse_status(b"RssAnon:\nRssShmem:\tx kB\n"), None);
    }
}
