//! The kernel calls that rustix does not have: one per function, safe to call, named after the call.
#![expect(unsafe_code, reason = "the one module of this crate that talks to the kernel directly")]

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Turns the `-1` of a call into the error it left.
fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a fork we are on.
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In the old one, with the new one's process id as seen here.
    Parent(i32),
}

/// `fork(2)` through libc, so that its at-fork work is done.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: fork has no memory preconditions; this program never starts a thread, so the child's heap and locks are whole.
    let pid = unsafe { libc::fork() };
    Ok(match checked(c_long::from(pid))? {
        0 => Forked::Child,
        _ => Forked::Parent(pid),
    })
}

/// `clone(2)` like `fork`, with namespace flags.
pub(crate) fn clone_namespaces(flags: c_int) -> io::Result<Forked> {
    let flags = c_long::from(flags | libc::SIGCHLD);
    // SAFETY: with a null stack and no CLONE_VM the child gets a copy of this address space, as fork gives it; this
    // program never starts a thread, and the child only goes on to exec.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    let pid = checked(pid)?;
    Ok(if pid == 0 { Forked::Child } else { Forked::Parent(i32::try_from(pid).unwrap_or(i32::MAX)) })
}

/// `unshare(2)`.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: unshare takes a flag word by value; none of the flags used here changes memory.
    let result = unsafe { libc::unshare(flags) };
    checked(c_long::from(result)).map(drop)
}

/// `setns(2)` with a descriptor of a namespace of the given kind.
pub(crate) fn enter_namespace(namespace: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: setns takes two numbers; this program has one thread, and the kernel refuses what would break it.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), kind) };
    checked(c_long::from(result)).map(drop)
}

/// `RLIMIT_CPU` on Linux.
pub(crate) const LIMIT_CPU: u32 = 0;
/// `RLIMIT_DATA` on Linux.
pub(crate) const LIMIT_DATA: u32 = 2;
/// `RLIMIT_NOFILE` on Linux.
pub(crate) const LIMIT_FILES: u32 = 7;

/// `prlimit(2)` on this process: the soft and the hard limit of a resource, by its number.
pub(crate) fn set_limit(resource: u32, value: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: value, rlim_max: value };
    // SAFETY: pid 0 is this process; `limit` is a whole `rlimit64` that outlives the call; the old limit is not wanted.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, ptr::null_mut::<libc::rlimit64>()) };
    checked(result).map(drop)
}

/// Pointers for exec: valid as long as the strings they were made of.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(ptr::null())).collect()
}

/// `execveat(2)` of the file behind a descriptor. Returns only on failure.
pub(crate) fn execveat(file: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: the path is an empty constant string, and both vectors end in a null pointer and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_execveat, file.as_raw_fd(), c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH) };
    checked(result).err().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO))
}

/// `execve(2)`. Returns only on failure.
pub(crate) fn execve(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: `program` is a C string, and both vectors end in a null pointer and outlive the call.
    let result = unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    checked(c_long::from(result)).err().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO))
}

/// `close_range(2)` from `first` to the end: closes, or with `CLOSE_RANGE_CLOEXEC` marks.
pub(crate) fn close_range(first: RawFd, flags: c_int) -> io::Result<()> {
    // SAFETY: the callers close only descriptors that no live `OwnedFd` will use again: they are about to exec or to leave.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    checked(result).map(drop)
}

/// `dup2(2)`, clearing close-on-exec; also when both numbers are the same.
pub(crate) fn dup2(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    if from.as_raw_fd() == to {
        // SAFETY: F_SETFD takes its argument by value and changes only the descriptor's flag.
        let result = unsafe { libc::fcntl(to, libc::F_SETFD, 0) };
        return checked(c_long::from(result)).map(drop);
    }
    // SAFETY: dup2 takes two numbers; the callers choose `to` among descriptors that nothing else in this process owns.
    let result = unsafe { libc::dup2(from.as_raw_fd(), to) };
    checked(c_long::from(result)).map(drop)
}

/// Takes over a descriptor that this process was started with.
pub(crate) fn inherited(descriptor: RawFd) -> OwnedFd {
    // SAFETY: called once per number at the start of the program, for the descriptors its starter put there; nothing else owns them.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// `mount_setattr(2)` over a whole tree.
pub(crate) fn mount_setattr_recursive(path: &CStr, set: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a C string, and `attributes` is a whole `mount_attr` whose size is passed along.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), libc::AT_RECURSIVE, &raw const attributes, size_of::<libc::mount_attr>())
    };
    checked(result).map(drop)
}

/// `prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER)` with a program given as bytes of `sock_filter`.
pub(crate) fn set_seccomp_filter(program: &[u8]) -> io::Result<()> {
    let mut instructions = Vec::with_capacity(program.len() / size_of::<libc::sock_filter>());
    for chunk in program.chunks_exact(size_of::<libc::sock_filter>()) {
        let &[c0, c1, jt, jf, k0, k1, k2, k3] = chunk else { continue };
        instructions.push(libc::sock_filter { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) });
    }
    let length = u16::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: instructions.as_mut_ptr() };
    // SAFETY: `program` points at `length` instructions that outlive the call; the kernel copies and checks them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    checked(c_long::from(result)).map(drop)
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING)`: leaves the caller's keyring behind.
pub(crate) fn join_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    checked(result).map(drop)
}

/// `fcntl(F_OFD_SETLK)`: locks or unlocks one byte of a file without waiting.
pub(crate) fn lock_byte(file: BorrowedFd<'_>, byte: i64, lock: bool) -> io::Result<()> {
    let kind = if lock { libc::F_WRLCK } else { libc::F_UNLCK };
    let request = libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the request is a whole `flock` and outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) };
    checked(c_long::from(result)).map(drop)
}

/// Blocks the given signals and returns a `signalfd(2)` that reads them.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: both set pointers are to a whole `sigset_t` (or null, where the old set is not wanted).
    let result = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    checked(c_long::from(result))?;
    // SAFETY: -1 asks for a new descriptor; the set is whole.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    checked(c_long::from(descriptor))?;
    // SAFETY: signalfd just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Unblocks every signal and gives each its default action, as a program expects to start.
pub(crate) fn reset_signals() {
    let none = signal_set(&[]);
    // SAFETY: the set is whole; the old one is not wanted.
    let _ = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid action for every signal; numbers that refuse it are left as they are.
        let _ = unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: `sigset_t` is a plain array of integers, for which all zeroes is a value (the empty set).
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for &signal in signals {
        // SAFETY: `set` is a whole, initialized set.
        let _ = unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// `getrusage(RUSAGE_CHILDREN)`: CPU microseconds of all descendants that were waited for.
pub(crate) fn children_cpu_microseconds() -> u64 {
    // SAFETY: `rusage` holds integers only, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `rusage` that outlives the call.
    let _ = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or_default().saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_usec).unwrap_or_default())
    };
    micros(usage.ru_utime).saturating_add(micros(usage.ru_stime))
}

/// `_exit(2)`: leaves at once, without running what libc would run at exit.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// `landlock_create_ruleset(LANDLOCK_CREATE_RULESET_VERSION)`: the interface's version, `None` without Landlock.
pub(crate) fn landlock_abi() -> Option<u32> {
    const VERSION: c_long = 1;
    // SAFETY: a null attribute of size 0 with the version flag only asks; no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0, VERSION) };
    u32::try_from(result).ok()
}
