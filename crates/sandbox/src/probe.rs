//! What holds on this host, layer by layer: the answer of `belljar doctor`.
//!
//! [`LAYERS`] is the closed list. A layer holds only where it was seen to hold: two real sandboxes are started and looked at from
//! inside ([`inside`]); where none starts, the failed step leads to the layer to blame and its remedy ([`start`]).

use std::path::Path;

use serde::Serialize;

use crate::backend::{BACKENDS, Controls};
use crate::cgroup::Version;
use crate::limits::Limits;

mod host;
mod inside;
mod layer;
mod start;

use host::Host;
use inside::{Blind, Seen};
use start::Trouble;

/// How a layer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was seen in force, or is as recommended.
    Holds,
    /// A weaker form is in force; the detail says which.
    Bounded,
    /// It is not in force, or nothing could be seen of it.
    Missing,
    /// A fact that decides nothing.
    Info,
}

/// A layer: one entry for each thing that can be said about a host.
#[derive(Debug)]
pub struct Layer {
    /// Its name in JSON and in the key `require`.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    probe: Probe,
    /// What follows where it does not hold.
    pub means: &'static str,
    /// How to get it.
    pub remedy: &'static str,
}

/// How a layer is looked at.
#[derive(Debug)]
enum Probe {
    /// In a sandbox that runs.
    Inside(fn(&Seen) -> Finding),
    /// From outside, whether a sandbox runs or not.
    Host(fn(&Scene<'_>) -> Finding),
}

/// What was found of a layer.
#[derive(Debug)]
struct Finding {
    status: Status,
    detail: String,
    /// Instead of what the table says.
    means: Option<String>,
    remedy: Option<String>,
}

impl Finding {
    fn new(status: Status, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), means: None, remedy: None }
    }
}

/// What probes look at.
struct Scene<'a> {
    host: &'a Host,
    seen: &'a Result<Seen, Trouble>,
    place: &'a Place<'a>,
}

/// What the caller knows of the place where belljar keeps its things.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The data folder; it need not be there.
    pub data: &'a Path,
    /// Name of the environment that code runs in.
    pub environment: &'a str,
    /// That environment in words, where it is built.
    pub built: Option<&'a str>,
    /// The limits that are configured: the host has to allow them.
    pub limits: Limits,
}

/// One layer of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// How it is doing.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// What follows where it does not hold.
    pub means: String,
    /// How to get it.
    pub remedy: String,
    /// The configuration demands it.
    pub required: bool,
    /// Nothing is known: no sandbox ran to look from.
    #[serde(skip)]
    pub unseen: bool,
}

impl Checked {
    /// Whether a demand for it is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        matches!(self.status, Status::Holds | Status::Bounded)
    }
}

/// What is known of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The isolation backend.
    pub backend: &'static str,
    /// What it shares with the host.
    pub isolation: &'static str,
    /// Release of the kernel.
    pub kernel: String,
    /// Architecture of the machine.
    pub arch: &'static str,
    /// `root`: may give each sandbox a host user of its own; else `ordinary`.
    pub user: &'static str,
    /// `root-cgroups`, `root`, `user-cgroups` or `user`: what a test may expect.
    pub tier: &'static str,
    /// Every layer, in the table's order.
    pub layers: Vec<Checked>,
    /// Ids of the layers that are missing.
    pub missing: Vec<&'static str>,
    /// Every layer that the configuration demands holds, or is bounded.
    pub ok: bool,
}

/// What `isolation` means, in one sentence.
pub const SHARED_KERNEL: &str = "code in a sandbox talks to the kernel of this host, through the system calls that the filter lets pass. A fault in the kernel \
     that they reach is a way out, so give tenants that are hostile to each other machines of their own.";

/// Looks at this host. Takes some tenths of a second; leaves nothing behind.
#[must_use]
pub fn examine(place: &Place<'_>, require: &[String]) -> Report {
    let host = Host::this();
    let seen = inside::look(&host, inside::limits(&place.limits), Controls::default()).map_err(|blind: Blind| start::explain(&blind, &host));
    let scene = Scene { host: &host, seen: &seen, place };
    let layers: Vec<Checked> = LAYERS.iter().map(|layer| check(layer, &scene, require)).collect();
    let root = host.is_root();
    let cgroups = seen.as_ref().is_ok_and(|seen| !matches!(seen.group.version, Version::None(_)));
    Report {
        backend: BACKENDS.first().map_or("none", |(name, _)| name),
        isolation: "shared kernel",
        kernel: release(),
        arch: std::env::consts::ARCH,
        user: if root { "root" } else { "ordinary" },
        tier: match (root, cgroups) {
            (true, true) => "root-cgroups",
            (true, false) => "root",
            (false, true) => "user-cgroups",
            (false, false) => "user",
        },
        missing: layers.iter().filter(|layer| layer.status == Status::Missing).map(|layer| layer.id).collect(),
        ok: layers.iter().all(|layer| !layer.required || layer.is_met()),
        layers,
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn check(layer: &Layer, scene: &Scene<'_>, require: &[String]) -> Checked {
    let blamed = scene.seen.as_ref().err().filter(|trouble| trouble.layer == layer.id);
    let mut unseen = false;
    let finding = match (&layer.probe, scene.seen, blamed) {
        (_, _, Some(trouble)) => Finding { remedy: trouble.remedy.clone(), ..Finding::new(Status::Missing, &trouble.detail) },
        (Probe::Host(probe), _, _) => probe(scene),
        (Probe::Inside(probe), Ok(seen), _) => probe(seen),
        (Probe::Inside(_), Err(trouble), _) => {
            unseen = true;
            Finding {
                means: Some("not known: it can be seen only in a sandbox that runs".to_owned()),
                remedy: Some(format!("see `{}` first", trouble.layer)),
                ..Finding::new(Status::Missing, "not seen: no sandbox runs")
            }
        }
    };
    Checked {
        id: layer.id,
        title: layer.title,
        status: finding.status,
        detail: finding.detail,
        means: finding.means.unwrap_or_else(|| layer.means.to_owned()),
        remedy: finding.remedy.unwrap_or_else(|| layer.remedy.to_owned()),
        required: require.iter().any(|id| id == layer.id),
        unseen,
    }
}

/// Remedy of layers that belljar itself puts on: where they do not hold, the fault is ours.
const REPORT: &str = "this is a fault of belljar, not of the host: report it with the output of `belljar doctor --json`";
/// Remedy of namespaces that the kernel may have been built without.
const KERNEL_HAS: &str = "use a distribution's kernel: this one was built without it";
/// Remedy of limits that need control groups.
const DELEGATE: &str = "as an ordinary user, on a host with cgroup v2 and systemd: start belljar with `systemd-run --user --scope -p Delegate=yes -- belljar …`, or \
     in a service with `Delegate=yes`. On a host with cgroup v1 only root may use them: run belljar as root, or boot with \
     `systemd.unified_cgroup_hierarchy=1` on the kernel's command line. As root, nothing but a cgroup tree that is mounted and writable (in a container: \
     `--cgroupns=private` and a writable /sys/fs/cgroup)";

/// Every layer, in the order in which it is told.
pub const LAYERS: &[Layer] = &[
    Layer {
        id: "sandbox-start",
        title: "a sandbox starts",
        probe: Probe::Host(layer::starts),
        means: "nothing can be run on this host until this is solved",
        remedy: "report it with the output of `belljar doctor --json`",
    },
    Layer {
        id: "user-namespaces",
        title: "a user namespace per sandbox",
        probe: Probe::Inside(layer::user_namespace),
        means: "without it there is no sandbox: every other namespace of it belongs to this one",
        remedy: KERNEL_HAS,
    },
    Layer {
        id: "mount-namespaces",
        title: "a file tree of its own",
        probe: Probe::Inside(layer::file_tree),
        means: "code inside sees files of the host, or can write outside its workspace, /tmp, /dev/shm and home",
        remedy: REPORT,
    },
    Layer {
        id: "pid-namespaces",
        title: "processes of its own",
        probe: Probe::Inside(layer::processes),
        means: "code inside sees processes of the host or of other sandboxes, and could signal them",
        remedy: KERNEL_HAS,
    },
    Layer {
        id: "net-namespaces",
        title: "no network",
        probe: Probe::Inside(layer::network),
        means: "code inside reaches the network of the host: its services on loopback, its neighbours, the internet",
        remedy: KERNEL_HAS,
    },
    Layer {
        id: "ipc-namespaces",
        title: "ipc, host name and cgroup view of its own",
        probe: Probe::Inside(layer::other_namespaces),
        means: "code inside shares System V and POSIX queues, the host name, or the view of control groups with the host",
        remedy: KERNEL_HAS,
    },
    Layer {
        id: "proc",
        title: "a /proc of its own, processes only",
        probe: Probe::Inside(layer::proc),
        means: "code inside reads facts of the host (/proc/sys, kernel symbols, key lists), or there is no /proc at all, without which nothing runs",
        remedy: "use a kernel from 5.8 on, whose /proc can be limited to processes",
    },
    Layer {
        id: "devices",
        title: "five harmless devices only",
        probe: Probe::Inside(layer::devices),
        means: "code inside can open device files of the host",
        remedy: REPORT,
    },
    Layer {
        id: "capabilities",
        title: "no capability, in any set",
        probe: Probe::Inside(layer::capabilities),
        means: "code inside has rights over its own namespaces, and with them far more of the kernel to attack",
        remedy: REPORT,
    },
    Layer {
        id: "no-new-privileges",
        title: "no rights through set-user-id programs",
        probe: Probe::Inside(layer::no_new_privileges),
        means: "a set-user-id program could give code inside rights that it does not have",
        remedy: REPORT,
    },
    Layer {
        id: "no-nested-namespaces",
        title: "no further user namespaces inside",
        probe: Probe::Inside(layer::nested),
        means: "code inside could become root of a namespace of its own, and so reach parts of the kernel that are meant for administrators",
        remedy: "mount /proc/sys of the place that belljar starts in writable (in a container: `--security-opt systempaths=unconfined`)",
    },
    Layer {
        id: "own-users",
        title: "a host user of its own per sandbox",
        probe: Probe::Inside(layer::own_users),
        means: "all sandboxes of this user run under its own user id: they are kept apart by namespaces, filters and Landlock, and no longer by the user id if one \
                of those fails; per-user limits of the host count them together",
        remedy: "run belljar as root of the host (it starts each sandbox under an unused user id; nothing inside is root), or give each tenant's belljar a user account \
                 of its own",
    },
    Layer {
        id: "seccomp",
        title: "system call filter",
        probe: Probe::Inside(layer::seccomp),
        means: "code inside can make every system call of the kernel, and each fault in one of them is a way out",
        remedy: "use a kernel with CONFIG_SECCOMP_FILTER",
    },
    Layer {
        id: "landlock",
        title: "Landlock: file, network and signal rules",
        probe: Probe::Inside(layer::landlock),
        means: "which files may be run or written rests on mounts and the filter alone, without a second barrier behind them",
        remedy: "use a kernel from 6.12 on with CONFIG_SECURITY_LANDLOCK; where it is built in but off, add `landlock` to the `lsm=` list of the kernel's command line",
    },
    Layer {
        id: "process-limits",
        title: "limits of each process",
        probe: Probe::Inside(layer::process_limits),
        means: "one process may open more files, start more processes, lock memory, or leave core dumps to the host",
        remedy: "raise the hard limits that belljar is started with to at least those it gives (`ulimit -Hn`, `ulimit -Hu`; LimitNOFILE and LimitNPROC of the service)",
    },
    Layer {
        id: "tmpfs-limits",
        title: "sizes of workspace, /tmp and /dev/shm",
        probe: Probe::Inside(layer::tmpfs),
        means: "code inside can fill the host's memory with files",
        remedy: REPORT,
    },
    Layer {
        id: "cgroup-memory",
        title: "memory limit of the whole sandbox",
        probe: Probe::Inside(layer::memory),
        means: "not a hard bound for the sandbox: each process has a limit of its own data (RLIMIT_DATA), and a watchdog adds all of them up ten times a second, so \
                that between two looks more can be used",
        remedy: DELEGATE,
    },
    Layer {
        id: "cgroup-swap",
        title: "swap counts as memory",
        probe: Probe::Host(layer::swap_accounting),
        means: "a sandbox at its memory limit may go on in the host's swap, which slows the whole host down",
        remedy: "switch swap off (`swapoff -a`, and out of /etc/fstab), use cgroup v2, or start a v1 kernel with `swapaccount=1`",
    },
    Layer {
        id: "cgroup-pids",
        title: "process limit of the whole sandbox",
        probe: Probe::Inside(layer::pids),
        means: "held by RLIMIT_NPROC: on kernels before 5.14 it counts all processes of this user, and may refuse before the sandbox has its share",
        remedy: DELEGATE,
    },
    Layer {
        id: "cgroup-cpu",
        title: "share of the CPUs",
        probe: Probe::Inside(layer::cpu),
        means: "the limit `cpus` is not in force: a sandbox may use every CPU until its `cpu_seconds` are used up (those are watched), and slows others down meanwhile",
        remedy: DELEGATE,
    },
    Layer {
        id: "freezer",
        title: "everything inside can be stopped at once",
        probe: Probe::Inside(layer::freezer),
        means: "files are copied out while processes that code left behind may still write them: an artifact may be cut or mixed",
        remedy: DELEGATE,
    },
    Layer {
        id: "memfd-exec",
        title: "belljar may run its own helper from memory",
        probe: Probe::Host(layer::memfd),
        means: "the helper that makes sandboxes is run from sealed memory; where that is forbidden, no sandbox starts",
        remedy: "`sysctl -w vm.memfd_noexec=1` as root of the host (2 forbids it), and allow belljar to run memory files where a security module refuses it",
    },
    Layer {
        id: "kernel",
        title: "kernel release",
        probe: Probe::Host(layer::kernel),
        means: "from 5.12 on sandboxes start; from 6.12 on every Landlock rule is there",
        remedy: "use a kernel from 6.12 on, and keep it patched: it is the wall between sandboxes",
    },
    Layer {
        id: "kvm",
        title: "hardware virtualization",
        probe: Probe::Host(layer::kvm),
        means: "decides nothing today: the backend `kvm`, with a virtual machine per session, is not there yet",
        remedy: "nothing to do; for later, a machine with virtualization whose /dev/kvm this user may open",
    },
    Layer {
        id: "environment",
        title: "Python environment",
        probe: Probe::Host(layer::environment),
        means: "the first run builds it, which takes minutes, a Python from 3.11 to 3.13 and a package index",
        remedy: "`belljar env build` with its name builds it ahead of time",
    },
    Layer {
        id: "data-folder",
        title: "room for environments",
        probe: Probe::Host(layer::data_folder),
        means: "an environment may not fit, or cannot be written: one needs about 1 GiB",
        remedy: "make room, or name another folder with --data or BELLJAR_DATA",
    },
    Layer {
        id: "host-io-uring",
        title: "host: io_uring",
        probe: Probe::Host(|scene| layer::setting(scene, "kernel.io_uring_disabled", 2..=2)),
        means: "sandboxes cannot reach it (the filter refuses it); other programs of this host can, and many kernel faults were found there",
        remedy: "where nothing on this host needs it: `sysctl -w kernel.io_uring_disabled=2`",
    },
    Layer {
        id: "host-bpf",
        title: "host: unprivileged BPF",
        probe: Probe::Host(|scene| layer::setting(scene, "kernel.unprivileged_bpf_disabled", 1..=2)),
        means: "sandboxes cannot reach it (the filter refuses it); ordinary users of this host can load programs into the kernel",
        remedy: "`sysctl -w kernel.unprivileged_bpf_disabled=1`",
    },
    Layer {
        id: "host-perf",
        title: "host: performance events",
        probe: Probe::Host(|scene| layer::setting(scene, "kernel.perf_event_paranoid", 3..=i64::MAX)),
        means: "sandboxes cannot reach them (the filter refuses it); ordinary users of this host can observe its programs",
        remedy: "`sysctl -w kernel.perf_event_paranoid=3`",
    },
    Layer {
        id: "host-kernel-pointers",
        title: "host: kernel addresses",
        probe: Probe::Host(|scene| layer::setting(scene, "kernel.kptr_restrict", 1..=2)),
        means: "sandboxes do not see the files that show them; other programs of this host do, which helps an attack on the kernel",
        remedy: "`sysctl -w kernel.kptr_restrict=2`",
    },
    Layer {
        id: "host-terminal-input",
        title: "host: pushing input into terminals",
        probe: Probe::Host(|scene| layer::setting(scene, "dev.tty.legacy_tiocsti", 0..=0)),
        means: "sandboxes have no terminal and the filter refuses it; other programs of this host can type into the terminal they share",
        remedy: "`sysctl -w dev.tty.legacy_tiocsti=0`",
    },
    Layer {
        id: "host-core-pattern",
        title: "host: core dumps",
        probe: Probe::Host(layer::core_pattern),
        means: "the host's core dump helper is a program outside of every sandbox that reads what crashed inside: one more thing for hostile code to attack",
        remedy: "on hosts for sandboxes: `sysctl -w kernel.core_pattern=core`, and no apport or systemd-coredump",
    },
    Layer {
        id: "host-smt",
        title: "host: sibling threads of a CPU core",
        probe: Probe::Host(|scene| layer::switch(scene, "/sys/devices/system/cpu/smt/active")),
        means: "two sandboxes may share a core at the same moment, where side channels between them are strongest",
        remedy: "for tenants that do not trust each other: `nosmt` on the kernel's command line",
    },
    Layer {
        id: "host-page-merging",
        title: "host: merging of equal pages",
        probe: Probe::Host(|scene| layer::switch(scene, "/sys/kernel/mm/ksm/run")),
        means: "programs that ask for it share equal pages, whose timing tells one what the other holds",
        remedy: "`echo 2 > /sys/kernel/mm/ksm/run`",
    },
    Layer {
        id: "host-swap",
        title: "host: swap",
        probe: Probe::Host(layer::swap),
        means: "data of sandboxes may reach the disk, and stays there after they end",
        remedy: "`swapoff -a` and out of /etc/fstab, or an encrypted swap",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// One look at a time: the first process of a sandbox is searched below this one.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

    fn place() -> Place<'static> {
        Place { data: Path::new("/"), environment: "core", built: None, limits: Limits::default() }
    }

    #[test]
    fn every_layer_has_a_name_of_its_own_a_meaning_and_a_remedy() {
        let ids: BTreeSet<&str> = LAYERS.iter().map(|layer| layer.id).collect();
        assert_eq!(ids.len(), LAYERS.len());
        for layer in LAYERS {
            assert!(layer.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", layer.id);
            for text in [layer.title, layer.means, layer.remedy] {
                assert!(text.len() > 3 && !text.contains("  ") && !text.ends_with('.') && !text.contains('\n'), "{}: {text}", layer.id);
            }
        }
    }

    #[test]
    fn without_a_sandbox_the_layer_to_blame_says_why_and_the_others_say_that_they_were_not_seen() {
        let host = Host::this();
        let trouble = Trouble { layer: "proc", detail: "cannot mount".to_owned(), remedy: Some("unmask it".to_owned()) };
        let seen = Err(trouble);
        let scene = Scene { host: &host, seen: &seen, place: &place() };
        let checked = |id: &str| check(LAYERS.iter().find(|layer| layer.id == id).unwrap(), &scene, &["proc".to_owned()]);
        let proc = checked("proc");
        assert_eq!(
            (proc.status, proc.detail.as_str(), proc.remedy.as_str(), proc.required, proc.unseen),
            (Status::Missing, "cannot mount", "unmask it", true, false)
        );
        let seccomp = checked("seccomp");
        assert_eq!((seccomp.status, seccomp.unseen, seccomp.remedy.as_str()), (Status::Missing, true, "see `proc` first"));
        let start = checked("sandbox-start");
        assert!(start.status == Status::Missing && start.remedy.contains("`proc`"), "{start:?}");
    }

    /// The control of all others: what was left off must not be said to hold.
    #[test]
    fn a_layer_that_is_off_is_seen_to_be_off() {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let host = Host::this();
        let off = Controls { seccomp: false, landlock: false, cgroups: false };
        let seen = inside::look(&host, inside::limits(&Limits::default()), off).map_err(|blind| start::explain(&blind, &host));
        let scene = Scene { host: &host, seen: &seen, place: &place() };
        let status = |id: &str| check(LAYERS.iter().find(|layer| layer.id == id).unwrap(), &scene, &[]).status;
        assert_eq!(["seccomp", "landlock", "cgroup-cpu", "freezer"].map(status), [Status::Missing; 4]);
        assert_eq!(["cgroup-memory", "cgroup-pids"].map(status), [Status::Bounded; 2]);
        assert_eq!(["no-nested-namespaces", "net-namespaces", "capabilities", "mount-namespaces"].map(status), [Status::Holds; 4]);
    }

    /// On whatever host this runs: every layer is told once, and what a sandbox that runs must always have is there.
    #[test]
    fn this_host_is_examined() {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let report = examine(&place(), &["seccomp".to_owned()]);
        assert_eq!(report.layers.iter().map(|layer| layer.id).collect::<Vec<_>>(), LAYERS.iter().map(|layer| layer.id).collect::<Vec<_>>());
        let state: Vec<_> = report.layers.iter().map(|layer| (layer.id, layer.status, layer.detail.as_str())).collect();
        for always in ["sandbox-start", "user-namespaces", "mount-namespaces", "pid-namespaces", "net-namespaces", "ipc-namespaces", "proc", "devices"] {
            assert!(!report.missing.contains(&always), "{state:?}");
        }
        for always in ["capabilities", "no-new-privileges", "no-nested-namespaces", "seccomp", "process-limits", "tmpfs-limits"] {
            assert!(!report.missing.contains(&always), "{state:?}");
        }
        assert!(report.ok);
    }
}
