//! The parameters of a probe: the same names inside and outside, each with what stands for it there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::oracle::{Canary, Listeners, descendants, own_address};
use crate::table::Test;

/// Everything the probes are told about the host.
pub(crate) struct Scene {
    /// Where the suite keeps its files.
    pub(crate) folder: PathBuf,
    /// The canary.
    pub(crate) canary: Canary,
    /// The listeners.
    pub(crate) listeners: Listeners,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// The interpreter inside, as the host sees it.
    pub(crate) interpreter: PathBuf,
    /// A name in the host's shared memory.
    pub(crate) shm_marker: String,
}

/// Folders that code inside may write to.
const WRITABLE: &[&str] = &["/mnt/data", "/tmp", "/home/sandbox", "/dev/shm"];
/// Programs that must stay as they are.
const BINARIES: &[&str] = &["/usr/bin/env", "/usr/bin/bash", "/opt/env/bin/python3", "/opt/runtime/driver.py", "/usr/lib/os-release"];
/// What hostile code would like a second name for.
const LINKABLE: &[&str] = &["/usr/bin/env", "/opt/runtime/driver.py", "/dev/null", "/etc/passwd"];
/// Files whose names an interpreter or a shell may look for early.
pub(crate) const HOOKS: &[&str] =
    &["sitecustomize.py", "usercustomize.py", "ctypes.py", "_ctypes.py", "struct.py", "_struct.py", "binascii.py", "os.py", "site.py", "posix.py", "hook.sh"];
/// Lists of the table from which names that this host does not have are left out: nothing could be proven with them.
const ON_HOST: &[&str] = &["absent", "unwritable", "devices"];
/// Beyond the limit of `/dev/shm`.
const SHM_BYTES: u64 = 65 << 20;

impl Scene {
    /// Parameters of a run in a sandbox; `control`: with a layer off.
    pub(crate) fn inside(&self, test: &Test, mode: &str, control: bool) -> Map<String, Json> {
        let own = json!({
            "mode": mode, "control": control, "may_mount": true, "fatal": !control, "workspace": "/mnt/data", "folder": "/tmp", "folders": WRITABLE, "names": WRITABLE,
            "script": "/mnt/data/probe.py", "scratch": "/mnt/data/probe.py", "program": "/usr/bin/env", "target": "/usr/bin/env", "stage": "",
            "binaries": BINARIES, "linkable": LINKABLE, "sources": LINKABLE,
            "renames": [["workspace", "/mnt/data", "/mnt/moved"], ["tmp", "/tmp", "/tmp2"], ["home", "/home/sandbox", "/home/other"], ["across", "/tmp/tree", "/mnt/data/tree"]],
        });
        self.complete(test, own)
    }

    /// Parameters of a run on the host, with places of its own in `scratch`. Nothing on the host may change: what would is left out.
    pub(crate) fn outside(&self, test: &Test, unshared: bool, scratch: &Path) -> Map<String, Json> {
        let place = |name: &str| scratch.join(name.trim_start_matches('/').replace('/', "-")).display().to_string();
        let copies = |names: &[&str], folder: &str| -> Vec<String> {
            let folder = scratch.join(folder);
            fs::create_dir_all(&folder).expect("a folder");
            let copies = names.iter().map(|name| folder.join(Path::new(name).file_name().expect("a name")));
            copies.inspect(|copy| fs::write(copy, [b'#'; 8192]).expect("a copy")).map(|copy| copy.display().to_string()).collect()
        };
        let folders: Vec<String> = WRITABLE.iter().map(|name| place(name)).collect();
        for folder in folders.iter().chain([place("workspace"), place("tmp"), place("home"), place("tree")].iter()) {
            fs::create_dir_all(folder).expect("a folder");
        }
        let own = json!({
            "mode": "host", "control": true, "may_mount": unshared, "fatal": false, "workspace": place("workspace"), "folder": scratch, "folders": folders, "names": WRITABLE,
            "script": scratch.join("probe.py"), "scratch": copies(&["scratch"], "single")[0], "program": "/usr/bin/env", "target": copies(&["target"], "single")[0],
            "stage": stage(scratch), "binaries": copies(BINARIES, "binaries"), "linkable": copies(LINKABLE, "linkable"), "sources": LINKABLE,
            "renames": [["workspace", place("mnt-data"), place("moved")], ["tmp", place("tmp"), place("tmp2")], ["home", place("home"), place("other-home")], ["across", place("tree"), place("tree2")]],
        });
        for hook in HOOKS {
            fs::write(Path::new(&place("workspace")).join(hook), hook_text(hook)).expect("a hook");
        }
        self.complete(test, own)
    }

    /// What is the same inside and outside.
    fn complete(&self, test: &Test, own: Json) -> Map<String, Json> {
        let port = self.listeners.port;
        let mut parameters = Map::new();
        let mut targets = vec![json!(["loopback", "127.0.0.1", port]), json!(["loopback of IPv6", "::1", port])];
        targets.extend(own_address().map(|address| json!(["own address", address, port])));
        let shells: Vec<String> = std::iter::once("127.0.0.1".to_owned())
            .chain(own_address().map(|address| address.to_string()))
            .map(|address| format!("{address}/{port}"))
            .collect();
        let name = &self.listeners.name;
        let common = json!({
            "canary": self.canary.file, "hooks": HOOKS, "shm_marker": self.shm_marker, "shm_bytes": SHM_BYTES, "targets": targets, "shell_targets": shells, "hosts": [],
            "unix": [
                ["the abstract stream", format!("\0{name}"), "stream"], ["the abstract datagram socket", format!("\0{name}-datagram"), "datagram"],
                ["the display", "\0/tmp/.X11-unix/X0", "stream"], ["a container service", "\0/containerd-shim/x.sock", "stream"],
            ],
            "host_pid": std::process::id(), "host_pids": host_pids(), "host_devices": self.host_devices(), "words": self.words(), "resolver_sockets": [], "devices": [], "masked": [],
        });
        for (name, value) in [common, own].iter().flat_map(|part| part.as_object().expect("an object")) {
            parameters.insert(name.clone(), value.clone());
        }
        for (name, value) in &test.parameters {
            parameters.insert(name.clone(), self.fill(name, value));
        }
        parameters
    }

    /// Puts the host's places into a parameter of the table, and leaves out what this host does not have.
    fn fill(&self, name: &str, value: &Json) -> Json {
        let text = value.to_string().replace("{canary}", &self.canary.folder.display().to_string()).replace("{data}", &self.data.display().to_string());
        let mut value: Json = serde_json::from_str(&text).expect("still JSON");
        if let (true, Some(list)) = (ON_HOST.contains(&name), value.as_array_mut()) {
            list.retain(|path| path.as_str().is_some_and(|path| fs::symlink_metadata(path).is_ok()));
        }
        value
    }

    fn host_devices(&self) -> Vec<u64> {
        let places = [Path::new("/"), Path::new("/usr"), Path::new("/tmp"), Path::new("/dev"), Path::new("/dev/shm"), Path::new("/proc"), &self.data];
        places.iter().filter_map(|path| fs::metadata(path).ok()).map(|facts| facts.dev()).collect()
    }

    /// Words that only the host knows.
    fn words(&self) -> Vec<String> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let words = [host, self.data.display().to_string(), "BELLJAR".to_owned()];
        words.into_iter().filter(|word| word.len() > 3).collect()
    }
}

/// Processes that are nobody's business inside, by their numbers on the host.
fn host_pids() -> Json {
    let own = std::process::id();
    // The first process below this one is a launcher.
    json!({"belljar": own, "its launcher": descendants().first().copied().unwrap_or(own)})
}

/// The text of a file that stands where an interpreter or a shell looks early.
pub(crate) fn hook_text(name: &str) -> &'static str {
    crate::probes::text(if name == "hook.sh" { "hook.sh" } else { "hook.py" })
}

/// A folder that looks like the root of a sandbox, but can be written to.
fn stage(scratch: &Path) -> PathBuf {
    let stage = scratch.join("stage");
    for folder in ["dev/fd", "etc", "proc/self", "opt/runtime"] {
        fs::create_dir_all(stage.join(folder)).expect("a folder");
    }
    for file in ["dev/null", "dev/zero", "dev/urandom", "etc/passwd"] {
        fs::write(stage.join(file), "").expect("a file");
    }
    stage
}
