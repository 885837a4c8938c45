//! Limits of a sandbox, with the names they carry on the wire, in configuration and in the record.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// What a sandbox and its executions may use. Units stand in the names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Time of one execution by the clock on the wall.
    pub wall_seconds: u64,
    /// CPU time of one execution, all its processes together.
    pub cpu_seconds: u64,
    /// CPUs used at once; may be a fraction. Held where a cgroup holds it.
    pub cpus: f64,
    /// Memory of all processes, without the files of the workspace, `/tmp` and `/dev/shm`.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Size of the workspace.
    pub workspace_bytes: u64,
    /// Files and folders in the workspace.
    pub workspace_inodes: u64,
    /// Size of `/tmp` with the home folder, and of `/dev/shm`, each.
    pub tmp_bytes: u64,
    /// What one execution may write to stdout and stderr together before it is ended.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_seconds: 120,
            cpu_seconds: 120,
            cpus: 1.0,
            memory_bytes: 512 * MIB,
            processes: 128,
            open_files: 1024,
            workspace_bytes: 256 * MIB,
            workspace_inodes: 100_000,
            tmp_bytes: 64 * MIB,
            output_bytes: 16 * MIB,
        }
    }
}

impl Limits {
    /// `RLIMIT_NPROC` of a sandbox: init and two runners come on top. Where a control group counts processes too, it has to refuse first,
    /// since its counter tells of it and an rlimit tells nobody.
    #[must_use]
    pub(crate) const fn process_rlimit(&self, counted: bool) -> u64 {
        self.processes.saturating_add(if counted { 35 } else { 3 })
    }

    /// Size of everything a sandbox may keep in memory file systems: workspace, `/tmp`, `/dev/shm`.
    #[must_use]
    pub const fn files_bytes(&self) -> u64 {
        self.workspace_bytes.saturating_add(self.tmp_bytes).saturating_add(self.tmp_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_of_limits_hold_whatever_is_configured(memory in any::<u64>(), workspace in any::<u64>(), tmp in any::<u64>(), processes in any::<u64>()) {
            let limits = Limits { memory_bytes: memory, workspace_bytes: workspace, tmp_bytes: tmp, processes, ..Limits::default() };
            let exact = u128::from(workspace) + 2 * u128::from(tmp);
            prop_assert_eq!(u128::from(limits.files_bytes()), exact.min(u128::from(u64::MAX)));
            // Where a group counts too, it refuses first; nowhere is it less than what was asked for.
            prop_assert!(limits.process_rlimit(true) >= limits.process_rlimit(false) && limits.process_rlimit(false) >= processes);
        }
    }
}
