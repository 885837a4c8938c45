//! How much memory this host has left for sandboxes.

use std::fs;
use std::path::Path;

/// Bytes that can still be used: the host's, or those of the control group this process is in where that is less. `None` where nothing tells.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let host = parse_meminfo(&fs::read_to_string("/proc/meminfo").ok()?);
    [host, group_bytes(Path::new("/sys/fs/cgroup"))].into_iter().flatten().min()
}

/// `MemAvailable` of a `/proc/meminfo`, in bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes.saturating_mul(1024))
}

/// What the limit of the group mounted here leaves, as a container sees its own; page cache counts as free.
fn group_bytes(mounted: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(mounted.join(file)).ok();
    let number = |file: &str| read(file).and_then(|text| text.trim().parse::<u64>().ok());
    let of_stat = |file: &str, name: &str| {
        let text = read(file)?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    let (limit, used, stat) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?, "memory.stat"),
        None => (number("memory/memory.limit_in_bytes")?, number("memory/memory.usage_in_bytes")?, "memory/memory.stat"),
    };
    let cache = of_stat(stat, "inactive_file").or_else(|| of_stat(stat, "total_inactive_file")).unwrap_or_default();
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

/// Reads a text as the file that is read here, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_all(text: &str) -> usize {
    usize::from(parse_meminfo(text).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_in_kibibytes() {
        assert_eq!(parse_meminfo("MemTotal: 100 kB\nMemAvailable:   12 kB\n"), Some(12 * 1024));
        assert_eq!(parse_meminfo("MemAvailable: x kB\n"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_group_leaves_what_its_limit_says() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(group_bytes(folder.path()), None);
        for (file, text) in [("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", "anon 1\ninactive_file 200\n")] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        assert_eq!(group_bytes(folder.path()), Some(500));
        fs::write(folder.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(group_bytes(folder.path()), None);
    }
}
