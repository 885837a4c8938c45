"""What a forked worker does before user code: it enters its sandbox, gives its rights up, and takes on an identity of its own.

All of it is prepared in the template, so that a worker compiles and imports nothing. The order is that of init (`confine.rs` in
`crates/guest`), and a step that fails ends the worker: init sees its channel close.
"""

import os
import resource
import sys
from posix import uname

import _thread
from _ctypes import byref, get_errno

NULL = "/dev/null"
WORKSPACE = "/mnt/data"
NAMESPACES = 6  # descriptors in front of the Landlock domain: user first, who enters that may enter the others
DATA_FIELD = 5  # of /proc/self/statm
CAPABILITY_VERSION = 0x20080522
SET_DUMPABLE, DROP_BOUNDING, SET_SECUREBITS, NO_NEW_PRIVILEGES, AMBIENT, CLEAR_AMBIENT = 4, 24, 28, 38, 47, 4
# No root, no set-uid fix-up, no ambient raise; each of them and keep-caps locked.
SECUREBITS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80
EINVAL = 22
JOIN_SESSION_KEYRING = 1
SYSTEM_CALLS = {
    "x86_64": {"capget": 125, "capset": 126, "keyctl": 250, "landlock_restrict_self": 446},
    "aarch64": {"capget": 90, "capset": 91, "keyctl": 219, "landlock_restrict_self": 446},
}

FIRST_JOB = """\
rows = {str(number): number for number in range(4)}
print(len(rows), sorted(rows, reverse=True)[0])
"""
PANDAS_JOB = """\
import pandas
numbers = range(1000)
frame = pandas.DataFrame({"key": ["a", "b"] * 500, "number": [n % 7 for n in numbers], "value": [n * 0.5 for n in numbers]})
totals = frame.groupby("key")["value"].sum()
print(frame.groupby("number").value.sum(), totals)
rows = totals.to_dict()
"""


def no_shell():
    """Stands for `get_shell` where nothing may stay: IPython has one shell per process."""
    raise ImportError("there is no shell in a template")


class Entering:
    """The steps of a worker between its fork and its first execution."""

    def __init__(self):
        self.numbers = SYSTEM_CALLS[uname().machine]
        self.long = driver.c_type("L")
        self.setns, self.prctl_of_c, self.syscall_of_c = map(driver.c_function, ("setns", "prctl", "syscall"))
        self.capability_header = (driver.c_type("I") * 2)(CAPABILITY_VERSION, 0)
        self.capabilities = (driver.c_type("I") * 6)()
        self.page = resource.getpagesize()

    def prepare(self):
        """What depends on the modules that the template has imported."""
        self.job = driver.encode_json({"code": FIRST_JOB + (PANDAS_JOB if "pandas" in sys.modules else "") + "rows\n"})
        if "_hashlib" in sys.modules or "_ssl" in sys.modules:
            try:
                import _ssl  # the way to the generator that both share
            except ImportError:
                return
            _ssl.RAND_bytes(1)  # sets OpenSSL up, which takes it milliseconds

    # System calls

    def join(self, descriptor, kinds):
        self.check(self.setns(descriptor, kinds), "setns")

    def check(self, result, name):
        if result < 0:
            error = get_errno()
            raise OSError(error, "%s: %s" % (name, os.strerror(error)))

    def prctl(self, option, argument=0):
        long = self.long
        self.check(self.prctl_of_c(option, long(argument), long(0), long(0), long(0)), "prctl")

    def call(self, name, *arguments):
        self.check(self.syscall_of_c(self.long(self.numbers[name]), *arguments), name)

    # Entering

    def begin(self, processes, channel):
        """Right after the fork: no descriptor of the template's is left but its null device."""
        os.close(processes)
        os.dup2(channel, driver.CHANNEL, inheritable=False)
        os.close(channel)
        os.setsid()
        os.umask(0o022)
        del worker.get_shell
        worker.interrupts.main_thread = _thread.get_ident()
        worker.interrupts.install()

    def enter(self, rules, descriptors):
        """Everything that `setup` asks for; init has finished the sandbox."""
        try:
            if len(descriptors) < NAMESPACES:
                raise OSError("not every namespace came along")
            self._join_namespaces(descriptors[:NAMESPACES])
            domain = descriptors[NAMESPACES:]  # none where this kernel has no Landlock
            self._own_null_device()
            self._set_limits(rules)
            self._drop_rights(rules["user"], rules["group"])
            for descriptor in domain:
                long = self.long
                self.call("landlock_restrict_self", long(descriptor), long(0))
                os.close(descriptor)
            self.prctl(SET_DUMPABLE, 1)  # lost with the change of user
            if rules.get("filter"):
                worker.install_filter(rules["filter"])
            self.reseed()
            _restore_environment()
        except BaseException:
            os._exit(driver.CANNOT_ENTER)

    def _join_namespaces(self, namespaces):
        for descriptor in namespaces:
            self.join(descriptor, 0)
            os.close(descriptor)
        os.chdir(WORKSPACE)
        worker.start_directory = os.getcwd()
        try:
            self.call("keyctl", self.long(JOIN_SESSION_KEYRING), self.long(0))
        except OSError:  # a kernel without keyrings
            pass

    def _own_null_device(self):
        """The template's was opened through mounts that are not the sandbox's."""
        null = os.open(NULL, os.O_RDWR | os.O_CLOEXEC)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.dup2(null, worker.null, inheritable=False)
        os.close(null)

    def _set_limits(self, rules):
        limits = list(rules["limits"])
        if rules.get("dataBytes") is not None:
            file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            own = int(os.read(file, 4096).split()[DATA_FIELD]) * self.page
            os.close(file)
            limits.append((resource.RLIMIT_DATA, own + rules["dataBytes"]))
        for number, value in limits:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))

    def _drop_rights(self, user, group):
        for capability in range(64):
            try:
                self.prctl(DROP_BOUNDING, capability)
            except OSError as error:
                if error.errno != EINVAL:
                    raise
                break
        self.prctl(AMBIENT, CLEAR_AMBIENT)
        self.prctl(SET_SECUREBITS, SECUREBITS)  # before the change of user, which may take the right to it
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        self.call("capset", byref(self.capability_header), byref(self.capabilities))
        self.prctl(NO_NEW_PRIVILEGES, 1)
        self.call("capget", byref(self.capability_header), byref(self.capabilities))
        if any(bytes(self.capabilities)) or os.getresuid() != (user,) * 3 or os.getresgid() != (group,) * 3:
            raise OSError("rights are left")

    def reseed(self):
        """Two workers of one template must never draw the same numbers or names."""
        for name, step in _RESEEDING.items():
            if name in sys.modules:
                step(sys.modules[name])

    # The first job

    def silence(self):
        """For code that must not send anything."""
        return _Silence()

    def rehearse(self, channel=None):
        """Runs a small job for the sake of the memory it touches, as a worker that nobody ever sees does."""
        try:
            stand_in = driver.Worker()
            stand_in.channel, stand_in.modules, stand_in.streams = channel or _Nobody(), worker.modules, worker.streams
            stand_in.flush_c, stand_in.namespace = worker.flush_c, {"__name__": "__main__", "__builtins__": __builtins__}
            stand_in.get_shell = no_shell
            stand_in._send_error(stand_in._execute(driver.decode_json(self.job)))
        except Exception:
            pass


class _Nobody:
    """A channel that leads nowhere."""

    def send(self, _kind, _payload):
        return 0

    def show(self, _payload):
        pass

    def command(self, _payload):
        raise OSError("no commands here")


class _Silence:
    def __enter__(self):
        worker.channel = _Nobody()

    def __exit__(self, *_exception):
        del worker.channel


def _restore_environment():
    """The variables of a worker that was started; the template added some, and imports may have."""
    for name in [name for name in os.environ if name not in worker.environment]:
        del os.environ[name]
    for name, value in worker.environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


# --- What must not be the same in two workers ---


def _forget(*names):
    """A step that takes back what a module remembers of the process, where this version has such a thing."""

    def step(module):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, None)

    return step


def _new_authkey(process):
    process.current_process()._config["authkey"] = process.AuthenticationString(os.urandom(32))


def _new_semaphore_names(synchronize):
    synchronize.SemLock._rand = type(synchronize.SemLock._rand)()


_RESEEDING = {
    "random": lambda random: random.seed(),
    "numpy.random.mtrand": lambda mtrand: mtrand.seed(),  # what `numpy.random` and scipy's distributions draw from
    # OpenSSL knows a fork by the process id, and in two sandboxes that is the same.
    "_ssl": lambda ssl: ssl.RAND_add(os.urandom(32), 32.0),
    # SQLite looks at the process id when it opens a file, and sees that it is another one.
    "_sqlite3": lambda sqlite: sqlite.connect("/dev/null").close(),
    "tempfile": _forget("_name_sequence", "tempdir"),
    # The C library behind it keeps a node and a clock sequence of its own, which cannot be taken back: Python's way does without.
    "uuid": _forget("_generate_time_safe", "_node", "_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"),
    "multiprocessing.process": _new_authkey,
    "multiprocessing.synchronize": _new_semaphore_names,
    "platform": _forget("_uname_cache"),  # the name of the host
}
