//! A control group that belongs to the ordinary user, as a service manager would give one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// Folders of one group in every tree, removed at the end.
pub(crate) struct Delegated {
    folders: Vec<PathBuf>,
}

impl Delegated {
    /// Makes the group; `None` where this host has no trees, or gives none away.
    pub(crate) fn make(user: &str) -> anyhow::Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
        let name = format!("belljar-delegated-{}", std::process::id());
        let mut made = Self { folders: Vec::new() };
        for place in trees(&mounts) {
            let folder = place.join(&name);
            // Two controllers of one tree share their folder.
            if folder.exists() || fs::create_dir(&folder).is_err() {
                continue;
            }
            made.folders.push(folder.clone());
            crate::ci::check(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(&folder))?;
        }
        Ok((!made.folders.is_empty()).then_some(made))
    }

    /// Has a program start inside the group, before it becomes the user.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let mut script = String::new();
        for folder in &self.folders {
            script.push_str(&format!("echo $$ > '{}/cgroup.procs' || exit 1\n", folder.display()));
        }
        script.push_str("exec \"$@\"");
        let mut inside = Command::new("/bin/sh");
        inside.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for folder in &self.folders {
            for below in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Where the trees with the controllers that we use are mounted: those of version 1, or the one of version 2 that has them.
fn trees(mounts: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (Some(place), mut after) = (before.split(' ').nth(4).map(Path::new), after.split(' ')) else { continue };
        let (kind, options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
        let wanted = ["memory", "pids", "cpu", "freezer"];
        let version_1 = kind == "cgroup" && options.split(',').any(|option| wanted.contains(&option));
        let controllers = fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default();
        let version_2 = kind == "cgroup2" && controllers.split_whitespace().any(|controller| controller == "memory");
        if version_1 || version_2 {
            found.push(place.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_version_1_are_found_by_their_controllers() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 24 0:28 / /sys/fs/cgroup/net rw - cgroup cgroup rw,net_cls\n33 24 0:29 / /proc rw - proc proc rw\nnonsense\n";
        assert_eq!(trees(mounts), [Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup/cpu")]);
    }
}
