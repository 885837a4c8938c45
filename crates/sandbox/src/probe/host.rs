//! What the host says of itself: settings of its kernel, and the processes, groups and mounts that belong to a sandbox.
//! Only reads files, and takes the root they stand under, so that tests can show it other hosts.

use std::fs;
use std::path::{Path, PathBuf};

/// First host user id of sandboxes and how many there are: those of the launcher, whose map must have them all.
const OWN_USERS: (u64, u64) = (0x7000_0000, 0x0fff_0000);
/// `CAP_SYS_ADMIN` in a mask of capabilities.
const SYS_ADMIN: u64 = 1 << 21;

/// The host, seen through its files.
#[derive(Debug)]
pub(super) struct Host {
    root: PathBuf,
    /// Effective user of this process.
    pub(super) uid: u32,
}

impl Host {
    /// This host.
    pub(super) fn this() -> Self {
        Self { root: PathBuf::from("/"), uid: rustix::process::geteuid().as_raw() }
    }

    /// A host whose files stand below `root`.
    #[cfg(test)]
    pub(super) fn below(root: &Path, uid: u32) -> Self {
        Self { root: root.to_owned(), uid }
    }

    /// A file, without the white space around its content.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let path = Path::new(path);
        fs::read_to_string(self.root.join(path.strip_prefix("/").unwrap_or(path))).ok().map(|text| text.trim().to_owned())
    }

    /// A kernel setting by its dotted name.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        self.read(&format!("/proc/sys/{}", name.replace('.', "/")))
    }

    /// A kernel setting that is a number.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    /// A line of this process's status.
    pub(super) fn own_status(&self, name: &str) -> Option<String> {
        field(&self.read("/proc/self/status")?, name).map(str::to_owned)
    }

    /// Started as root, with every user id that sandboxes may get.
    pub(super) fn is_root(&self) -> bool {
        self.uid == 0 && covers(&self.read("/proc/self/uid_map").unwrap_or_default(), OWN_USERS)
    }

    /// Whether this process may administer its own namespaces.
    pub(super) fn has_sys_admin(&self) -> bool {
        self.own_status("CapEff").and_then(|mask| u64::from_str_radix(&mask, 16).ok()).is_some_and(|mask| mask & SYS_ADMIN != 0)
    }

    /// Something has put a system call filter on this process, as container engines do.
    pub(super) fn is_filtered(&self) -> bool {
        self.own_status("Seccomp").is_some_and(|mode| mode == "2")
    }

    /// What is mounted over parts of `/proc`: it takes away the completeness that a new one needs.
    pub(super) fn mounts_below_proc(&self) -> Vec<String> {
        // Folders made to be mounted on: the kernel does not count them.
        const HARMLESS: [&str; 2] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];
        let mounts = self.read("/proc/self/mountinfo").unwrap_or_default();
        let places = mounts.lines().filter_map(Mount::parse).map(|mount| mount.place);
        places.filter(|place| place.starts_with("/proc/") && !HARMLESS.contains(place)).map(str::to_owned).collect()
    }

    /// The first process of the sandbox that `ancestor` has started; the oldest, where there are more.
    pub(super) fn init_below(&self, ancestor: u32) -> Option<u32> {
        let mut processes: Vec<(u32, u32)> = Vec::new();
        for entry in fs::read_dir(self.root.join("proc")).ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if let Some(parent) = self.read(&format!("/proc/{pid}/stat")).as_deref().and_then(parent_of) {
                processes.push((pid, parent));
            }
        }
        processes.sort_unstable();
        let parent = |of: u32| processes.iter().find(|(pid, _)| *pid == of).map(|(_, parent)| *parent);
        let descends = |mut pid: u32| {
            for _ in 0..processes.len() {
                match parent(pid) {
                    Some(found) if found == ancestor => return true,
                    Some(found) => pid = found,
                    None => return false,
                }
            }
            false
        };
        let is_init = |pid: u32| self.read(&format!("/proc/{pid}/cmdline")).is_some_and(|line| line.starts_with("belljar-init\0"));
        processes.iter().map(|(pid, _)| *pid).find(|pid| descends(*pid) && is_init(*pid))
    }

    /// The folder of a process's control group in the tree with this controller (empty: version 2).
    pub(super) fn group_of(&self, pid: u32, controller: &str) -> Option<PathBuf> {
        let groups = self.read(&format!("/proc/{pid}/cgroup"))?;
        let path = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let same = if controller.is_empty() { controllers.is_empty() } else { controllers.split(',').any(|name| name == controller) };
            same.then_some(path)
        })?;
        let mounts = self.read("/proc/self/mountinfo")?;
        let (root, place) = mounts.lines().find_map(|line| {
            let mount = Mount::parse(line)?;
            let same = match mount.kind {
                "cgroup2" => controller.is_empty(),
                "cgroup" => !controller.is_empty() && mount.super_options.split(',').any(|name| name == controller),
                _ => false,
            };
            same.then_some((mount.root, mount.place))
        })?;
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path).trim_start_matches('/');
        Some(Path::new(place).join(below))
    }

    /// A file of a process's control group in the tree with this controller.
    pub(super) fn group_file(&self, pid: u32, (controller, file): (&str, &str)) -> Option<String> {
        self.read(&self.group_of(pid, controller)?.join(file).display().to_string())
    }
}

/// A line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount<'a> {
    pub(super) root: &'a str,
    pub(super) place: &'a str,
    pub(super) options: &'a str,
    pub(super) kind: &'a str,
    pub(super) super_options: &'a str,
}

impl<'a> Mount<'a> {
    /// Reads a line.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, place, options) = (before.next()?, before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, super_options) = (after.next()?, after.nth(1)?);
        Some(Self { root, place, options, kind, super_options })
    }

    /// Whether an option stands in the list.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

/// The value of a line `Name:\tvalue`.
pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The parent in a process's `stat`. Its name may hold anything, so fields count from the end of it.
fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a `uid_map` has the whole range.
fn covers(map: &str, (first, count): (u64, u64)) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(start)), Some(Ok(_)), Some(Ok(length))) = (numbers.next(), numbers.next(), numbers.next()) else { return false };
        start <= first && first + count <= start.saturating_add(length)
    })
}

/// Major and minor number of a kernel release such as `6.8.0-41-generic`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let place = folder.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, text).unwrap();
        }
        let host = Host::below(folder.path(), 0);
        (folder, host)
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.8.0-41-generic"), Some((6, 8)));
        assert_eq!(version("5.10-custom"), Some((5, 10)));
        assert_eq!((version(""), version("six.1")), (None, None));
    }

    #[test]
    fn root_is_who_has_every_id() {
        let (_folder, host) =
            host(&[("proc/self/uid_map", "         0          0 4294967295\n"), ("proc/self/status", "CapEff:\t0000000000200000\nSeccomp:\t2\n")]);
        assert!(host.is_root() && host.has_sys_admin() && host.is_filtered());
        assert!(!covers("0 100000 65536\n", OWN_USERS) && !covers("0 0\n", OWN_USERS) && !covers("", OWN_USERS));
    }

    #[test]
    fn init_is_found_below_its_ancestor_only() {
        let init = "belljar-init\0init\0/stage/1\0";
        let (_folder, host) = host(&[
            ("proc/10/stat", "10 (belljar) S 1 10"),
            ("proc/11/stat", "11 (a) b) S 10 11"),
            ("proc/11/cmdline", "launcher\0"),
            ("proc/12/stat", "12 (x) S 11 12"),
            ("proc/12/cmdline", init),
            ("proc/9/stat", "9 (x) S 1 9"),
            ("proc/9/cmdline", init),
            ("proc/self/stat", "10 (belljar) S 1 10"),
        ]);
        assert_eq!((host.init_below(10), host.init_below(12), host.init_below(77)), (Some(12), None, None));
    }

    #[test]
    fn the_group_of_a_process_is_found_where_it_is_mounted() {
        let mounts =
            "30 24 0:26 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let (_folder, host) = host(&[
            ("proc/self/mountinfo", mounts),
            ("proc/7/cgroup", "4:memory:/docker/x/belljar-1-2/3\n0::/a:b\n"),
            ("sys/fs/cgroup/memory/belljar-1-2/3/memory.limit_in_bytes", "5\n"),
            ("sys/fs/cgroup/unified/a:b/pids.max", "9\n"),
        ]);
        assert_eq!(host.group_of(7, "memory").unwrap(), Path::new("/sys/fs/cgroup/memory/belljar-1-2/3"));
        assert_eq!(host.group_of(7, "pids"), None);
        assert_eq!(host.group_file(7, ("memory", "memory.limit_in_bytes")).as_deref(), Some("5"));
        assert_eq!((host.group_file(7, ("", "pids.max")).as_deref(), host.group_file(7, ("", "memory.max"))), (Some("9"), None));
    }
}
