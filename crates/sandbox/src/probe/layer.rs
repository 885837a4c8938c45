//! What each layer looks like where it holds. Everything that was said inside is a claim about that sandbox alone; what the host can
//! see for itself, it does.

use std::ops::RangeInclusive;
use std::path::Path;

use super::host::{Mount, field, version};
use super::inside::{Sections, Seen};
use super::{Finding, Scene, Status};
use crate::cgroup::Version;

/// The newest Landlock interface that init knows how to use.
pub(super) const LANDLOCK_USED: u32 = 6;
/// What later Landlock interfaces brought, and what its lack means.
const LANDLOCK_FEATURES: &[(u32, &str)] = &[
    (2, "2: files cannot be moved between folders, so that tools copy them instead"),
    (3, "3: cutting a file short is not refused a second time, only by the read-only mounts"),
    (4, "4: connections are not refused a second time, only by the network namespace and the filter"),
    (5, "5: controlling devices is not refused a second time, only by the filter"),
    (6, "6: signals and abstract sockets between a worker and shell commands of one sandbox are not kept apart"),
];

/// Entries that a sandbox's root and `/home` may have.
const ROOT: &[&str] = &["bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "mnt", "opt", "proc", "run", "sandbox", "sbin", "tmp", "usr", "var"];
/// Mounts that may be written to.
const WRITABLE: &[&str] = &["/mnt/data", "/tmp", "/home/sandbox", "/dev/shm", "/proc"];
/// Device files, and what else stands beside them.
const DEVICES: &[&str] = &["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
/// The first kernel on which sandboxes start, and the first with everything.
const KERNELS: [(u32, u32); 2] = [(5, 12), (6, 12)];
/// Free bytes that the data folder should have.
const ROOM_BYTES: u64 = 2 << 30;

fn holds(detail: impl Into<String>) -> Finding {
    Finding::new(Status::Holds, detail)
}

fn bounded(detail: impl Into<String>) -> Finding {
    Finding::new(Status::Bounded, detail)
}

fn missing(detail: impl Into<String>) -> Finding {
    Finding::new(Status::Missing, detail)
}

fn info(detail: impl Into<String>) -> Finding {
    Finding::new(Status::Info, detail)
}

pub(super) fn starts(scene: &Scene<'_>) -> Finding {
    match scene.seen {
        Ok(seen) => holds(format!("started and ready in {} ms", seen.start.as_millis())),
        Err(trouble) => Finding { remedy: Some(format!("see `{}`", trouble.layer)), ..missing(&trouble.detail) },
    }
}

/// Names those of our namespaces that the sandbox shares.
fn shared<'a>(seen: &'a Seen, names: &[&'a str]) -> Vec<&'a str> {
    let same = |name: &str| {
        let inside = seen.whole.value("namespaces", name);
        inside.is_empty() || seen.own_namespaces.get(name).is_none_or(|own| own == inside)
    };
    names.iter().copied().filter(|name| same(name)).collect()
}

fn own_namespace(seen: &Seen, names: &[&str], detail: &str) -> Finding {
    let shared = shared(seen, names);
    if shared.is_empty() { holds(detail) } else { missing(format!("not seen to be apart from the host's: {}", shared.join(", "))) }
}

pub(super) fn user_namespace(seen: &Seen) -> Finding {
    match seen.whole.get("user") {
        "1000" => own_namespace(seen, &["user"], "not the host's; code runs as user 1000 of it"),
        user => missing(format!("code inside runs as user `{user}`, not 1000")),
    }
}

/// What of a listing is not expected.
fn unexpected<'a>(listing: &'a str, expected: &[&str]) -> Vec<&'a str> {
    let entries = listing.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with(':'));
    entries.filter(|entry| !expected.contains(entry)).collect()
}

pub(super) fn file_tree(seen: &Seen) -> Finding {
    let foreign = unexpected(seen.whole.get("root"), ROOT);
    if !foreign.is_empty() || seen.whole.get("root").is_empty() {
        return missing(format!("the root inside shows more than it should: {}", foreign.join(", ")));
    }
    let loose = loose_mounts(seen.whole.get("mounts"));
    if !loose.is_empty() {
        return missing(format!("mounts that could be written to, or that honour set-user-id: {}", loose.join(", ")));
    }
    own_namespace(seen, &["mnt"], "the system read-only, no /sys, no home, no data of the host; only workspace, /tmp, /dev/shm and home are writable")
}

/// Mounts that are writable where they should not be, or give more than files.
fn loose_mounts(mountinfo: &str) -> Vec<&str> {
    let loose = |mount: &Mount<'_>| {
        let device = mount.place.starts_with("/dev/") && mount.place != "/dev/shm";
        !mount.has("nosuid") || !(mount.has("nodev") || device) || !(mount.has("ro") || WRITABLE.contains(&mount.place))
    };
    if mountinfo.is_empty() {
        return vec!["(none was seen)"];
    }
    mountinfo.lines().filter_map(Mount::parse).filter(loose).map(|mount| mount.place).collect()
}

/// Entries of `/proc` inside: processes, and what is none.
fn proc_entries(seen: &Seen) -> (usize, Vec<&str>) {
    let (processes, rest): (Vec<&str>, Vec<&str>) = seen.whole.get("proc").lines().partition(|entry| entry.bytes().all(|byte| byte.is_ascii_digit()));
    (processes.len(), rest.into_iter().filter(|entry| !matches!(*entry, "self" | "thread-self")).collect())
}

pub(super) fn processes(seen: &Seen) -> Finding {
    match proc_entries(seen).0 {
        0 => missing("no process is visible inside, which cannot be"),
        count @ 1..=8 => own_namespace(seen, &["pid"], &format!("{count} processes visible inside, all of the sandbox")),
        count => missing(format!("{count} processes are visible inside, more than the sandbox has")),
    }
}

pub(super) fn proc(seen: &Seen) -> Finding {
    match proc_entries(seen) {
        (0, _) => missing("empty"),
        (_, rest) if rest.is_empty() => holds("nothing but its own processes: no /proc/sys, no kernel files"),
        (_, rest) => missing(format!("it also shows {}", rest.join(", "))),
    }
}

pub(super) fn devices(seen: &Seen) -> Finding {
    let foreign = unexpected(seen.whole.get("devices"), DEVICES);
    if foreign.is_empty() && !seen.whole.get("devices").is_empty() {
        holds("null, zero, full, random, urandom")
    } else {
        missing(format!("/dev inside also has {}", foreign.join(", ")))
    }
}

pub(super) fn network(seen: &Seen) -> Finding {
    let interfaces: Vec<&str> = seen.whole.get("interfaces").lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    if interfaces != ["lo"] {
        return missing(format!("interfaces inside: {}", interfaces.join(", ")));
    }
    let connected = |sections: &Sections| sections.get("connect").lines().any(|line| line == "connected");
    match seen.reached {
        Some(true) => missing("a connection from inside reached a listener on the host's loopback"),
        _ if connected(&seen.whole) || connected(&seen.bare) => missing("a connection from inside to 127.0.0.1 succeeded"),
        Some(false) => {
            own_namespace(seen, &["net"], "only a loopback that is down; a connection to a listener on the host failed, with the filter and without")
        }
        None => own_namespace(seen, &["net"], "only a loopback that is down"),
    }
}

pub(super) fn other_namespaces(seen: &Seen) -> Finding {
    own_namespace(seen, &["ipc", "uts", "cgroup"], "none of them is the host's")
}

/// Values of a status line inside and, where it could be read, of init as seen from outside.
fn status_lines<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let inside = field(seen.whole.get("status"), name).unwrap_or_default();
    std::iter::once(inside).chain(seen.init_status.as_deref().map(|status| field(status, name).unwrap_or_default())).collect()
}

pub(super) fn capabilities(seen: &Seen) -> Finding {
    let empty = |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte == b'0');
    let set: Vec<&str> = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].into_iter().filter(|name| !status_lines(seen, name).iter().all(empty)).collect();
    if set.is_empty() {
        holds("inherited, permitted, effective, bounding and ambient sets are empty")
    } else {
        missing(format!("not empty: {}", set.join(", ")))
    }
}

pub(super) fn no_new_privileges(seen: &Seen) -> Finding {
    if status_lines(seen, "NoNewPrivs").iter().all(|value| *value == "1") {
        holds("no_new_privs is set, and every mount is nosuid")
    } else {
        missing("no_new_privs is not set")
    }
}

pub(super) fn nested(seen: &Seen) -> Finding {
    let nested = |sections: &Sections| sections.get("nested").lines().any(|line| line == "nested");
    match (seen.whole.get("nested"), seen.bare.get("nested")) {
        _ if nested(&seen.whole) || nested(&seen.bare) => missing("`unshare -U` succeeds inside"),
        // Init refuses to start where it cannot set the limit.
        ("", "") => holds("their number is limited to 0 (not tried: this host has no `unshare` program)"),
        _ => holds("`unshare -U` was refused, by the filter and, without it, by a limit of 0"),
    }
}

pub(super) fn own_users(seen: &Seen) -> Finding {
    let own = rustix::process::geteuid().as_raw();
    match seen.users {
        [Some(one), Some(other)] if one != other && ![0, own].contains(&one) && ![0, own].contains(&other) => {
            holds(format!("two sandboxes at once were the host users {one} and {other}"))
        }
        [Some(_), Some(_)] if own == 0 => Finding {
            remedy: Some(
                "run belljar as root of the host, or as an ordinary user; the user namespace it is in lacks the user ids from 1879048192 on".to_owned(),
            ),
            ..missing("all sandboxes are user 0 of a user namespace around belljar, whoever that is outside; it may be root")
        },
        [Some(one), Some(_)] => missing(format!("all sandboxes are the host user {one}, which is who belljar runs as")),
        _ => missing("the owner of a file made inside could not be seen"),
    }
}

pub(super) fn seccomp(seen: &Seen) -> Finding {
    if !status_lines(seen, "Seccomp").iter().all(|mode| *mode == "2") {
        return missing("no filter is in force inside");
    }
    let refused = |sections: &Sections| sections.get("connect").contains("Operation not permitted");
    let filters = field(seen.whole.get("status"), "Seccomp_filters").map_or_else(String::new, |count| format!("{count} filters; "));
    match (refused(&seen.whole), refused(&seen.bare)) {
        (true, false) => holds(format!("{filters}`socket` was refused inside; in a sandbox without the filter it was not")),
        (true, true) => bounded(format!("{filters}`socket` was refused, but without the filter as well: something else refuses it too")),
        (false, _) => bounded(format!("{filters}no attempt to tell that it refuses: bash of this host has no /dev/tcp")),
    }
}

pub(super) fn landlock(seen: &Seen) -> Finding {
    let ran = |sections: &Sections| sections.get("execute").lines().any(|line| line == "executed");
    let in_force = seen.landlock.min(LANDLOCK_USED);
    match (seen.landlock, ran(&seen.whole), ran(&seen.bare)) {
        (0, ..) => missing("this kernel has none, or it is switched off"),
        (_, true, _) => missing(format!("interface {in_force}, but a program ran from a folder where none may")),
        (_, false, false) => bounded(format!("interface {in_force}, but no attempt could tell: the program did not run without Landlock either")),
        (kernel, false, true) => {
            let lacking: Vec<&str> = LANDLOCK_FEATURES.iter().filter(|(since, _)| *since > kernel).map(|(_, text)| *text).collect();
            let detail = format!(
                "interface {in_force} of {LANDLOCK_USED} in force (this kernel has {kernel}); running a program from /dev/shm was refused; in a sandbox without Landlock it was not"
            );
            if lacking.is_empty() {
                holds(detail)
            } else {
                Finding { means: Some(format!("what later interfaces bring is not in force: {}", lacking.join("; "))), ..bounded(detail) }
            }
        }
    }
}

/// The hard limit of a row of `/proc/self/limits`.
fn hard_limit<'a>(limits: &'a str, name: &str) -> &'a str {
    limits.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().nth(1)).unwrap_or_default()
}

/// The limit that keeps crashes inside from leaving a file, and the host from starting its helper for them.
const CORE_LIMIT: &str = "Max core file size";

pub(super) fn process_limits(seen: &Seen) -> Finding {
    let open_files = seen.limits.open_files.to_string();
    let counted = !matches!(seen.group.version, Version::None(_));
    let processes = seen.limits.process_rlimit(counted).to_string();
    let expected = [(CORE_LIMIT, "1"), ("Max locked memory", "0"), ("Max open files", &open_files), ("Max processes", &processes)];
    let found = expected.map(|(name, expected)| (name, expected, hard_limit(seen.whole.get("limits"), name)));
    let wrong: Vec<String> =
        found.iter().filter(|(_, expected, found)| expected != found).map(|(name, expected, found)| format!("`{name}` is `{found}`, not {expected}")).collect();
    if wrong.is_empty() { holds("open files, processes, locked memory and core size as set for this sandbox") } else { missing(wrong.join("; ")) }
}

pub(super) fn tmpfs(seen: &Seen) -> Finding {
    let full = seen.whole.get("full");
    let endless: Vec<&str> = ["/mnt/data", "/tmp", "/dev/shm"].into_iter().filter(|folder| !full.lines().any(|line| line == *folder)).collect();
    match (endless.is_empty(), seen.whole.get("files")) {
        (true, "refused") => holds("all three refused to grow over their size, and the workspace over its number of files"),
        (true, _) => missing("the workspace took more files than its limit"),
        (false, _) => missing(format!("took more than their size: {}", endless.join(", "))),
    }
}

/// Whether a limit of the control group reads as it was set. `without` is the answer where there is none, from the reason.
fn group_limit(seen: &Seen, found: Option<&str>, (expected, unit): (&str, &str), without: fn(&str) -> Finding) -> Finding {
    let version = match &seen.group.version {
        Version::V2 => "v2",
        Version::V1 => "v1",
        Version::None(reason) => return without(reason),
    };
    match found {
        Some(found) if found == expected => holds(format!("cgroup {version}; {expected} {unit}, as set for this sandbox, were read back from outside")),
        Some(found) => missing(format!("cgroup {version} has {found} {unit} where {expected} were set")),
        None => without(&format!("cgroup {version}, but no such limit could be read for the sandbox's first process")),
    }
}

/// The reason stands at the first layer that needs control groups.
const NO_GROUP: &str = "no control group, see `cgroup-memory`";

pub(super) fn memory(seen: &Seen) -> Finding {
    let expected = seen.limits.memory_bytes.saturating_add(seen.limits.files_bytes()).to_string();
    group_limit(seen, seen.group.memory.as_deref(), (&expected, "bytes"), |reason| {
        bounded(format!("by RLIMIT_DATA and the watchdog; no control group: {reason}"))
    })
}

pub(super) fn pids(seen: &Seen) -> Finding {
    let expected = seen.limits.processes.saturating_add(3).to_string();
    group_limit(seen, seen.group.processes.as_deref(), (&expected, "processes"), |_| bounded(format!("by RLIMIT_NPROC; {NO_GROUP}")))
}

pub(super) fn cpu(seen: &Seen) -> Finding {
    group_limit(seen, seen.group.cpu.as_deref(), ("100000 100000", "microseconds (quota and period)"), |_| missing(NO_GROUP))
}

pub(super) fn freezer(seen: &Seen) -> Finding {
    match &seen.group.version {
        Version::None(_) => missing(NO_GROUP),
        _ if seen.group.frozen => holds("the sandbox stopped and went on when asked; used while its files are copied out"),
        version => missing(format!("cgroup {version:?} did not report the sandbox as stopped").to_lowercase()),
    }
}

/// Whether the host has swap; the first line of the file is its heading.
fn has_swap(scene: &Scene<'_>) -> Option<bool> {
    scene.host.read("/proc/swaps").map(|text| text.lines().count() > 1)
}

pub(super) fn swap_accounting(scene: &Scene<'_>) -> Finding {
    let limit = scene.seen.as_ref().ok().and_then(|seen| seen.group.swap.as_deref());
    match (has_swap(scene), limit) {
        (Some(false), _) => holds("this host has no swap"),
        (_, Some(limit)) if limit == "0" || scene.seen.as_ref().is_ok_and(|seen| seen.group.memory.as_deref() == Some(limit)) => {
            holds("the sandbox's group may use none")
        }
        (Some(true), _) => missing("this host has swap, and no control group counts it for the sandbox"),
        (None, _) => missing("whether this host has swap cannot be read"),
    }
}

pub(super) fn memfd(scene: &Scene<'_>) -> Finding {
    let value = scene.host.setting("vm.memfd_noexec");
    let setting = value.as_deref().map_or_else(|| "this kernel has no setting against it".to_owned(), |value| format!("vm.memfd_noexec is {value}"));
    match (scene.seen, value.as_deref()) {
        (Ok(_), _) => holds(format!("it runs; {setting}")),
        (Err(_), Some("2")) => missing(setting),
        (Err(_), _) => Finding { means: Some("not known: no sandbox runs".to_owned()), remedy: Some("nothing to do".to_owned()), ..info(setting) },
    }
}

pub(super) fn kernel(scene: &Scene<'_>) -> Finding {
    let _ = scene;
    let release = super::release();
    let [first, best] = KERNELS;
    match version(&release) {
        Some(found) if found >= best => holds(release),
        Some(found) if found >= first => bounded(format!("{release}: old enough to lack something; see `landlock`")),
        Some(_) => missing(format!("{release} is too old")),
        None => info(format!("{release}: not a release number that can be compared")),
    }
}

pub(super) fn kvm(scene: &Scene<'_>) -> Finding {
    let _ = scene;
    info(match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => "/dev/kvm is there, and this user may open it".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "there is no /dev/kvm".to_owned(),
        Err(error) => format!("/dev/kvm cannot be opened: {error}"),
    })
}

pub(super) fn environment(scene: &Scene<'_>) -> Finding {
    let name = scene.place.environment;
    match scene.place.built {
        Some(built) => holds(format!("`{name}` is built: {built}")),
        None => Finding { remedy: Some(format!("`belljar env build {name}` builds it ahead of time")), ..info(format!("`{name}` is not built yet")) },
    }
}

pub(super) fn data_folder(scene: &Scene<'_>) -> Finding {
    let data = scene.place.data;
    let Some(there) = data.ancestors().find(|folder| folder.is_dir()).or(Some(Path::new("."))) else { return info("no folder") };
    if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() {
        return info(format!("`{}` cannot be written by this user", data.display()));
    }
    match rustix::fs::statvfs(there) {
        Ok(facts) => {
            let free = facts.f_bavail.saturating_mul(facts.f_frsize);
            let detail = format!("{:.1} GiB free for `{}`", gibibytes(free), data.display());
            if free >= ROOM_BYTES { holds(detail) } else { info(detail) }
        }
        Err(error) => info(format!("the room for `{}` cannot be told: {error}", data.display())),
    }
}

fn gibibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let bytes = bytes as f64;
    bytes / 1_073_741_824.0
}

/// A kernel setting and the values that are recommended.
pub(super) fn setting(scene: &Scene<'_>, name: &str, recommended: RangeInclusive<i64>) -> Finding {
    let wanted = match (*recommended.start(), *recommended.end()) {
        (low, high) if low == high => low.to_string(),
        (low, i64::MAX) => format!("{low} or more"),
        (low, high) => format!("{low} or {high}"),
    };
    match scene.host.number(name) {
        Some(value) if recommended.contains(&value) => holds(format!("{name} is {value}")),
        Some(value) => info(format!("{name} is {value}; recommended: {wanted}")),
        None => Finding {
            remedy: Some("use a newer kernel, which has the setting, or one built without the feature".to_owned()),
            ..info(format!("this kernel has no setting {name}"))
        },
    }
}

/// A file that says 0 where something is off, as is recommended.
pub(super) fn switch(scene: &Scene<'_>, path: &str) -> Finding {
    match scene.host.read(path).as_deref() {
        Some("0" | "2") => holds("off"),
        Some(_) => info("on; recommended: off"),
        None => holds("this kernel has none"),
    }
}

pub(super) fn core_pattern(scene: &Scene<'_>) -> Finding {
    // The kernel starts no helper for a process whose core size limit is 1 byte.
    let spared = scene.seen.as_ref().is_ok_and(|seen| hard_limit(seen.whole.get("limits"), CORE_LIMIT) == "1");
    match scene.host.setting("kernel.core_pattern") {
        Some(pattern) if pattern.starts_with('|') && spared => {
            holds("a helper is set, but the kernel starts none for crashes inside: their core size limit is 1 byte")
        }
        Some(pattern) if pattern.starts_with(['|', '@']) => info(format!("kernel.core_pattern is `{pattern}`; recommended: a plain file name")),
        Some(pattern) => holds(format!("kernel.core_pattern is `{pattern}`: no helper")),
        None => info("kernel.core_pattern cannot be read"),
    }
}

pub(super) fn swap(scene: &Scene<'_>) -> Finding {
    match has_swap(scene) {
        Some(true) => info("on; recommended: off"),
        Some(false) => holds("off"),
        None => info("/proc/swaps cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_told_is_the_one_that_init_uses() {
        let source = include_str!("../../../guest/src/confine.rs");
        assert!(source.contains(&format!("KNOWN_ABI: ABI = ABI::V{LANDLOCK_USED};")), "LANDLOCK_USED and init's KNOWN_ABI must be the same");
        assert_eq!(LANDLOCK_FEATURES.last().map(|(since, _)| *since), Some(LANDLOCK_USED));
    }

    #[test]
    fn loose_mounts_are_found() {
        let strict = "1 0 0:1 / / ro,nosuid,nodev - tmpfs tmpfs rw\n2 1 0:2 /null /dev/null ro,nosuid - devtmpfs devtmpfs rw\n3 1 0:3 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw\n";
        assert_eq!(loose_mounts(strict), Vec::<&str>::new());
        let loose = "1 0 0:1 / / rw,nosuid,nodev - tmpfs x rw\n2 1 0:2 / /usr ro,nodev - ext4 x rw\n3 1 0:3 / /dev/shm rw,nosuid - tmpfs x rw\n4 1 0:3 / /opt/env ro,nosuid - ext4 x rw\n";
        assert_eq!(loose_mounts(loose), ["/", "/usr", "/dev/shm", "/opt/env"]);
        assert_eq!(loose_mounts("").len(), 1, "nothing seen is nothing proved");
    }

    #[test]
    fn limits_are_read_by_their_row() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax core file size        0                    1                    bytes     \n";
        assert_eq!((hard_limit(limits, CORE_LIMIT), hard_limit(limits, "Max processes"), hard_limit("", "")), ("1", "", ""));
    }

    #[test]
    fn listings_are_compared() {
        assert_eq!(unexpected("bin\nroot\n/home:\nsandbox\n", ROOT), ["root"]);
        assert_eq!(unexpected("null\nkvm\n", DEVICES), ["kvm"]);
    }
}
