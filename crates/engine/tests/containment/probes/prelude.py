# What every probe begins with. `P` holds the parameters of the host; the probe adds attempts and facts, and `report` prints them
# as one JSON document. An attempt is "OK" where it had its effect; else the error's name, or how the process that made it ended.
import ctypes
import errno
import json
import os
import select
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
ATTEMPTS, FACTS = {}, {}
MODE = P["mode"]
MAY_FORK = MODE != "worker"

NUMBERS = {
    "ptrace": 101, "syslog": 103, "setuid": 105, "setgid": 106, "setreuid": 113, "setregid": 114, "setgroups": 116,
    "setresuid": 117, "setresgid": 119, "personality": 135, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155,
    "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167,
    "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175,
    "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "setxattr": 188, "lookup_dcookie": 212, "clock_settime": 227,
    "mq_open": 240, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "splice": 275,
    "tee": 276, "vmsplice": 278, "perf_event_open": 298, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "seccomp": 317,
    "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "memfd_secret": 447, "io_uring_setup": 425, "io_uring_enter": 426,
    "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "process_mrelease": 448, "shmget": 29, "semget": 64, "msgget": 68, "fork": 57, "vfork": 58, "clone": 56, "execve": 59,
    "prctl": 157, "ioctl": 16, "setsockopt": 54, "socketpair": 53, "mknod": 133, "execveat": 322, "pidfd_send_signal": 424,
    "quotactl_fd": 443, "mlock": 149, "mlockall": 151, "remap_file_pages": 216, "sched_setscheduler": 144, "sched_setattr": 314,
    "setpriority": 141, "ioprio_set": 251, "sched_setaffinity": 203, "fanotify_init": 300, "inotify_init": 253, "inotify_init1": 294,
    "statmount": 457, "listmount": 458, "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455,
    "futex_requeue": 456, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462, "setxattrat": 463,
    "getxattrat": 464, "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467, "timerfd_create": 283, "timer_create": 222,
    "sync": 162, "syncfs": 306, "sync_file_range": 277, "clock_adjtime": 305, "rt_sigqueueinfo": 129, "membarrier": 324, "fcntl": 72,
    "sendmsg": 46, "signalfd4": 289, "kill": 62,
}


if MODE == "host":
    # A control must not be able to harm the host, whatever is wrong with its probe: its own processes are all that it may send a signal.
    def _own(pid, number, send=os.kill):
        if number != 0 and pid <= 1:
            raise RuntimeError("a control may not send that")
        send(pid, number)

    os.kill = _own
    del os.killpg


def raw(number, *arguments):
    """A system call's result; OSError where it fails."""
    if MODE == "host" and number == NUMBERS["kill"] and arguments[1] != 0:
        raise RuntimeError("a control may not send that")
    words = [a if isinstance(a, (ctypes.Array, ctypes._SimpleCData, bytes)) or a is None else ctypes.c_ulong(a & (2**64 - 1)) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result


def outcome(action):
    """ "OK", a word that the action returns, or the name of its error."""
    try:
        result = action()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__ if error.errno is None else str(error.errno))
    except BaseException as error:
        return type(error).__name__
    return result if isinstance(result, str) else "OK"


def forked(action, seconds=2.0):
    """The outcome of an action in a process of its own; here where there may be none."""
    if not MAY_FORK:
        return outcome(action)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.write(write, outcome(action).encode())
        finally:
            os._exit(0)
    os.close(write)
    ready = select.select([read], [], [], seconds)[0]
    text = os.read(read, 4096).decode() if ready else "hung"
    os.close(read)
    if text == "hung":
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and text in ("", "OK"):
        return "killed " + signal.Signals(os.WTERMSIG(status)).name
    return text or "ended"


def attempt(name, action):
    ATTEMPTS[name] = outcome(action)


def attempt_forked(name, action):
    ATTEMPTS[name] = forked(action)


def call(name, *arguments, label=None):
    """Attempts a system call by its name."""
    attempt(label or name, lambda: raw(NUMBERS[name], *arguments) and None)


def read_some(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.read(descriptor, 64)
    except IsADirectoryError:
        os.listdir(path)
    finally:
        os.close(descriptor)


def there(path):
    os.lstat(path)


def loaded(protocol):
    """Whether the kernel has a protocol. A control asks for no other: that would have the host load a module."""
    with open("/proc/self/net/protocols") as file:
        return any(line.split()[0] == protocol for line in file)


def attempt_protocol(protocol, name, action):
    if P["control"] and not loaded(protocol):
        ATTEMPTS[name] = "not called"
    else:
        attempt(name, action)


def status():
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def progress():
    """What there is so far: whoever is killed has said it."""
    report()


def count_until_refused(name, action, most):
    """How often an action succeeds, and how it is refused in the end."""
    kept = []
    FACTS[name] = 0
    while len(kept) < most:
        try:
            kept.append(action())
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            FACTS["end of " + name] = errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)
            break
        FACTS[name] = len(kept)
        if len(kept) % 64 == 0:
            progress()
    return kept


def report():
    print(json.dumps({"attempts": ATTEMPTS, "facts": FACTS}), flush=True)
