//! What stands outside and must not be touched: files, listeners, programs, settings of the host; and what must not be left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const SECRET: &str = "canary: whoever reads this is outside";
/// Settings that no sandbox may change.
const SETTINGS: &[&str] = &[
    "kernel/core_pattern",
    "kernel/modprobe",
    "kernel/hostname",
    "kernel/random/boot_id",
    "kernel/tainted",
    "user/max_user_namespaces",
    "vm/overcommit_memory",
];

/// Files of the host that hostile code would like to change or read.
pub(crate) struct Canary {
    /// A world-writable folder with [`SECRET`] in it.
    pub(crate) folder: PathBuf,
    /// The file.
    pub(crate) file: PathBuf,
    programs: Vec<(PathBuf, String)>,
    settings: Vec<(String, String)>,
    complaints: usize,
}

impl Canary {
    /// Places the canary below `folder` and notes how the host looks. `programs` are files that must stay as they are.
    pub(crate) fn place(folder: &Path, programs: &[PathBuf]) -> Self {
        let folder = folder.join("canary");
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("open to all");
        let file = folder.join("secret");
        fs::write(&file, SECRET).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("open to all");
        let programs = programs.iter().map(|path| (path.clone(), digest(path))).collect();
        Self { folder, file, programs, settings: settings(), complaints: complaints() }
    }

    /// What was touched.
    pub(crate) fn touched(&self) -> Vec<String> {
        let mut touched = Vec::new();
        if fs::read_to_string(&self.file).unwrap_or_default() != SECRET {
            touched.push("the canary was written to".to_owned());
        }
        let names: BTreeSet<_> = fs::read_dir(&self.folder).expect("its folder").flatten().map(|entry| entry.file_name()).collect();
        if names.len() != 1 {
            touched.push(format!("the canary's folder holds {names:?}"));
        }
        touched.extend(settings().into_iter().zip(&self.settings).filter(|(now, before)| now != *before).map(|(now, _)| format!("{} changed", now.0)));
        let complaints = complaints();
        if complaints > self.complaints {
            touched.push(format!("the kernel complained {} times", complaints - self.complaints));
        }
        touched
    }

    /// Programs that are not what they were. Slower: not after every attempt.
    pub(crate) fn changed_programs(&self) -> Vec<String> {
        self.programs.iter().filter(|(path, before)| digest(path) != *before).map(|(path, _)| format!("{} changed", path.display())).collect()
    }
}

fn settings() -> Vec<(String, String)> {
    SETTINGS.iter().map(|name| ((*name).to_owned(), fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default())).collect()
}

/// Lines of the kernel's log that tell of its own faults. Where it cannot be read, none.
fn complaints() -> usize {
    kernel_lines(&["soft lockup", "blocked for more than", "BUG:", "WARNING:"])
}

/// Lines of the kernel's log with one of these words.
pub(crate) fn kernel_lines(words: &[&str]) -> usize {
    let log = std::process::Command::new("dmesg").stderr(std::process::Stdio::null()).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&log).lines().filter(|line| words.iter().any(|word| line.contains(word))).count()
}

/// Memory of this process: now, and at its most since [`forget_peak`]. In MiB.
pub(crate) fn resident() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or_default()
    };
    (value("VmRSS:") / 1024, value("VmHWM:") / 1024)
}

/// Begins to look for the most anew.
pub(crate) fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Processes below this one that still run a probe.
pub(crate) fn probes_running() -> Vec<u32> {
    let runs = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ["/mnt/data/probe.py", "/tmp/look.py"].iter().any(|name| line.windows(name.len()).any(|window| window == name.as_bytes()))
    };
    descendants().into_iter().filter(runs).collect()
}

fn digest(path: &Path) -> String {
    let mut hasher = Sha256::new();
    hasher.update(fs::read(path).unwrap_or_default());
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sockets of the host that hostile code would like to reach. Each counts who came.
pub(crate) struct Listeners {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    stream: Vec<UnixListener>,
    datagram: Vec<UnixDatagram>,
    /// The port of TCP and of UDP, which is the same.
    pub(crate) port: u16,
    /// Abstract name of the streams' listener; the datagrams' ends in `-datagram`.
    pub(crate) name: String,
}

impl Listeners {
    /// Listens on every address, and on unix sockets in `folder` and of abstract names.
    pub(crate) fn start(folder: &Path) -> Self {
        let (tcp, udp, port) = same_port();
        let mut listeners =
            Self { tcp: vec![tcp], udp: vec![udp], stream: Vec::new(), datagram: Vec::new(), port, name: format!("belljar-containment-{port}") };
        // IPv6 where there is any.
        listeners.tcp.extend(TcpListener::bind(("::1", port)));
        listeners.udp.extend(UdpSocket::bind(("::1", port)));
        let abstracted = |name: String| SocketAddr::from_abstract_name(name).expect("a name");
        listeners.stream.push(UnixListener::bind_addr(&abstracted(listeners.name.clone())).expect("an abstract listener"));
        listeners.datagram.push(UnixDatagram::bind_addr(&abstracted(format!("{}-datagram", listeners.name))).expect("an abstract socket"));
        listeners.stream.push(UnixListener::bind(folder.join("stream")).expect("a listener"));
        listeners.datagram.push(UnixDatagram::bind(folder.join("datagram")).expect("a socket"));
        for name in ["stream", "datagram"] {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o777)).expect("open to all");
        }
        listeners.tcp.iter().for_each(|socket| socket.set_nonblocking(true).expect("not blocking"));
        listeners.udp.iter().for_each(|socket| socket.set_nonblocking(true).expect("not blocking"));
        listeners.stream.iter().for_each(|socket| socket.set_nonblocking(true).expect("not blocking"));
        listeners.datagram.iter().for_each(|socket| socket.set_nonblocking(true).expect("not blocking"));
        listeners
    }

    /// How many came since this was last asked.
    pub(crate) fn visits(&self) -> usize {
        let mut buffer = [0; 64];
        let mut count = 0;
        for socket in &self.tcp {
            while let Ok((mut visitor, _)) = socket.accept() {
                let _ = visitor.set_nonblocking(true).and_then(|()| visitor.read(&mut buffer));
                count += 1;
            }
        }
        count += self.udp.iter().map(|socket| std::iter::repeat_with(|| socket.recv(&mut [0; 64])).take_while(Result::is_ok).count()).sum::<usize>();
        for socket in &self.stream {
            while socket.accept().is_ok() {
                count += 1;
            }
        }
        count + self.datagram.iter().map(|socket| std::iter::repeat_with(|| socket.recv(&mut [0; 64])).take_while(Result::is_ok).count()).sum::<usize>()
    }
}

/// TCP and UDP on all IPv4 addresses, with the same port.
fn same_port() -> (TcpListener, UdpSocket, u16) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("0.0.0.0:0").expect("a listener");
        let port = tcp.local_addr().expect("its address").port();
        if let Ok(udp) = UdpSocket::bind(("0.0.0.0", port)) {
            return (tcp, udp, port);
        }
    }
    panic!("no port is free for both TCP and UDP");
}

/// An address of this machine that is not loopback, if it has one. Connecting a datagram socket sends nothing.
pub(crate) fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// What could be left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Residue {
    /// Processes below this one.
    pub(crate) processes: usize,
    /// Mounts of ours that others see.
    pub(crate) mounts: usize,
    /// Open descriptors of this process.
    pub(crate) descriptors: usize,
    /// Control groups of ours.
    pub(crate) cgroups: usize,
    /// Files in the host's shared memory, and its System V objects.
    pub(crate) shared_memory: usize,
}

impl Residue {
    /// Counts now.
    pub(crate) fn count() -> Self {
        let entries = |path: &str| fs::read_dir(path).map(|entries| entries.flatten().count()).unwrap_or_default();
        Self {
            processes: descendants().len(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().filter(|line| is_ours(line)).count(),
            descriptors: entries("/proc/self/fd"),
            cgroups: own_cgroups(Path::new("/sys/fs/cgroup"), 0),
            shared_memory: shared_memory() + system_v(),
        }
    }
}

/// Whether a mount is one that a launcher or an init makes.
fn is_ours(line: &str) -> bool {
    line.split(' ')
        .nth(4)
        .is_some_and(|place| ["/stage", "/mnt/data", "/opt/env", "/opt/runtime", "/tmp/belljar-containment-"].iter().any(|start| place.starts_with(start)))
}

/// Files in the host's shared memory, without the marks of other suites that run now.
fn shared_memory() -> usize {
    let own = format!("belljar-containment-{}", std::process::id());
    let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with("belljar-containment-") || name.starts_with(&own)).count()
}

/// System V objects of the host.
fn system_v() -> usize {
    let lines = |name: &str| fs::read_to_string(format!("/proc/sysvipc/{name}")).unwrap_or_default().lines().count();
    ["shm", "sem", "msg"].into_iter().map(lines).sum()
}

/// Control groups that carry this process's number.
fn own_cgroups(folder: &Path, depth: usize) -> usize {
    let own = format!("belljar-{}", std::process::id());
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders
        .map(|entry| {
            let found = entry.file_name().to_string_lossy().starts_with(&own);
            usize::from(found) + if depth < 3 { own_cgroups(&entry.path(), depth + 1) } else { 0 }
        })
        .sum()
}

/// Processes below this one, by number.
pub(crate) fn descendants() -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, parent(pid)?)))
        .collect();
    let mut family = vec![std::process::id()];
    let mut at = 0;
    while at < family.len() {
        let above = family[at];
        family.extend(all.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        at += 1;
    }
    family.split_off(1)
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}
