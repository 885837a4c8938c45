//! Gives rights away: capabilities for init, Landlock and seccomp for the worker and for shell commands.

use std::io;
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use protocol::message::{Confinement, Failure};
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::launcher::failed;
use crate::sys;

/// The newest Landlock interface we know the meaning of.
const KNOWN_ABI: ABI = ABI::V6;

/// Drops every capability for good, forbids new privileges, and hides this process from those of the same user.
pub(crate) fn drop_rights() -> Result<(), Failure> {
    const STEP: &str = "drop";
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // This kernel is older than the capability.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return failed(STEP, "the bounding set", Err(error)),
        }
    }
    failed(STEP, "the ambient set", rustix::thread::clear_ambient_capability_set())?;
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    failed(STEP, "securebits", rustix::thread::set_capabilities_secure_bits(locked))?;
    let none = CapabilitySet::empty();
    failed(STEP, "capabilities", rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }))?;
    failed("set", "no_new_privs", rustix::thread::set_no_new_privs(true))?;
    failed("set", "dumpable", rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
}

/// The Landlock interface of this kernel, 0 where there is none.
pub(crate) fn landlock_abi() -> u32 {
    let abi = sys::landlock_abi();
    abi.unwrap_or_default()
}

/// Which processes a domain is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain {
    /// A language worker.
    Worker,
    /// A shell command.
    Shell,
}

/// Puts Landlock and then seccomp on the calling process; from here on it may only exec.
pub(crate) fn enter(domain: Domain, rules: &Confinement) -> io::Result<()> {
    if !rules.without_landlock {
        ruleset(domain, rules).and_then(RulesetCreated::restrict_self).map_err(|error| io::Error::other(error.to_string()))?;
    }
    if rules.without_seccomp {
        return Ok(());
    }
    sys::set_seccomp_filter(match domain {
        Domain::Worker => &rules.worker_filter,
        Domain::Shell => &rules.shell_filter,
    })
}

/// A Landlock domain for another process to enter; `None` where it is off or this kernel has none.
pub(crate) fn domain_descriptor(domain: Domain, rules: &Confinement) -> io::Result<Option<OwnedFd>> {
    if rules.without_landlock {
        return Ok(None);
    }
    ruleset(domain, rules).map(Option::from).map_err(|error| io::Error::other(error.to_string()))
}

/// Keeps the calling process, and all it starts, from signalling anybody else, where this kernel has that.
pub(crate) fn enter_signal_domain() -> io::Result<()> {
    let entered = Ruleset::default().set_compatibility(CompatLevel::BestEffort).scope(Scope::from_all(KNOWN_ABI)).and_then(Ruleset::create);
    entered.and_then(RulesetCreated::restrict_self).map(drop).map_err(|error| io::Error::other(error.to_string()))
}

fn ruleset(domain: Domain, rules: &Confinement) -> Result<RulesetCreated, landlock::RulesetError> {
    let write = AccessFs::from_all(KNOWN_ABI) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Execute | AccessFs::IoctlDev);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let execute = match domain {
        Domain::Worker => &rules.worker_execute,
        Domain::Shell => &rules.shell_execute,
    };
    // Layers that this kernel does not have are left out here; the host knows the interface in force and says so.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN_ABI))?
        .handle_access(AccessNet::from_all(KNOWN_ABI))?
        .scope(Scope::from_all(KNOWN_ABI))?
        .create()?;
    let ruleset = allow(ruleset, &rules.read, read)?;
    let ruleset = allow(ruleset, execute, read | AccessFs::Execute)?;
    allow(ruleset, &rules.write, write)
}

fn allow(mut ruleset: RulesetCreated, paths: &[String], access: BitFlags<AccessFs>) -> Result<RulesetCreated, landlock::RulesetError> {
    for path in paths {
        // A folder that this host's tree does not have needs no rule.
        if let Ok(place) = PathFd::new(path) {
            let access = if is_folder(path) { access } else { access & AccessFs::from_file(KNOWN_ABI) };
            ruleset = ruleset.add_rule(PathBeneath::new(place, access))?;
        }
    }
    Ok(ruleset)
}

fn is_folder(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
