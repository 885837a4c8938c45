//! Explains why no sandbox starts: from the step that failed and what the host says of itself to the layer, the meaning and the remedy.

use rustix::io::Errno;

use super::host::Host;
use super::inside::Blind;
use crate::backend::Error;

/// An explanation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The layer that is to blame.
    pub(super) layer: &'static str,
    /// What failed.
    pub(super) detail: String,
    /// What to do; the layer's own remedy where there is nothing better to say.
    pub(super) remedy: Option<String>,
}

/// Which layer a failed step belongs to: the beginning of the step, the object (empty: any), the layer.
const STEPS: &[(&str, &str, &str)] = &[
    ("create a user namespace for", "", "user-namespaces"),
    ("write the user map", "", "user-namespaces"),
    ("create namespaces for", "", "user-namespaces"),
    ("create the namespaces of", "", "user-namespaces"),
    ("find", "an unused user id", "own-users"),
    ("mount proc on", "", "proc"),
    ("mount tmpfs on", "", "tmpfs-limits"),
    ("build the launcher's root at", "", "mount-namespaces"),
    ("pivot to", "", "mount-namespaces"),
    ("detach", "", "mount-namespaces"),
    ("bind", "", "mount-namespaces"),
    ("make read-only", "", "mount-namespaces"),
    ("move into the cgroup", "", "cgroup-memory"),
    ("create", "the sandbox's cgroup", "cgroup-memory"),
    ("open", "the sandbox's cgroup", "cgroup-memory"),
    ("create", "the guest program", "memfd-exec"),
    ("start", "the launcher", "memfd-exec"),
    ("forbid", "", "no-nested-namespaces"),
    ("set the limit", "", "process-limits"),
    ("drop", "", "capabilities"),
    ("set", "no_new_privs", "no-new-privileges"),
    ("install", "", "seccomp"),
];

/// The layer that everything is put down to that no other one explains.
pub(super) const START: &str = "sandbox-start";

/// Kinds of namespaces with their limits, and the layer of each.
const KINDS: &[(&str, &str)] = &[
    ("user", "user-namespaces"),
    ("mnt", "mount-namespaces"),
    ("pid", "pid-namespaces"),
    ("net", "net-namespaces"),
    ("ipc", "ipc-namespaces"),
    ("uts", "ipc-namespaces"),
    ("cgroup", "ipc-namespaces"),
];

/// Finds the reason.
pub(super) fn explain(blind: &Blind, host: &Host) -> Trouble {
    let error = match blind {
        Blind::Start(error) => error,
        Blind::Shell(end) => {
            return Trouble {
                layer: START,
                detail: format!("a sandbox starts, but the look inside did not finish ({end})"),
                remedy: Some("install bash and coreutils on this host: sandboxes use its /usr; then run `belljar doctor` again".to_owned()),
            };
        }
    };
    let Error::Step(failure) = error else {
        return Trouble { layer: START, detail: error.to_string(), remedy: None };
    };
    let fits = |(step, object, _): &&(&str, &str, &str)| *step == failure.step && (object.is_empty() || *object == failure.object);
    let layer = STEPS.iter().find(fits).map_or(START, |(_, _, layer)| *layer);
    let detail = error.to_string();
    let errno = Errno::from_raw_os_error(failure.errno);
    if errno == Errno::AGAIN || errno == Errno::NOMEM {
        let remedy = "raise the number of processes of this user (`ulimit -u`, TasksMax of the service) or free memory";
        return Trouble { layer: START, detail, remedy: Some(remedy.to_owned()) };
    }
    match layer {
        "user-namespaces" => namespaces(host, errno, detail),
        "proc" if errno == Errno::PERM => Trouble { layer, detail, remedy: Some(masked_proc(host)) },
        "mount-namespaces" | "tmpfs-limits" if matches!(errno, Errno::PERM | Errno::ACCESS) => Trouble { layer, detail, remedy: Some(container()) },
        _ => Trouble { layer, detail, remedy: None },
    }
}

/// Namespaces cannot be made: looks for every setting that forbids it, and names the first.
fn namespaces(host: &Host, errno: Errno, detail: String) -> Trouble {
    let user = |remedy: String| Trouble { layer: "user-namespaces", detail: detail.clone(), remedy: Some(remedy) };
    for (kind, layer) in KINDS {
        let name = format!("user.max_{kind}_namespaces");
        if host.number(&name) == Some(0) {
            return Trouble { layer, detail: format!("{detail}; `{name}` is 0"), remedy: Some(setting(&name, "15000")) };
        }
    }
    match errno {
        Errno::NOSPC | Errno::USERS => {
            return user("the limit in `user.max_user_namespaces` (or another `user.max_*_namespaces`) is used up, or namespaces nest too deep: raise it, or start belljar further out".to_owned());
        }
        Errno::NOSYS | Errno::INVAL => {
            return user("use a kernel built with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_IPC_NS and CONFIG_UTS_NS".to_owned());
        }
        _ => {}
    }
    if host.number("kernel.unprivileged_userns_clone") == Some(0) && !host.is_root() {
        return Trouble { detail: format!("{detail}; `kernel.unprivileged_userns_clone` is 0"), ..user(setting("kernel.unprivileged_userns_clone", "1")) };
    }
    if host.number("kernel.apparmor_restrict_unprivileged_userns") == Some(1) && !host.is_root() {
        return Trouble { detail: format!("{detail}; `kernel.apparmor_restrict_unprivileged_userns` is 1"), ..user(apparmor()) };
    }
    if host.read("/proc/self/uid_map").is_some_and(|map| map.is_empty()) {
        return Trouble {
            detail: format!("{detail}; belljar is in a user namespace that has no map of users"),
            ..user("start belljar where its user is mapped (with `unshare`: `--map-current-user`)".to_owned())
        };
    }
    if host.is_filtered() {
        return Trouble { detail: format!("{detail}; a system call filter of the container lies on belljar itself"), ..user(container()) };
    }
    if host.is_root() && !host.has_sys_admin() {
        return Trouble {
            detail: format!("{detail}; belljar is root without CAP_SYS_ADMIN"),
            ..user(format!("start belljar as an ordinary user, which needs no capability, or give it CAP_SYS_ADMIN; in a container: {}", container()))
        };
    }
    user("start belljar outside of any chroot, and look into the kernel's log for a security module (SELinux, AppArmor) that refused it".to_owned())
}

/// How to change a kernel setting now and for good.
pub(super) fn setting(name: &str, value: &str) -> String {
    format!("`sysctl -w {name}={value}` as root of the host, and a line `{name} = {value}` in /etc/sysctl.d/60-belljar.conf to keep it")
}

fn apparmor() -> String {
    let program = std::env::current_exe().map_or_else(|_| "/usr/local/bin/belljar".to_owned(), |path| path.display().to_string());
    format!(
        "write `abi <abi/4.0>, include <tunables/global> profile belljar {program} flags=(unconfined) {{ userns, }}` to /etc/apparmor.d/belljar and load it \
         with `apparmor_parser -r /etc/apparmor.d/belljar`; or, for every program of this host, {}",
        setting("kernel.apparmor_restrict_unprivileged_userns", "0")
    )
}

fn container() -> String {
    "start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined` \
     (Kubernetes: seccompProfile and appArmorProfile `Unconfined`, procMount `Unmasked`), or run belljar outside of a container"
        .to_owned()
}

fn masked_proc(host: &Host) -> String {
    let masks: Vec<String> = host.mounts_below_proc();
    let found = if masks.is_empty() { String::new() } else { format!(" (mounted over here: {})", masks.join(", ")) };
    format!(
        "the kernel gives a new /proc only where the present one is complete{found}: start the container with `--security-opt systempaths=unconfined` \
         (Kubernetes: procMount `Unmasked`; Podman: `--security-opt unmask=ALL`), or take away what is mounted over parts of /proc"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::message::Failure;

    fn trouble(settings: &[(&str, &str)], uid: u32, (step, errno): (&str, Errno)) -> Trouble {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in settings {
            let place = folder.path().join("proc").join(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, text).unwrap();
        }
        let failure = Failure { step: step.to_owned(), object: "the launcher".to_owned(), errno: errno.raw_os_error() };
        explain(&Blind::Start(Error::Step(failure)), &Host::below(folder.path(), uid))
    }

    #[test]
    fn the_setting_that_forbids_it_is_named_with_its_remedy() {
        const NEW: (&str, Errno) = ("create a user namespace for", Errno::PERM);
        for (settings, step, layer, remedy) in [
            (
                vec![("sys/user/max_user_namespaces", "0")],
                ("create a user namespace for", Errno::NOSPC),
                "user-namespaces",
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (
                vec![("sys/user/max_net_namespaces", "0")],
                ("create the namespaces of", Errno::NOSPC),
                "net-namespaces",
                "sysctl -w user.max_net_namespaces=15000",
            ),
            (vec![("sys/kernel/unprivileged_userns_clone", "0")], NEW, "user-namespaces", "sysctl -w kernel.unprivileged_userns_clone=1"),
            (
                vec![("sys/kernel/apparmor_restrict_unprivileged_userns", "1")],
                ("create namespaces for", Errno::PERM),
                "user-namespaces",
                "/etc/apparmor.d/belljar",
            ),
            (vec![("self/status", "Seccomp:\t2\n")], NEW, "user-namespaces", "seccomp=unconfined"),
            (vec![], NEW, "user-namespaces", "chroot"),
            (vec![], ("mount proc on", Errno::PERM), "proc", "systempaths=unconfined"),
            (vec![], ("fork", Errno::AGAIN), START, "ulimit -u"),
        ] {
            let trouble = trouble(&settings, 1000, step);
            assert_eq!(trouble.layer, layer, "{trouble:?}");
            assert!(trouble.remedy.as_deref().unwrap_or_default().contains(remedy), "{trouble:?}");
            assert!(trouble.detail.starts_with("cannot "), "{trouble:?}");
        }
    }

    #[test]
    fn root_without_rights_is_told_so() {
        let all = [("self/uid_map", "0 0 4294967295"), ("self/status", "CapEff:\t00000000a80425fb\nSeccomp:\t0\n")];
        let trouble = trouble(&all, 0, ("create namespaces for", Errno::PERM));
        assert!(trouble.detail.contains("root without CAP_SYS_ADMIN") && trouble.remedy.unwrap().contains("ordinary user"));
    }

    #[test]
    fn every_step_leads_to_a_layer_of_the_table() {
        for (_, _, layer) in STEPS {
            assert!(super::super::LAYERS.iter().any(|entry| entry.id == *layer), "{layer}");
        }
        for (_, layer) in KINDS {
            assert!(super::super::LAYERS.iter().any(|entry| entry.id == *layer), "{layer}");
        }
        assert!(super::super::LAYERS.iter().any(|entry| entry.id == START));
    }
}
