//! Which host user stands behind the user of a sandbox, and how a process becomes it.
//!
//! Started as root of the host, each sandbox gets a host user id of its own that nobody else uses; started by an ordinary
//! user, the sandbox's user is that user. Inside it is always [`INSIDE`], and nothing maps to host user 0.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use protocol::message::Failure;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::launcher::{HOST, failed};
use crate::sys;

/// User and group id inside every sandbox.
pub const INSIDE: u32 = 1000;

/// First host user id given to sandboxes of a root launcher: above what distributions and container tools hand out.
pub const FIRST: u32 = 0x7000_0000;
/// How many there are.
pub const COUNT: u32 = 0x0fff_0000;

/// Capabilities that init needs for its set-up, in its own namespaces: mounts, limits, and dropping the rest.
const SETUP: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_RESOURCE).union(CapabilitySet::SETPCAP);

/// Whether we run as root of a namespace that has the ids of [`FIRST`], so that each sandbox can have its own.
pub(crate) fn may_map_any_user() -> bool {
    rustix::process::geteuid().is_root() && covers(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default(), FIRST, COUNT)
}

/// Whether a `uid_map` text contains the whole range.
fn covers(map: &str, first: u32, count: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(start)), Some(_), Some(Ok(length))) = (numbers.next(), numbers.next(), numbers.next()) else { return false };
        start <= u64::from(first) && u64::from(first) + u64::from(count) <= start.saturating_add(length)
    })
}

/// Whether our user is user 0 of the namespace above ours: root with a short map, whom no sandbox may stand for.
pub(crate) fn is_root_above() -> bool {
    rustix::process::geteuid().is_root() && maps_root_to_root(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

fn maps_root_to_root(map: &str) -> bool {
    map.lines().any(|line| line.split_whitespace().take(2).eq(["0", "0"]))
}

/// Maps the caller to itself in the user namespace it just made.
pub(crate) fn map_self(uid: u32, gid: u32) -> Result<(), Failure> {
    write_map("/proc/self", (uid, gid), (uid, gid), 1, true)
}

/// Maps [`INSIDE`] in the child's user namespace to `user` (privileged), or to our own user.
pub(crate) fn map_child(pid: i32, user: u32, privileged: bool) -> Result<(), Failure> {
    let process = format!("/proc/{pid}");
    if privileged {
        write_map(&process, (INSIDE, INSIDE), (user, user), 1, false)
    } else {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        write_map(&process, (INSIDE, INSIDE), (uid, gid), 1, true)
    }
}

/// Maps, in the user namespace of a template, all users that sandboxes below it may get, each to itself.
pub(crate) fn map_template(pid: i32, privileged: bool) -> Result<(), Failure> {
    let process = format!("/proc/{pid}");
    if privileged {
        write_map(&process, (FIRST, FIRST), (FIRST, FIRST), COUNT, false)
    } else {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        write_map(&process, (uid, gid), (uid, gid), 1, true)
    }
}

/// Maps `count` (users, groups) inside to (users, groups) outside.
fn write_map(process: &str, inside: (u32, u32), outside: (u32, u32), count: u32, deny_groups: bool) -> Result<(), Failure> {
    const STEP: &str = "write the user map";
    if deny_groups {
        // Already denied by an outer namespace where there is one; the kernel then refuses to say it again.
        let _ = std::fs::write(format!("{process}/setgroups"), "deny");
    }
    failed(STEP, "gid_map", std::fs::write(format!("{process}/gid_map"), format!("{} {} {count}", inside.1, outside.1)))?;
    failed(STEP, "uid_map", std::fs::write(format!("{process}/uid_map"), format!("{} {} {count}", inside.0, outside.0)))
}

/// Becomes [`INSIDE`] and keeps, over the exec to come, the capabilities of [`SETUP`] only.
pub(crate) fn become_inside(privileged: bool) -> io::Result<()> {
    become_user(INSIDE, privileged)?;
    keep_over_exec(SETUP)
}

/// Becomes a user of this user namespace, with the group of the same number and no other.
pub(crate) fn become_user(user: u32, privileged: bool) -> io::Result<()> {
    if privileged {
        rustix::thread::set_thread_groups(&[])?;
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(user));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Keeps these capabilities over the exec to come, and no others.
pub(crate) fn keep_over_exec(kept: CapabilitySet) -> io::Result<()> {
    rustix::thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    for capability in kept.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Hands out host user ids.
pub(crate) struct UserIds {
    privileged: bool,
    taken: BTreeSet<u32>,
    lock: Option<OwnedFd>,
}

impl UserIds {
    /// For a root launcher, opens the file on which all launchers of this host agree by locking one byte per id.
    pub(crate) fn new(privileged: bool) -> Self {
        let lock = if privileged { open_lock().ok() } else { None };
        Self { privileged, taken: BTreeSet::new(), lock }
    }

    pub(crate) fn privileged(&self) -> bool {
        self.privileged
    }

    /// An id that no other sandbox of this host uses; our own user where we cannot give one.
    pub(crate) fn take(&mut self) -> Result<u32, Failure> {
        if !self.privileged {
            return Ok(rustix::process::geteuid().as_raw());
        }
        for _ in 0..1000 {
            let mut random = [0_u8; 4];
            failed("read", "random bytes", rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()))?;
            let user = FIRST + u32::from_ne_bytes(random) % COUNT;
            let free = self.lock.as_ref().is_none_or(|lock| sys::lock_byte(lock.as_fd(), i64::from(user), true).is_ok());
            if free && self.taken.insert(user) {
                return Ok(user);
            }
        }
        Err(Failure { step: "find".to_owned(), object: "an unused user id".to_owned(), errno: libc::EAGAIN })
    }

    pub(crate) fn release(&mut self, user: u32) {
        if self.taken.remove(&user)
            && let Some(lock) = &self.lock
        {
            let _ = sys::lock_byte(lock.as_fd(), i64::from(user), false);
        }
    }
}

fn open_lock() -> io::Result<OwnedFd> {
    let folder = format!("{HOST}/run/belljar");
    match rustix::fs::mkdir(&folder, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(format!("{folder}/user-ids"), flags, Mode::from_raw_mode(0o600))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_the_namespace_above_is_known_by_the_map() {
        assert!(maps_root_to_root("         0          0          1\n"));
        assert!(!maps_root_to_root("0 1000 1\n1 100000 65536\n"));
    }

    #[test]
    fn only_a_map_with_the_whole_range_makes_us_privileged() {
        assert!(covers("         0          0 4294967295\n", FIRST, COUNT));
        assert!(!covers("0 100000 65536\n", FIRST, COUNT));
        assert!(!covers("1000 1000 1\n", FIRST, COUNT));
        assert!(!covers("", FIRST, COUNT));
        assert!(!covers("0 0 nonsense\n", FIRST, COUNT));
    }
}
