"""A small launcher for the tests: a template in namespaces of its own, and sandboxes below it to fork workers into."""

import array
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback

from tests.fake_init import DRIVER, ENVIRONMENT, Died, Session

NEW_USER, NEW_MOUNTS, NEW_PROCESSES = 0x10000000, 0x20000, 0x20000000
NEW_NETWORK, NEW_IPC, NEW_NAMES, NEW_CGROUPS = 0x40000000, 0x8000000, 0x4000000, 0x2000000
AROUND_TEMPLATE = NEW_USER | NEW_MOUNTS | NEW_NETWORK | NEW_IPC | NEW_NAMES
AROUND_SANDBOX = AROUND_TEMPLATE | NEW_PROCESSES | NEW_CGROUPS
PRIVATE, NOT_DUMPABLE = 0x40000 | 0x4000, (4, 0)
READY, FORKED, REFUSED, ENDED, IMPORTING = 1, 2, 3, 4, 6
USER = 1000
KINDS = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def close_quietly(descriptor):
    try:
        os.close(descriptor)
    except OSError:
        pass


def unshare(kinds, user):
    """New namespaces, in which the caller is `user`."""
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", kinds)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", "%d %d 1" % (user, uid))
    write("/proc/self/gid_map", "%d %d 1" % (user, gid))


def mount_workspace(name):
    """An own `/mnt/data`, and a host name to tell where one is."""
    call("mount", b"none", b"/", None, PRIVATE, None)
    call("mount", b"tmpfs", b"/mnt", b"tmpfs", 0, b"mode=0755")
    os.mkdir("/mnt/data")
    os.chdir("/mnt/data")
    call("sethostname", name, len(name))


def can_unshare():
    """Whether this machine lets us make user namespaces."""
    process = os.fork()
    if not process:
        try:
            unshare(AROUND_TEMPLATE, 0)
            mount_workspace(b"probe")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(process, 0)[1] == 0


# Runs the driver with one more folder to find modules in.
WRAPPER = """\
import sys
sys.path.append(%r)
__file__ = %r
exec(compile(open(__file__).read(), __file__, "exec"))
"""


class Refused(Exception):
    """The template did not fork."""


class Template:
    """A template's process. Use as a context manager; `modules` is a list of names, or of (name, source)."""

    def __init__(self, modules=(), warm_up="", wait=True):
        self.folder = tempfile.TemporaryDirectory()
        self.seen = []  # (kind, payload) of what was received
        self.forks = 0
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(60)
        names = [module if isinstance(module, str) else module[0] for module in modules]
        for name, source in (module for module in modules if not isinstance(module, str)):
            write(os.path.join(self.folder.name, name + ".py"), source)
        driver = os.path.join(self.folder.name, "wrapper")
        write(driver, WRAPPER % (self.folder.name, DRIVER))

        def enter():
            unshare(AROUND_TEMPLATE, 0)
            mount_workspace(b"template")
            os.dup2(theirs.fileno(), 3)

        self.process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", driver, "--template", json.dumps({"modules": names, "warmUp": warm_up})],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("DRIVER_STDERR") else subprocess.DEVNULL,
            env=ENVIRONMENT,
            pass_fds=(3,),
            preexec_fn=enter,
        )
        theirs.close()
        if wait:
            self.report = json.loads(self.wait_for(READY))

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def close(self):
        self.control.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def receive(self):
        data = self.control.recv(65536)
        if not data:
            raise Died
        self.seen.append((data[0], data[1:]))
        return self.seen[-1]

    def wait_for(self, kind):
        """The payload of the next datagram of that kind."""
        while True:
            received, payload = self.receive()
            if received == kind:
                return payload

    def imports(self):
        """What it said it imports, in order."""
        return [payload.decode() for kind, payload in self.seen if kind == IMPORTING]

    def fork(self, init, channel):
        """Has a worker forked; its process."""
        self.forks += 1
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [init, channel]))]
        self.control.sendmsg([struct.pack("<BQ", 1, self.forks)], rights)
        while True:
            kind, payload = self.receive()
            if kind in (FORKED, REFUSED):
                assert int.from_bytes(payload[:8], "little") == self.forks
                if kind == REFUSED:
                    raise Refused(payload[8:].decode())
                return int.from_bytes(payload[8:], "little", signed=True)


class Sandbox:
    """Namespaces below those of a template, held by a process that stands for init."""

    def __init__(self, template, first=None):
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        holder = os.fork()
        if not holder:
            try:
                self._hold(os.pidfd_open(template.process.pid), theirs, first)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        theirs.close()
        self.init, self.namespaces = None, []  # descriptors: the user namespace first, that of processes last
        while not self.init or not self.namespaces:
            answer, descriptors, _, _ = socket.recv_fds(self.link, 16, len(KINDS))
            assert answer, "no sandbox"
            if descriptors:
                self.namespaces = descriptors
            else:
                self.init = int(answer)
        os.waitpid(holder, 0)
        self.pidfd = os.pidfd_open(self.init)

    @staticmethod
    def _hold(template, link, first):
        for descriptor in map(int, os.listdir("/proc/self/fd")):  # or sockets of the test would outlive it in here
            if descriptor > 2 and descriptor not in (template, link.fileno()):
                close_quietly(descriptor)
        call("setns", template, AROUND_TEMPLATE)
        unshare(AROUND_SANDBOX, USER)
        init = os.fork()
        if init:
            link.send(b"%d" % init)
            os._exit(0)
        os.close(template)
        mount_workspace(b"sandbox")
        call("mount", b"proc", b"/proc", b"proc", 0, None)
        if first:  # the number of the first process after this one
            write("/proc/sys/kernel/ns_last_pid", str(first - 1))
        namespaces = [os.open("/proc/self/ns/" + kind, os.O_RDONLY) for kind in KINDS]
        call("prctl", *NOT_DUMPABLE)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        socket.send_fds(link, [b"ready"], namespaces)
        link.recv(1)  # until the tests end, however they do

    def close(self):
        if self.pidfd is not None:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.link.close()
            for descriptor in (self.pidfd, *self.namespaces):
                os.close(descriptor)
            self.pidfd = None


class ForkedSession(Session):
    """A worker that was forked from a template into a sandbox of its own."""

    def __init__(self, template, warm=False, seccomp="", process_filter="", domain=None, first=None, **rules):
        self.template = template
        theirs = self._open_channel()
        self.sandbox = Sandbox(template, first)
        *namespaces, processes = self.sandbox.namespaces
        try:
            with theirs:
                self.worker = template.fork(processes, theirs.fileno())
            enter = {"filter": process_filter, "limits": [], "dataBytes": None}
            enter.update({"user": USER, "group": USER, **rules})
            setup = {"seccomp": seccomp, "spawning": False, "enter": enter}
            self._set_up(setup, namespaces if domain is None else [*namespaces, domain])
            if warm:  # as what is parked has done
                self.run("", rehearsal=True)
        except BaseException:
            self.close()
            raise

    def close(self):
        self.channel.close()
        self.sandbox.close()
        self.folder.cleanup()

    def signal(self, number):
        os.kill(self.worker, number)
