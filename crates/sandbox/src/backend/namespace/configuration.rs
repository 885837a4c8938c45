//! What init is told: mounts, variables, rules and limits of one sandbox.

use protocol::message::{BASELINE_BYTES, Configuration, Confinement, ProcessLimits, StartTemplate, Tmpfs};

use super::Namespace;
use crate::backend::{Preload, SpawnOptions, Template, TemplateId, TemplateProcess, WorkerStart};

/// Files and folders that `/tmp` and `/dev/shm` may each hold.
const TMP_INODES: u64 = 20_000;
/// Size of `/tmp` and of the workspace of a template's process, each: what imports and the warm-up write.
const TEMPLATE_FILES_BYTES: u64 = 64 * 1024 * 1024;

/// Variables of every sandbox. Documented in SECURITY.md; nothing of the host's environment gets in.
const VARIABLES: &[(&str, &str)] = &[
    ("HOME", "/home/sandbox"),
    ("USER", "sandbox"),
    ("LOGNAME", "sandbox"),
    ("SHELL", "/bin/bash"),
    ("PATH", "/opt/env/bin:/usr/local/bin:/usr/bin:/bin"),
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
    ("TERM", "dumb"),
    ("TMPDIR", "/tmp"),
    ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
];

/// Folders of the system that programs run from. Binds below them keep their own rules.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt/env", "/opt/python"];
/// Where code may write.
const WRITABLE: &[&str] = &["/mnt/data", "/tmp", "/home/sandbox", "/dev/shm", "/dev/null", "/dev/zero", "/dev/full"];

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// The private file systems of a sandbox or a template: the workspace (bytes, files), and what may be written besides.
fn file_systems(template: &Template, workspace: (u64, u64), tmp_bytes: u64) -> Vec<Tmpfs> {
    vec![
        Tmpfs { target: "/mnt/data".to_owned(), bytes: workspace.0, inodes: workspace.1, mode: 0o700, ..Tmpfs::default() },
        Tmpfs {
            target: "/tmp".to_owned(),
            bytes: tmp_bytes,
            inodes: TMP_INODES,
            mode: 0o755,
            directories: strings(&["tmp", "home/.config/matplotlib"]),
            links: super::root::cache_links(template),
        },
        Tmpfs { target: "/dev/shm".to_owned(), bytes: tmp_bytes, inodes: TMP_INODES, mode: 0o700, ..Tmpfs::default() },
    ]
}

/// Home and `/tmp` share one file system and its limit.
fn rebinds() -> Vec<(String, String)> {
    vec![("/tmp/home".to_owned(), "/home/sandbox".to_owned()), ("/tmp/tmp".to_owned(), "/tmp".to_owned())]
}

fn environment(template: &Template) -> Vec<(String, String)> {
    let own = VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    own.chain(template.variables.iter().cloned()).collect()
}

impl Namespace {
    /// Puts the configuration of a sandbox together; `bounded` tells that a cgroup holds its memory.
    pub(super) fn configuration(&self, template: &Template, options: &SpawnOptions, bounded: bool) -> Configuration {
        let limits = &options.limits;
        let process_limits = ProcessLimits {
            cpu_seconds: limits.cpu_seconds,
            cpu_total_seconds: options.cpu_total(),
            processes: limits.process_rlimit(bounded),
            open_files: limits.open_files,
            memory_bytes: (!bounded).then(|| limits.memory_bytes.saturating_add(BASELINE_BYTES)),
        };
        Configuration {
            hostname: "sandbox".to_owned(),
            tmpfs: file_systems(template, (limits.workspace_bytes, limits.workspace_inodes), limits.tmp_bytes),
            rebinds: rebinds(),
            environment: environment(template),
            worker: if options.worker == WorkerStart::None { Vec::new() } else { template.worker.clone() },
            worker_setup: self.worker_setup(options, &process_limits),
            forked: matches!(options.worker, WorkerStart::Fork(_)),
            // Where the filter keeps bash from asking what its input is, it takes it for a remote login, and reads `~/.bashrc`.
            shell: if options.shell { strings(&["/bin/bash", "--norc", "-c"]) } else { Vec::new() },
            process_spawning: options.process_spawning,
            confinement: self.confinement(),
            limits: process_limits,
        }
    }

    /// How a template's process is started: the places and variables of its sandboxes, and a filter of its own.
    pub(super) fn template_start(&self, template: &Template, root: TemplateId, process: TemplateProcess, preload: &Preload) -> StartTemplate {
        StartTemplate {
            template: process.0,
            root: root.0,
            tmpfs: file_systems(template, (TEMPLATE_FILES_BYTES, TMP_INODES), TEMPLATE_FILES_BYTES),
            rebinds: rebinds(),
            environment: environment(template),
            command: preload.command.clone(),
            memory_bytes: preload.memory_bytes,
            filter: if self.controls.seccomp { self.filters.template.clone() } else { Vec::new() },
            cgroups: 0,
            cgroup_paths: Vec::new(),
        }
    }

    /// The payload of the worker's `setup` frame; `enter` is for a forked one.
    fn worker_setup(&self, options: &SpawnOptions, limits: &ProcessLimits) -> Vec<u8> {
        let filter = |program: &[u8]| if self.controls.seccomp { base64(program) } else { String::new() };
        let late = filter(if options.process_spawning { &self.filters.spawning_worker } else { &self.filters.worker });
        let mut setup = format!("{{\"seccomp\":\"{late}\",\"spawning\":{}", options.process_spawning);
        if let WorkerStart::Fork(_) = options.worker {
            let resources: Vec<String> = limits.resources().iter().map(|(resource, value)| format!("[{resource},{value}]")).collect();
            // On top of what the template has, which the worker finds out.
            let data = limits.memory_bytes.map_or("null".to_owned(), |_| options.limits.memory_bytes.to_string());
            let process = filter(&self.filters.process);
            let resources = resources.join(",");
            setup += &format!(",\"enter\":{{\"filter\":\"{process}\",\"limits\":[{resources}],\"dataBytes\":{data},\"user\":1000,\"group\":1000}}");
        }
        (setup + "}").into_bytes()
    }

    fn confinement(&self) -> Confinement {
        Confinement {
            init_filter: self.filters.init.clone(),
            worker_filter: self.filters.process.clone(),
            shell_filter: self.filters.process.clone(),
            worker_execute: strings(SYSTEM),
            shell_execute: strings(SYSTEM).into_iter().chain(strings(&["/mnt/data", "/tmp", "/home/sandbox"])).collect(),
            read: strings(&["/"]),
            write: strings(WRITABLE),
            without_landlock: !self.controls.landlock,
            without_seccomp: !self.controls.seccomp,
        }
    }
}

/// Standard base64; the one place of this crate that needs it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |word, (index, byte)| word | u32::from(*byte) << (16 - 8 * index));
        for digit in 0..4 {
            let index = usize::try_from((word >> (18 - 6 * digit)) & 63).unwrap_or_default();
            let character = if digit <= chunk.len() { DIGITS.get(index).copied().unwrap_or(b'=') } else { b'=' };
            text.push(char::from(character));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_the_standard_one() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("\u{ff}\u{fe}", "w7/Dvg==")] {
            assert_eq!(super::base64(plain.as_bytes()), coded);
        }
    }
}
