"""A small init for the tests: starts the driver as a sandbox does, and speaks the worker channel with it."""

import array
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

DRIVER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "driver.py")
SETUP, EXECUTE, SHELL_DONE, TAKEN, INTERRUPT, WAKE, DONE, SHELL = 1, 2, 3, 4, 5, 6, 20, 21
FRAME_LIMIT = 32 * 1024 * 1024
ENVIRONMENT = {
    "HOME": "/tmp",
    "PATH": os.environ["PATH"],
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "MPLCONFIGDIR": os.path.join(tempfile.gettempdir(), "driver-tests-matplotlib"),
}
NAMES = {16: "ready", 17: "display", 18: "result", 19: "error", 20: "done", 21: "shell"}


class Outcome:
    """What one execution sent, in order."""

    def __init__(self):
        self.events = []

    def of(self, name):
        return [payload for kind, payload in self.events if kind == name]

    @property
    def stdout(self):
        return "".join(self.of("stdout"))

    @property
    def stderr(self):
        return "".join(self.of("stderr"))

    @property
    def displays(self):
        return self.of("display")

    @property
    def result(self):
        results = self.of("result")
        assert len(results) < 2, "more than one result"
        return results[0] if results else None

    @property
    def error(self):
        errors = self.of("error")
        assert len(errors) < 2, "more than one error"
        return errors[0] if errors else None


class Died(Exception):
    """The worker ended."""


class Session:
    """One worker. Use as a context manager."""

    def __init__(self, *arguments, seccomp="", environment=None, driver=DRIVER):
        theirs = self._open_channel()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", driver, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("DRIVER_STDERR") else subprocess.DEVNULL,
            cwd=self.path,
            env={**ENVIRONMENT, **(environment or {})},
            pass_fds=(3,),
            preexec_fn=lambda: os.dup2(theirs.fileno(), 3),
        )
        theirs.close()
        self._set_up({"seccomp": seccomp, "spawning": False})

    def _open_channel(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.realpath(self.folder.name)
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(60)
        self.number = 0  # of the execution that runs
        self.commands = []  # the text of each command that ran
        self.running = None  # the command that runs: (process, captures, its stdout, its stderr, pidfd)
        self.withheld = None  # a number, once `taken` frames are held back
        return theirs

    def _set_up(self, setup, descriptors=()):
        self.send(SETUP, setup, descriptors)
        try:
            kind, self.ready = self.receive()
        except Died:
            self.close()
            raise
        assert NAMES[kind] == "ready"

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def close(self):
        self.channel.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def write(self, name, content):
        """A file in the session's folder; its path."""
        path = os.path.join(self.path, name)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def send(self, kind, payload, descriptors=()):
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        frame = len(data).to_bytes(4, "little") + bytes([kind]) + data
        if descriptors:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            self.channel.sendmsg([frame[:1]], control)
            frame = frame[1:]
        self.channel.sendall(frame)

    def receive(self):
        header = self._read(5)
        length = int.from_bytes(header[:4], "little")
        assert length <= FRAME_LIMIT, "frame too long"
        data = self._read(length)
        return header[4], data if header[4] in (SHELL, DONE) else strict_json(data)

    def _read(self, length):
        data = bytearray()
        while len(data) < length:
            try:
                part = self.channel.recv(length - len(data))
            except ConnectionError:
                part = b""
            if not part:
                raise Died
            data += part
        return bytes(data)

    def interrupt(self):
        if self.running:
            self.running[0].send_signal(signal.SIGINT)
        self.send(INTERRUPT, b"")
        self.signal(signal.SIGINT)

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        """Returns when the worker is stopped, in the middle of waiting for a request."""
        self.signal(signal.SIGSTOP)
        with open("/proc/%d/stat" % self.process.pid) as file:
            while file.read().rpartition(")")[2].split()[0] != "T":
                file.seek(0)

    def answer_display(self):
        """Says `taken`, or remembers to do so."""
        if self.withheld is None:
            self.send(TAKEN, b"")
        else:
            self.withheld += 1

    def start(self, code, inputs=None, filename=None, rehearsal=False, fresh=False):
        """Sends an execution; its pipes' read ends."""
        pipes = [os.pipe(), os.pipe()]
        request = {"code": code, "inputs": inputs or {}, "rehearsal": rehearsal, "fresh": fresh}
        if filename:
            request["filename"] = filename
        self.number += 1
        data = self.number.to_bytes(8, "little") + json.dumps(request).encode()
        self.send(EXECUTE, data, [write for _, write in pipes])
        for read, write in pipes:
            os.close(write)
            os.set_blocking(read, False)
        return [read for read, _ in pipes]

    def run(self, code, inputs=None, filename=None, rehearsal=False, interrupt_at=None, observe=None, timeout=60, fresh=False):
        """Runs code to its end. `interrupt_at`: text of stdout that is answered with SIGINT; `observe` sees each event."""
        return self.finish(self.start(code, inputs, filename, rehearsal, fresh), interrupt_at, observe, timeout)

    def finish(self, reads, interrupt_at=None, observe=None, timeout=60):
        """Hears what was started to its end."""
        outcome = Outcome()
        selector = selectors.DefaultSelector()
        selector.register(self.channel, selectors.EVENT_READ)
        for read, name in zip(reads, ("stdout", "stderr")):
            selector.register(read, selectors.EVENT_READ, name)
        deadline = time.monotonic() + timeout

        def drain():
            for read, name in zip(reads, ("stdout", "stderr")):
                data = b""
                try:
                    while part := os.read(read, 65536):
                        data += part
                except BlockingIOError:
                    pass
                else:
                    if read in selector.get_map():
                        selector.unregister(read)
                if data:
                    text = data.decode()
                    outcome.events.append((name, text))
                    if observe:
                        observe(name, text)

        try:
            while True:
                if self.running and self.running[-1] not in selector.get_map():
                    selector.register(self.running[-1], selectors.EVENT_READ, "command")
                ready = selector.select(max(0, deadline - time.monotonic()))
                assert time.monotonic() < deadline, "time is up; so far: %r" % outcome.events[:100]
                drain()
                if interrupt_at and interrupt_at in outcome.stdout:
                    interrupt_at = None
                    self.interrupt()
                if any(key.data == "command" for key, _ in ready):
                    selector.unregister(self.running[-1])
                    self._end_command(outcome)
                if not any(key.fileobj is self.channel for key, _ in ready):
                    continue
                kind, payload = self.receive()
                name = NAMES[kind]
                drain()
                if name in ("shell", "done") and self.running:
                    selector.unregister(self.running[-1])
                    self.running[0].terminate()
                    self._end_command(outcome)
                if name == "done":
                    assert payload == self.number.to_bytes(8, "little"), "it ends the execution that runs"
                    return outcome
                if name == "shell":
                    self._start_command(payload)
                else:
                    outcome.events.append((name, payload))
                if name == "display":
                    self.answer_display()
                if observe:
                    observe(name, payload)
        finally:
            selector.close()
            for read in reads:
                os.close(read)

    def _start_command(self, payload):
        command = payload[1:].decode("utf-8", "surrogateescape")
        self.commands.append(command)
        files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
        process = subprocess.Popen(
            ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=files[0], stderr=files[1], cwd=self.path
        )
        self.running = (process, payload[0] == 1, *files, os.pidfd_open(process.pid))

    def _end_command(self, outcome):
        process, captures, stdout, stderr, pidfd = self.running
        self.running = None
        answer = process.wait().to_bytes(4, "little", signed=True)
        os.close(pidfd)
        for name, file in (("stdout", stdout), ("stderr", stderr)):
            file.seek(0)
            data = file.read()
            file.close()
            if name == "stdout" and captures:
                answer += data
            elif data:
                outcome.events.append((name, data.decode()))
        self.send(SHELL_DONE, answer)


def strict_json(data):
    """What a strict reader takes: UTF-8, no NaN, no lone surrogates."""

    def refuse(name):
        raise AssertionError("not JSON: " + name)

    value = json.loads(data.decode("utf-8"), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value
