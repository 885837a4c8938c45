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
SETUP, EXECUTE, SHELL_DONE, SHELL = 1, 2, 3, 21
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
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.realpath(self.folder.name)
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(60)
        self.commands = []
        base = {"HOME": "/tmp", "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TZ": "UTC"}
        base["MPLCONFIGDIR"] = os.path.join(tempfile.gettempdir(), "driver-tests-matplotlib")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", driver, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("DRIVER_STDERR") else subprocess.DEVNULL,
            cwd=self.path,
            env={**base, **(environment or {})},
            pass_fds=(3,),
            preexec_fn=lambda: os.dup2(theirs.fileno(), 3),
        )
        theirs.close()
        self.send(SETUP, {"seccomp": seccomp, "spawning": False})
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
        assert length <= 32 * 1024 * 1024, "frame too long"
        data = self._read(length)
        return header[4], data if header[4] == SHELL else strict_json(data)

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
        os.kill(self.process.pid, signal.SIGINT)

    def start(self, code, inputs=None, filename=None):
        """Sends an execution; its pipes' read ends."""
        pipes = [os.pipe(), os.pipe()]
        request = {"code": code, "inputs": inputs or {}}
        if filename:
            request["filename"] = filename
        self.send(EXECUTE, request, [write for _, write in pipes])
        for read, write in pipes:
            os.close(write)
            os.set_blocking(read, False)
        return [read for read, _ in pipes]

    def run(self, code, inputs=None, filename=None, interrupt_at=None, observe=None, timeout=60):
        """Runs code to its end. `interrupt_at`: text of stdout that is answered with SIGINT; `observe` sees each event."""
        reads = self.start(code, inputs, filename)
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
                ready = selector.select(max(0, deadline - time.monotonic()))
                assert ready, "time is up; so far: %r" % outcome.events
                drain()
                if interrupt_at and interrupt_at in outcome.stdout:
                    interrupt_at = None
                    self.interrupt()
                if not any(key.fileobj is self.channel for key, _ in ready):
                    continue
                kind, payload = self.receive()
                name = NAMES[kind]
                drain()
                if name == "done":
                    return outcome
                if name == "shell":
                    self._shell(payload, outcome)
                else:
                    outcome.events.append((name, payload))
                if observe:
                    observe(name, payload)
        finally:
            selector.close()
            for read in reads:
                os.close(read)

    def _shell(self, payload, outcome):
        command = payload[1:].decode("utf-8", "surrogateescape")
        self.commands.append(command)
        done = subprocess.run(
            ["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.path
        )
        answer = done.returncode.to_bytes(4, "little", signed=True)
        if payload[0] == 1:
            answer += done.stdout.encode()
        else:
            outcome.events.append(("stdout", done.stdout))
        outcome.events.append(("stderr", done.stderr))
        self.send(SHELL_DONE, answer)


def strict_json(data):
    """What a strict reader takes: UTF-8, no NaN, no lone surrogates."""

    def refuse(name):
        raise AssertionError("not JSON: " + name)

    value = json.loads(data.decode("utf-8"), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value
