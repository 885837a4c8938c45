//! Starts real sandboxes and looks from inside at what is in force: one as every sandbox is, and one without filters, Landlock and
//! control groups, so that what stops an attempt there is the namespaces alone.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::message::{Execute, FromInit, ToInit, Work};

use super::host::Host;
use crate::backend::{BACKENDS, Backend, Controls, Error, Sandbox, SpawnOptions, Template, WorkerStart};
use crate::cgroup::Version;
use crate::limits::Limits;

/// How long the look inside may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// More output than the script has: what is beyond is not kept.
const OUTPUT_BYTES: usize = 256 * 1024;
/// How long processes may take to stop.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// Limits of the sandboxes that are looked at: files small enough to be filled in no time, and per process what is configured, since
/// the host may not allow that.
pub(super) fn limits(configured: &Limits) -> Limits {
    Limits { cpus: 1.0, memory_bytes: 128 << 20, workspace_bytes: 1 << 20, workspace_inodes: 64, tmp_bytes: 1 << 20, ..*configured }
}

/// Says everything of interest in sections of a `@name` line and their text. PORT is replaced.
const SCRIPT: &str = r#"
section() { printf '@%s\n' "$1"; }
section user; id -u
section status; cat /proc/self/status
section namespaces; for name in user mnt pid net ipc uts cgroup; do printf '%s ' "$name"; readlink "/proc/self/ns/$name"; done
section interfaces; cat /proc/self/net/dev
section proc; ls /proc
section root; ls -A /; ls -A /home
section devices; ls -A /dev
section mounts; cat /proc/self/mountinfo
section limits; cat /proc/self/limits
section connect; (: </dev/tcp/127.0.0.1/PORT) 2>&1 && echo connected
section nested; command -v unshare >/dev/null && { unshare -U true 2>&1 && echo nested; }
section execute; printf '#!/bin/bash\necho executed\n' >/dev/shm/probe; chmod +x /dev/shm/probe; /dev/shm/probe 2>&1; rm -f /dev/shm/probe
section full
for folder in /mnt/data /tmp /dev/shm; do head -c 2097152 /dev/zero 2>/dev/null >"$folder/probe" || echo "$folder"; rm -f "$folder/probe"; done
section files
for number in {1..80}; do : 2>/dev/null >"/mnt/data/probe$number" || { echo refused; break; }; done
rm -f /mnt/data/probe*; : >/mnt/data/owner
section end
"#;

/// What one sandbox showed.
#[derive(Debug, Default)]
pub(super) struct Sections(BTreeMap<String, String>);

impl Sections {
    /// Splits output at its `@name` lines.
    pub(super) fn parse(text: &str) -> Self {
        let mut sections = BTreeMap::new();
        for section in text.split("\n@").map(|section| section.strip_prefix('@').unwrap_or(section)) {
            let (name, content) = section.split_once('\n').unwrap_or((section, ""));
            sections.insert(name.trim().to_owned(), content.trim().to_owned());
        }
        Self(sections)
    }

    /// A section; empty where it was not said.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The value after a name, in a section of `name value` lines.
    pub(super) fn value(&self, section: &str, name: &str) -> &str {
        self.get(section).lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        self.0.contains_key("end")
    }
}

/// What is known of control groups.
#[derive(Debug)]
pub(super) struct Group {
    /// Which there are.
    pub(super) version: Version,
    /// Limits as the kernel has them for the process of the sandbox, read from outside: memory, swap, pids, CPU quota and period.
    pub(super) memory: Option<String>,
    pub(super) swap: Option<String>,
    pub(super) processes: Option<String>,
    pub(super) cpu: Option<String>,
    /// Everything stopped at once when asked.
    pub(super) frozen: bool,
}

/// What was seen of sandboxes that ran.
#[derive(Debug)]
pub(super) struct Seen {
    /// Limits of both sandboxes.
    pub(super) limits: Limits,
    /// In a sandbox with every layer.
    pub(super) whole: Sections,
    /// In one with namespaces only.
    pub(super) bare: Sections,
    /// Host users that files of the two sandboxes belong to.
    pub(super) users: [Option<u32>; 2],
    /// The status of init, read from outside.
    pub(super) init_status: Option<String>,
    /// Namespaces of this process: name, identity.
    pub(super) own_namespaces: BTreeMap<&'static str, String>,
    /// The kernel's Landlock interface, as init found it.
    pub(super) landlock: u32,
    /// Control groups.
    pub(super) group: Group,
    /// How long it took from nothing to a sandbox.
    pub(super) start: Duration,
    /// A connection to a listener on the host's loopback came through; `None` where there was no listener.
    pub(super) reached: Option<bool>,
}

/// Why nothing was seen.
#[derive(Debug)]
pub(super) enum Blind {
    /// No sandbox starts.
    Start(Error),
    /// It starts, but the shell inside does not do its work.
    Shell(String),
}

impl From<Error> for Blind {
    fn from(error: Error) -> Self {
        Self::Start(error)
    }
}

/// A sandbox and the backend that it needs while it lives.
struct Started {
    sandbox: Box<dyn Sandbox>,
    backend: std::sync::Arc<dyn Backend>,
}

/// Starts both sandboxes and looks. `controls` is for tests, which show that a layer left off is seen to be off.
pub(super) fn look(host: &Host, limits: Limits, controls: Controls) -> Result<Seen, Blind> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok();
    let port = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map_or(9, |address| address.port());
    let script = SCRIPT.replace("PORT", &port.to_string());
    let clock = Instant::now();
    let mut full = start(controls, limits)?;
    let start_time = clock.elapsed();
    // Before the second one starts, so that it is the only one.
    let init = host.init_below(std::process::id());
    let init_status = init.and_then(|pid| host.read(&format!("/proc/{pid}/status")));
    let whole = ask(full.sandbox.as_mut(), &script)?;
    let group = group(host, &full, init);
    // With control groups off: a second folder of ours in version 2 would have to move this process again.
    let mut stripped = start(Controls { seccomp: false, landlock: false, cgroups: false }, limits)?;
    let bare = ask(stripped.sandbox.as_mut(), &script)?;
    let users = [&full, &stripped].map(|started| owner(started.sandbox.as_ref()));
    let reached = listener.map(|listener| listener.set_nonblocking(true).is_err() || listener.accept().is_ok());
    Ok(Seen {
        limits,
        whole,
        bare,
        users,
        init_status,
        own_namespaces: own_namespaces(),
        landlock: full.sandbox.ready().landlock_abi,
        group,
        start: start_time,
        reached,
    })
}

fn start(controls: Controls, limits: Limits) -> Result<Started, Error> {
    let (_, start) = BACKENDS.first().ok_or(Error::Gone)?;
    let backend = start(controls)?;
    let template = backend.prepare(&Template::default())?;
    let sandbox = backend.spawn(
        template,
        &SpawnOptions { limits, worker: WorkerStart::None, shell: true, process_spawning: false, cpu_total_seconds: None, background: false },
    )?;
    Ok(Started { sandbox, backend })
}

/// Runs the script.
fn ask(sandbox: &mut dyn Sandbox, script: &str) -> Result<Sections, Blind> {
    let work = Work::Shell(script.as_bytes().to_vec());
    sandbox.remote().send(&ToInit::Execute(Execute { execution: 1, work }))?;
    let deadline = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    let end = loop {
        match sandbox.receive(Some(deadline))? {
            Some(FromInit::Output { bytes, .. }) => {
                let room = OUTPUT_BYTES.saturating_sub(text.len());
                text.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or(&bytes));
            }
            Some(FromInit::Done { end, .. }) => break format!("{end:?}"),
            Some(_) => {}
            None => break format!("no end within {} s", PATIENCE.as_secs()),
        }
    };
    let sections = Sections::parse(&String::from_utf8_lossy(&text));
    if sections.is_whole() { Ok(sections) } else { Err(Blind::Shell(end)) }
}

/// The host user that a file made inside belongs to.
fn owner(sandbox: &dyn Sandbox) -> Option<u32> {
    sandbox.workspace().open(Path::new("owner")).ok()?.metadata().ok().map(|metadata| metadata.uid())
}

fn own_namespaces() -> BTreeMap<&'static str, String> {
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter_map(|name| Some((name, std::fs::read_link(format!("/proc/self/ns/{name}")).ok()?.display().to_string())))
        .collect()
}

/// Reads from outside which limits hold the sandbox's first process, and tries to stop it.
fn group(host: &Host, started: &Started, init: Option<u32>) -> Group {
    let version = started.backend.cgroups();
    let file = |unified: &str, v1: (&str, &str)| match version {
        Version::V2 => host.group_file(init?, ("", unified)),
        Version::V1 => host.group_file(init?, v1),
        Version::None(_) => None,
    };
    let state = || file("cgroup.events", ("freezer", "freezer.state"));
    // Version 2 has quota and period in one file.
    let period = file("", ("cpu", "cpu.cfs_period_us")).map(|period| format!(" {period}")).unwrap_or_default();
    Group {
        memory: file("memory.max", ("memory", "memory.limit_in_bytes")),
        swap: file("memory.swap.max", ("memory", "memory.memsw.limit_in_bytes")),
        processes: file("pids.max", ("pids", "pids.max")),
        cpu: file("cpu.max", ("cpu", "cpu.cfs_quota_us")).map(|quota| quota + &period),
        frozen: freezes(started.sandbox.as_ref(), state),
        version: version.clone(),
    }
}

fn freezes(sandbox: &dyn Sandbox, state: impl Fn() -> Option<String>) -> bool {
    if !sandbox.freeze(true) {
        return false;
    }
    let deadline = Instant::now() + FREEZE_PATIENCE;
    let stopped = loop {
        let state = state().unwrap_or_default();
        if state == "FROZEN" || state.lines().any(|line| line == "frozen 1") {
            break true;
        }
        if Instant::now() >= deadline {
            break false;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    sandbox.freeze(false) && stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_split_at_their_names() {
        let sections = Sections::parse("@user\n1000\n@status\nName:\tcat\nSeccomp:\t2\n@names\nc 0\nn 256\n@end\n");
        assert_eq!((sections.get("user"), sections.value("names", "n"), sections.value("names", "x")), ("1000", "256", ""));
        assert!(sections.is_whole() && sections.get("status").ends_with("Seccomp:\t2"));
        assert!(!Sections::parse("").is_whole() && !Sections::parse("bash: not found").is_whole());
    }
}
