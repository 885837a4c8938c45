"""The template: an interpreter that has imported its libraries, never runs user code, and forks workers.

It serves the launcher over descriptor 3, a socket of datagrams (first byte: the kind; numbers little endian). A fork shares
memory and descriptors with its template, but no threads: so there is exactly one task, and exactly the known descriptors,
before each fork. A module that leaves more behind is left out, which takes a new process image.
"""

import gc
import importlib
import os
import select
import sys
import time

import _signal
import _socket

CONTROL = 3
FORK = 1
READY, FORKED, REFUSED, ENDED, IMPORTING = 1, 2, 3, 4, 6
FORK_REQUEST = 9  # bytes: the kind, the number of the sandbox
REPORT_LIMIT = 32 * 1024
REASON_LIMIT = 500
NEW_PROCESSES = 0x20000000  # CLONE_NEWPID
WARM_UP, START = "<warm-up>", "<start>"
PATIENCE = 0.02  # a thread that has ended stays in sight for a moment

# Libraries would start their threads at import. Workers do not see these variables.
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


def become(profile):
    """Makes this process a template. Returns in each worker that it forks, with what that one does next."""
    return Template(profile).serve()


class Template:
    """Imports what the profile says, then forks at request."""

    def __init__(self, profile):
        self.profile = profile
        self.imported, self.failed = {}, {}
        self.forked = False
        self.skipped = dict(profile.get("skipped", {}))
        os.set_inheritable(CONTROL, False)
        self.control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CONTROL)
        self.woken, self.waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.known = {0, 1, 2, CONTROL, worker.null, self.woken, self.waker}
        os.environ.update(ONE_THREAD)

    def serve(self):
        """Answers the launcher until it closes the socket."""
        worker.prepare_calls()
        for name in ("values", "errors"):
            worker.load(name)
        entering = worker.load("entering")
        self.entering, worker.get_shell = entering.Entering(), entering.no_shell
        warm_up_time = 0.0
        trouble = self.trouble()
        if trouble:  # from a package's start-up file; each fork will be refused
            self.failed[START] = trouble
        else:
            for module in self.profile.get("modules", ()):
                self.load(module)
            warm_up_time = self.warm_up(self.profile.get("warmUp", ""))
        del sys.argv[1:], sys.orig_argv[-2:]  # as a worker that was started has them
        gc.collect()
        gc.freeze()  # or each worker's first collection would copy all of it
        self.report(warm_up_time)
        return self.answer()

    # Imports

    def load(self, module):
        self.send(IMPORTING, module.encode())
        start = time.monotonic()
        try:
            importlib.import_module(module)
        except BaseException as error:
            self.failed[module] = _described(error)
        else:
            self.imported[module] = _milliseconds_since(start)
        trouble = self.trouble()
        if trouble:
            self.start_again(module, trouble)

    def warm_up(self, source):
        """Runs the profile's code and a first execution; the milliseconds it took."""
        self.send(IMPORTING, WARM_UP.encode())
        start = time.monotonic()
        try:
            with self.entering.silence():
                exec(compile(source, WARM_UP, "exec", dont_inherit=True), {"__name__": WARM_UP})
                if "figures" in worker.modules:
                    worker.modules["figures"].show_open_figures()
        except BaseException as error:
            self.failed[WARM_UP] = _described(error)
        self.close_figures()
        self.entering.prepare()
        self.entering.rehearse()
        trouble = self.trouble()
        if trouble and source:
            self.start_again(WARM_UP, trouble)
        return _milliseconds_since(start)

    def close_figures(self):
        """Also font files, which matplotlib itself would close in a fork: each worker would share the place it reads at."""
        helpers, fonts = map(sys.modules.get, ("matplotlib._pylab_helpers", "matplotlib.font_manager"))
        if helpers is not None:
            helpers.Gcf.destroy_all()
        if hasattr(fonts, "_get_font"):
            fonts._get_font.cache_clear()
        gc.collect()

    def trouble(self, more=()):
        """What forbids a fork: tasks and descriptors that should not be. None if all is well."""
        deadline = time.monotonic() + PATIENCE
        while True:
            trouble = _threads_left() or self.process_left() or self.descriptor_left(more)
            if not trouble or time.monotonic() > deadline:
                return trouble
            time.sleep(0.001)

    def process_left(self):
        """A child that a package started. After the first fork, children are workers."""
        if self.forked:
            return None
        while True:
            try:
                process, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if not process:
                return "leaves a process behind"

    def end_children(self):
        """Ends what `process_left` found, as far as the kernel tells who it is; what is left ends with this template."""
        try:
            with open("/proc/self/task/%d/children" % os.getpid()) as file:
                children = file.read().split()
        except OSError:
            return
        for child in children:
            os.kill(int(child), _signal.SIGKILL)
            os.waitpid(int(child), 0)

    def descriptor_left(self, more):
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in self.known and int(name) not in more:
                try:
                    return "leaves a descriptor open: " + os.readlink("/proc/self/fd/" + name)
                except FileNotFoundError:  # the one of the listing
                    pass
        return None

    def start_again(self, culprit, reason):
        """What it left cannot be taken back: this process starts anew, without it."""
        profile = {**self.profile, "skipped": {**self.skipped, culprit: reason[:REASON_LIMIT]}}
        if culprit == WARM_UP:
            profile["warmUp"] = ""
        else:
            profile["modules"] = [module for module in profile["modules"] if module != culprit]
        self.end_children()
        os.set_inheritable(CONTROL, True)
        arguments = [*sys.orig_argv[:-1], driver.encode_json(profile)]
        os.execve(sys.executable, arguments, worker.environment)

    def report(self, warm_up_time):
        limit, text = REASON_LIMIT, b""
        while not text or len(text) > REPORT_LIMIT:
            text = driver.encode_json({
                "version": "%d.%d.%d" % sys.version_info[:3],
                "imported": self.imported,
                "failed": {name: reason[:limit] for name, reason in self.failed.items()},
                "skipped": {name: reason[:limit] for name, reason in self.skipped.items()},
                "warmUpMs": warm_up_time,
            })
            limit //= 2
        self.send(READY, text)

    # Forks

    def answer(self):
        """Forks at request and tells how workers ended; returns in the workers."""
        # Python has to have a handler, or it would not write to the pipe.
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.woken, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self.woken in ready:
                os.read(self.woken, 4096)
            self.reap()
            if CONTROL in ready and self.take_request():
                return self.entering

    def reap(self):
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not process:
                return
            self.send(ENDED, _int32(process) + _int32(status))

    def take_request(self):
        """Serves one request; true in the worker that it made."""
        try:
            request, ancillary, _, _ = self.control.recvmsg(64, _socket.CMSG_SPACE(2 * 4), _socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            request = b""
        if not request:
            os._exit(0)
        rights = b"".join(numbers for _, _, numbers in ancillary)
        descriptors = [int.from_bytes(rights[i : i + 4], sys.byteorder) for i in range(0, len(rights) - 3, 4)]
        if len(request) != FORK_REQUEST or request[0] != FORK or len(descriptors) != 2:
            os._exit(1)
        sandbox = request[1:]
        try:
            process = self.fork(*descriptors)
        except OSError as error:
            self.send(REFUSED, sandbox + _described(error).encode("utf-8", "replace")[:REASON_LIMIT])
        else:
            if not process:
                return True
            self.send(FORKED, sandbox + _int32(process))
        for descriptor in descriptors:
            os.close(descriptor)
        return False

    def fork(self, processes, channel):
        """Forks into the process namespace of a sandbox: 0 in the worker."""
        trouble = self.trouble((processes, channel))
        if trouble:
            raise OSError("the template " + trouble)
        self.entering.join(processes, NEW_PROCESSES)
        self.forked = True
        process = os.fork()  # the C library's: what is to be done after a fork must be done
        if not process:
            try:
                _signal.set_wakeup_fd(-1)
                _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
                self.control.close()
                os.close(self.woken)
                os.close(self.waker)
                self.entering.begin(processes, channel)
            except BaseException:
                os._exit(driver.CANNOT_ENTER)
        return process

    def send(self, kind, data):
        try:
            self.control.send(bytes((kind,)) + data)
        except OSError:  # nobody is there any more
            os._exit(0)


def _threads_left():
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open("/proc/self/task/%s/comm" % task) as file:
                names.append(file.read().strip())
        except OSError:  # it has just ended
            pass
    if len(names) < 2:
        return None
    with open("/proc/self/comm") as file:
        names.remove(file.read().strip())
    return "leaves %d thread%s behind: %s" % (len(names), "s" * (len(names) > 1), ", ".join(names))


def _described(error):
    try:
        text = str(error)
    except BaseException:
        text = ""
    return ("%s: %s" % (type(error).__name__, text))[:REASON_LIMIT]


def _int32(number):
    return number.to_bytes(4, "little", signed=True)


def _milliseconds_since(start):
    return round((time.monotonic() - start) * 1000, 1)
