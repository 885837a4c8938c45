"""The worker of a sandbox: runs a session's Python code and reports over descriptor 3.

Only what every execution needs is here, and it imports C modules alone: this file is compiled at each start, and `json`,
`ast`, `socket` and `traceback` cost 10 to 20 ms each. The rest is loaded when first needed (`load`): `values` (results),
`errors` (tracebacks), `hooks` (imports of known packages), `figures` (matplotlib), `documents` (encrypted and scanned
files), `interactive` (IPython), `template` and `entering` (workers that are forked instead of started).
"""

import builtins
import sys
from posix import _exit, close, dup, dup2, getcwd, open as open_descriptor, set_inheritable, uname

import _ast
import _json
import _signal
import _socket
import _thread

# User code may replace or delete builtins; functions defined below keep the ones of the start.
__builtins__ = dict(vars(builtins))

CHANNEL = 3
SETUP, EXECUTE, SHELL_DONE, TAKEN, INTERRUPT, WAKE = 1, 2, 3, 4, 5, 6
READY, DISPLAY, RESULT, ERROR, DONE, SHELL = 16, 17, 18, 19, 20, 21
ANSWERS = {DISPLAY: TAKEN, SHELL: SHELL_DONE}  # what init answers, each kind in the order of the requests
FRAME_LIMIT = 32 * 1024 * 1024
TEXT_LIMIT = 1024 * 1024

AST_ONLY = _ast.PyCF_ONLY_AST
TOP_LEVEL_AWAIT = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
COROUTINE_FLAG = 0x80
FUTURE_FLAGS = 0x1FE0000  # the CO_FUTURE_* bits; a `from __future__` import lasts for the session
READ_WRITE_CLOEXEC = 0o2 | 0o2000000
READ_SIZE = 64 * 1024
MOST_DESCRIPTORS = 8  # with one frame: `setup` may bring six namespaces and a Landlock domain
E2BIG = 7
CANNOT_ENTER = 70  # the exit code of a worker that could not give up what it has to

WAKING = "x = 1\nx"  # nothing of the session is in it

ModuleType = type(sys)
DIRECTORY = __file__.rpartition("/")[0]
THIS_MODULE = sys.modules[__name__]  # `__main__` becomes the user's
PREFIX = "_sandbox_"  # names of the lazily loaded modules; no file of a user has such a name


# --- JSON, without the json package (which imports `re` and `enum`) ---


class _DecoderSettings:
    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(name):
        raise ValueError("not JSON: " + name)


_scan = _json.make_scanner(_DecoderSettings)


def decode_json(data):
    """The value of one JSON document, as bytes without surrounding white space."""
    return _scan(data.decode("utf-8"), 0)[0]


def _refuse(value):
    raise TypeError("no JSON form for " + type(value).__name__)


def encode_json(value):
    """JSON as UTF-8; ValueError or TypeError where there is no such form."""
    encoder = _json.make_encoder({}, _refuse, _json.encode_basestring, None, ":", ",", False, False, False)
    text = "".join(encoder(value, 0))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate stands inside a string; write it as the six characters that Python's own stderr would show.
        return "".join("\\\\u%04x" % ord(c) if "\ud800" <= c <= "\udfff" else c for c in text).encode("utf-8")


# --- Interrupts ---


class Interrupts:
    """Decides what a SIGINT does: raise in running user code, wait for the end of a protected step, or nothing.

    A KeyboardInterrupt is never raised in the driver's own edges: while a frame is sent or read, or between the last
    instruction of user code and the moment it is marked as over.

    A signal that finds nothing running may have come too late for the execution before, or too early for the one that
    init has sent already. Init says `interrupt` in front of each signal, and so tells the two apart: behind `execute` in
    the order of its frames, it is meant for that one.
    """

    IDLE, STARTING, RUNNING, ENDING = range(4)

    def __init__(self):
        self.phase = self.IDLE
        self.pending = False
        self.missed = False  # a signal found nothing running
        self.shields = 0
        self.main_thread = _thread.get_ident()

    def install(self):
        _signal.signal(_signal.SIGINT, self._on_signal)

    def begin(self):
        """From here a signal belongs to the execution that was just received."""
        self.phase = self.STARTING

    def end(self):
        self.install()  # code may have put its own handler there
        self.pending = False
        self.phase = self.IDLE

    def _on_signal(self, _number, frame):
        if self.phase == self.RUNNING:
            may_raise = self.shields == 1 if frame.f_code is _WAIT_CODE else not self.shields
            if may_raise and frame.f_code is not _CALL_CODE:
                raise KeyboardInterrupt
        if self.phase == self.IDLE:
            self.missed = True
        else:
            self.pending = True

    def said(self):
        """Init said `interrupt`: behind `execute`, a signal that was missed belongs to that one."""
        if self.missed and self.phase == self.STARTING:
            self.missed, self.pending = False, True

    def call(self, function, *arguments):
        """Runs `function` with interrupts on."""
        before, self.phase = self.phase, self.RUNNING
        try:
            if self.pending:
                self.pending = False
                raise KeyboardInterrupt
            return function(*arguments)
        finally:
            self.phase = before if before == self.RUNNING else self.ENDING

    def wait(self, function, *arguments):
        """Calls what may block for long, inside one shield: a signal ends it, and only it."""
        if self.pending and self.shields == 1 and self.phase == self.RUNNING and self._in_main_thread():
            self.pending = False
            raise KeyboardInterrupt
        return function(*arguments)

    def _in_main_thread(self):
        return _thread.get_ident() == self.main_thread

    def __enter__(self):
        if self._in_main_thread():
            self.shields += 1

    def __exit__(self, *_exception):
        if self._in_main_thread():
            self.shields -= 1
            if self.pending and not self.shields and self.phase == self.RUNNING:
                self.pending = False
                raise KeyboardInterrupt


_CALL_CODE, _WAIT_CODE = Interrupts.call.__code__, Interrupts.wait.__code__


# --- The channel ---


class Channel:
    """Frames over the socket. A frame is written whole or the worker ends, and so it does when nobody listens any more.

    Threads of user code display and run commands, too, and one that outlived its execution does so while the main thread
    waits for the next. So any thread that waits may be the one that reads, for all of them. An answer is known by its
    number among those of its kind: one that nobody waits for any more, after an interrupt, is just counted.
    """

    def __init__(self, descriptor, interrupts, wake):
        set_inheritable(descriptor, False)
        self.wake = wake
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor)
        self.interrupts = interrupts
        self.sending = _thread.allocate_lock()
        self.commands = _thread.allocate_lock()
        self.executing = False
        self.sent = {DISPLAY: 0, SHELL: 0}
        self.answered = {TAKEN: 0, SHELL_DONE: 0}
        self.command_answer = b""
        self.requests = []
        self.waiting = []  # a lock for each thread that waits; released when there may be news for it
        self.reader = {}  # under "lock" the one of the thread that reads; one step both asks and takes
        self.buffer, self.descriptors = bytearray(), []

    def send(self, kind, payload):
        """Sends a frame; its number among those of its kind."""
        frame = len(payload).to_bytes(4, "little") + bytes((kind,)) + payload
        with self.interrupts, self.sending:
            if kind == SHELL and not self.executing:
                raise OSError("a shell command needs an execution that runs; this thread outlived its own")
            if kind == DONE:
                self.executing = False
            number = self.sent[kind] = self.sent.get(kind, 0) + 1
            try:
                self.socket.sendall(frame)
            except OSError:
                # A half-written frame cannot be mended, and without the channel nobody listens.
                _exit(1)
        return number

    def show(self, payload):
        """Sends a display and waits until it has its place in the output."""
        self._wait_until(self._answer_to(DISPLAY, self.send(DISPLAY, payload)))

    def command(self, payload):
        """Has a command run; the answer. One at a time: init runs no more than one."""
        with self.commands:
            self._wait_until(self._answer_to(SHELL, self.send(SHELL, payload)))
            answer, self.command_answer = self.command_answer, b""
            return answer

    def next_request(self):
        """The next `setup` or `execute` as (kind, payload, descriptors)."""
        self._wait_until(lambda: self.requests)
        if self.interrupts.missed:
            self._look()
        return self.requests.pop()

    def _look(self):
        """Takes what has arrived already: behind the request may stand that it is interrupted."""
        with self.interrupts:
            try:
                if not self.reader:  # else a thread does this
                    self.socket.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
                    self._read()
            except BlockingIOError:
                pass
            self.interrupts.missed = False

    def _answer_to(self, kind, number):
        return lambda: self.answered[ANSWERS[kind]] >= number

    def _wait_until(self, there):
        """Returns when `there()`. One thread reads, the others sleep until it has read something or leaves."""
        lock = _thread.allocate_lock()
        lock.acquire()
        with self.interrupts:
            try:
                self.waiting.append(lock)
                while not there():
                    if self.reader.setdefault("lock", lock) is lock:
                        self._read()
                        self._wake_all()
                    else:
                        self.interrupts.wait(lock.acquire)
            finally:
                # Whatever exception, also one that a signal handler of the user's raised: another thread reads on.
                if self.reader.get("lock") is lock:
                    del self.reader["lock"]
                self.waiting.remove(lock)
                self._wake_all()

    def _wake_all(self):
        for lock in tuple(self.waiting):
            try:
                lock.release()
            except RuntimeError:  # it is awake
                pass

    def _read(self):
        """Waits for bytes and takes what is complete. An exception on the way loses nothing: the rest stays buffered."""
        try:
            self.interrupts.wait(self.socket.recv, 1, _socket.MSG_PEEK)
            space = _socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
            data, ancillary, flags, _ = self.socket.recvmsg(READ_SIZE, space, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            _exit(0)
        if not data or flags & _socket.MSG_CTRUNC:
            _exit(0)
        self.buffer += data
        for level, kind, numbers in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                self.descriptors += [int.from_bytes(numbers[i : i + 4], sys.byteorder) for i in range(0, len(numbers) - 3, 4)]
        while self._take_frame():
            pass

    def _take_frame(self):
        if len(self.buffer) < 5:
            return False
        length, kind = int.from_bytes(self.buffer[:4], "little"), self.buffer[4]
        if length > FRAME_LIMIT:
            _exit(0)
        if len(self.buffer) < 5 + length:
            return False
        payload = bytes(self.buffer[5 : 5 + length])
        del self.buffer[: 5 + length]
        if kind in (SETUP, EXECUTE):
            descriptors, self.descriptors = self.descriptors, []
            self.requests.append((kind, payload, descriptors))
            if kind == EXECUTE:
                self.executing = True
                self.interrupts.begin()
        elif kind in self.answered:
            if kind == SHELL_DONE:
                self.command_answer = payload
            self.answered[kind] += 1
        elif kind == INTERRUPT:
            self.interrupts.said()
        elif kind == WAKE:
            self.wake()
        else:
            _exit(0)
        return True


def close_quietly(descriptor):
    try:
        close(descriptor)
    except OSError:
        pass


# --- Loading the rest of the driver ---


class OwnBuiltins:
    """For the time of a step of the driver: the builtins as they were, which the standard library needs, too."""

    def __enter__(self):
        now = vars(builtins)
        missing = object()
        self.changed = {n: now.get(n, missing) for n, v in __builtins__.items() if now.get(n, missing) is not v}
        self.missing = missing
        for name in self.changed:
            now[name] = __builtins__[name]

    def __exit__(self, *_exception):
        now = vars(builtins)
        for name, value in self.changed.items():
            if value is self.missing:
                now.pop(name, None)
            elif now.get(name) is __builtins__[name]:
                now[name] = value


class IsolatedImports:
    """For the time of an import by the driver: the interpreter's own path, and no module of the user's in the way.

    Without it, `/mnt/data/random.py` or an imported `token.py` would end up inside `traceback` or IPython.
    """

    def __init__(self, path):
        self.trusted = list(path)
        self.finders = list(sys.meta_path)
        self.depth = 0

    def __enter__(self):
        self.depth += 1
        if self.depth == 1:
            self.builtins = OwnBuiltins()
            self.builtins.__enter__()
            self.path, self.hidden = list(sys.path), {}
            sys.path[:] = self.trusted
            sys.meta_path += [finder for finder in self.finders if finder not in sys.meta_path]
            # Not a list of the items: making one may collect garbage, and what that runs may import something.
            for name, module in sys.modules.copy().items():
                if self._is_foreign(module):
                    self.hidden[name] = sys.modules.pop(name)

    def __exit__(self, *_exception):
        self.depth -= 1
        if not self.depth:
            sys.path[:] = self.path
            sys.modules.update(self.hidden)
            self.builtins.__exit__()

    def _is_foreign(self, module):
        # Not getattr: modules that load lazily would start to.
        attributes = getattr(module, "__dict__", None)
        file = attributes.get("__file__") if isinstance(attributes, dict) else None
        return isinstance(file, str) and not any(entry and file.startswith(entry) for entry in self.trusted)


# --- The worker ---


class Worker:
    """One session's interpreter: its namespace, its history and the execution that runs."""

    def __init__(self, always_ipython=False):
        self.interrupts = Interrupts()
        self.imports = IsolatedImports([*sys.path, DIRECTORY])
        self.always_ipython = always_ipython
        self.modules = {}
        self.sources = {}  # the text of each execution by its file name, for tracebacks and `inspect`
        self.flags = 0
        self.number = 0
        self.inputs_seen = [""]
        self.outputs_seen = {}
        self.last_values = ("", "", "")
        self.shell = None
        self.event_loop = None
        self.flush_c = self.install_filter = self.entering = None
        self.has_result = False

    # Life

    def serve(self, profile=None):
        """Answers frames until the channel closes. With a profile, this process is a template and its forks do that."""
        self.prepare()
        entering = None if profile is None else self.load("template").become(profile)
        self.channel = Channel(CHANNEL, self.interrupts, self.wake_up)
        try:
            self._setup(entering)
            while True:
                self._execute_next()
        except OSError:
            _exit(0)

    def prepare(self):
        """Makes the namespace, the streams and the hooks that user code meets."""
        self.interrupts.install()
        self.null = open_descriptor("/dev/null", READ_WRITE_CLOEXEC)
        sys.dont_write_bytecode = True  # or `__pycache__` would show up among the session's files
        self.make_main_module()
        self._open_streams()
        self.start_directory = getcwd()
        builtins.input = __builtins__["input"] = _no_input
        builtins.display = __builtins__["display"] = self._display_lazily
        import os  # already loaded by `site`

        os.environ.setdefault("MPLBACKEND", "module://" + PREFIX + "figures")
        os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")
        self.environment = dict(os.environ)
        self.load("hooks").install(self)

    def load(self, name):
        """A module of the driver, from its own folder and under a name that user files do not shadow."""
        module = self.modules.get(name)
        if module is None:
            with self.interrupts, self.imports:
                module = ModuleType(PREFIX + name)
                module.__file__ = DIRECTORY + "/" + name + ".py"
                module.__builtins__ = __builtins__
                with open(module.__file__, encoding="utf-8") as file:
                    code = compile(file.read(), module.__file__, "exec", dont_inherit=True)
                module.driver, module.worker = THIS_MODULE, self
                sys.modules[module.__name__] = module
                exec(code, module.__dict__)
                self.modules[name] = module
        return module

    def make_main_module(self):
        self.main_module = main = ModuleType("__main__")
        main.__builtins__ = builtins
        self.namespace = vars(main)
        self.namespace.update(inputs={}, In=self.inputs_seen, Out=self.outputs_seen, _="", __="", ___="")
        sys.modules["__main__"] = main

    def prepare_calls(self):
        """Makes the functions of the C library that a worker needs."""
        self.flush_c, self.install_filter = c_function("fflush"), _filter_installer()

    def _setup(self, entering):
        kind, payload, descriptors = self.channel.next_request()
        if kind != SETUP:
            _exit(0)
        setup = decode_json(payload)
        self.entering = entering
        if entering is None:
            self.prepare_calls()
        else:
            entering.enter(setup.get("enter"), descriptors)
        if setup.get("seccomp"):
            self.install_filter(setup["seccomp"])
        # Only now: before the filter is on, no import may find a file of the user.
        sys.path.insert(0, getcwd())
        self._detach()
        version = "%d.%d.%d" % sys.version_info[:3]
        self.channel.send(READY, encode_json({"runtime": "python", "version": version}))

    def _execute_next(self):
        kind, payload, descriptors = self.channel.next_request()
        if kind != EXECUTE or len(descriptors) != 2:
            _exit(0)
        self.interrupts.install()  # a signal handler may have put its own there since
        number, request = payload[:8], decode_json(payload[8:])
        self._attach(descriptors)
        # Held back while user code runs: what is needed afterwards, when it has used up all descriptors.
        reserve = [dup(self.null) for _ in range(4)]
        error = None
        try:
            error = self._rehearse() if request.get("rehearsal") else self._execute(request)
        except BaseException as exception:  # ours, not the user's: report it, and stay for the next execution
            error = exception
        for descriptor in reserve:
            close_quietly(descriptor)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, 1000))  # code may have left one too low for the rest
        self._send_error(error)
        del error
        sys.setrecursionlimit(limit)
        self.interrupts.end()
        self._detach()
        self.channel.send(DONE, number)

    def wake_up(self):
        """Code is about to come: touches what that will need, so that it finds the processor's caches as after a line of code."""
        try:
            tree = self.parse(WAKING, "<wake>")
            for code, _ in self.compile_steps(WAKING, tree.body, "<wake>"):
                eval(code, {"__builtins__": __builtins__})
        except Exception:
            pass

    def _rehearse(self):
        """Before it is handed out, a forked worker runs a small job on this very way, for the sake of the memory that touches."""
        if self.entering is not None:
            self.entering.rehearse(self.channel)

    # Streams

    def _open_streams(self):
        """Streams that pass text on at each line. Bulk output costs a write per line, which the output limit bounds;
        holding lines back would need a thread or a timer, and both would be visible to user code."""
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            stream = open(descriptor, "w", 1, "utf-8", "backslashreplace", "\n", False)
            setattr(sys, name, stream)
            setattr(sys, "__%s__" % name, stream)
        sys.stdin = sys.__stdin__ = open(0, "r", encoding="utf-8", errors="surrogateescape", closefd=False)
        self.streams = (sys.stdout, sys.stderr, sys.stdin)

    def _attach(self, descriptors):
        for target, descriptor in zip((1, 2), descriptors):
            if descriptor != target:
                dup2(descriptor, target)
                close(descriptor)
        # Each execution writes to its own pipes again, whatever the one before did to `sys.stdout`.
        if any(stream.closed for stream in self.streams):
            self._open_streams()
        sys.stdout, sys.stderr, sys.stdin = self.streams

    def _detach(self):
        self.flush()
        try:
            dup2(self.null, 1)
        except OSError:  # closed by user code
            self.null = open_descriptor("/dev/null", READ_WRITE_CLOEXEC)
            dup2(self.null, 1)
        dup2(self.null, 2)

    def flush(self):
        """Python's and C's buffers into the pipes, so that what was printed before stands before."""
        with self.interrupts:
            for stream in {id(s): s for s in (*self.streams[:2], sys.stdout, sys.stderr)}.values():
                try:
                    stream.flush()
                except Exception:  # closed or replaced by user code
                    pass
            if self.flush_c is not None:
                self.flush_c(None)

    # One execution

    def _execute(self, request):
        """Runs the code; its exception, or None."""
        if request.pop("fresh", False):
            return self.load("fresh").run(self._execute, request)
        self.number += 1
        self.has_result = False
        source = request["code"]
        filename = request.get("filename")
        if request.get("inputs"):
            self.namespace["inputs"] = request["inputs"]
        if filename:
            self.namespace["__file__"] = filename
        else:
            self.namespace.pop("__file__", None)
        self.filename = filename or "<execution %d>" % self.number
        self.add_source(self.filename, source)
        self.parsed = None
        error = self._run(source)
        drawing_error = self._show_figures()
        return drawing_error if error is None else error

    def _run(self, source):
        """Plain Python where the code is that; otherwise, or once IPython is there, through its shell."""
        try:
            tree = self.parse(source, self.filename)
            self.parsed = (source, tree)
            plain = self.shell is None and not self._needs_shell(source, tree)
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as exception:
            plain, tree = False, None
            error = exception.with_traceback(None)
        if plain:
            self.inputs_seen.append(source)
            try:
                steps = self.compile_steps(source, tree.body, self.filename)
                self.interrupts.call(self.run_steps, steps)
            except BaseException as exception:
                return exception
            return None
        try:
            shell = self.get_shell()
        except Exception as exception:
            return error if tree is None else exception
        return shell.run_execution(source)

    def parse(self, source, filename):
        """The syntax tree, in which `await` may stand at top level."""
        return compile(source, filename, "exec", AST_ONLY | TOP_LEVEL_AWAIT | self.flags, True)

    def _needs_shell(self, source, tree):
        if self.always_ipython or "get_ipython" in source:
            return True
        # A line that begins with an unknown name may be a magic without its percent sign (`pwd`, `ls -la`).
        first = tree.body[0] if tree.body else None
        if not isinstance(first, _ast.Expr) or "\n" in source.strip():
            return False
        node = first.value
        while not isinstance(node, _ast.Name):
            node = next((getattr(node, f) for f in ("left", "value", "func") if hasattr(node, f)), None)
            if not isinstance(node, _ast.AST):
                return False
        return node.id not in self.namespace and not hasattr(builtins, node.id)

    def compile_steps(self, source, body, filename):
        """Code objects as (code, shown): everything, then the last expression, whose value is shown."""
        shown = bool(body) and isinstance(body[-1], _ast.Expr)
        steps = []
        if not shown or len(body) > 1:
            steps.append((self._compile(_ast.Module(body[:-1] if shown else body, []), filename, "exec"), False))
        if shown:
            code = self._compile(_ast.Expression(body[-1].value), filename, "eval")
            steps.append((code, not _ends_in_semicolon(source, body[-1])))
        return steps

    def _compile(self, tree, filename, mode):
        code = compile(tree, filename, mode, self.flags | TOP_LEVEL_AWAIT, True)
        self.flags |= code.co_flags & FUTURE_FLAGS
        return code

    def run_steps(self, steps):
        """Runs code objects in the session's namespace and shows the value of the one that asks for it."""
        for code, shown in steps:
            awaiting = self.load("awaiting") if code.co_flags & COROUTINE_FLAG else None
            value = eval(code, self.namespace)
            if awaiting:
                value = awaiting.run(value)
            if shown and value is not None:
                self._show_value(value)

    def _show_value(self, value):
        text = None if self.shell else self.load("values").plain_text(value)
        if text is None:
            try:
                shell = self.get_shell()
            except ImportError:
                text = repr(value)  # an environment without IPython
            else:
                return shell.displayhook(value)
        self._remember(value)
        self.send_result(value, text, {})

    def _remember(self, value):
        """`_`, `__`, `___`, `_3` and `Out`, as IPython keeps them; names the user took are left alone."""
        names = ("_", "__", "___")
        ours = all(self.namespace.get(n) is v for n, v in zip(names, self.last_values)) and not hasattr(builtins, "_")
        self.last_values = (value, *self.last_values[:2])
        if ours:
            self.namespace.update(zip(names, self.last_values))
        self.outputs_seen[self.number] = self.namespace["_%d" % self.number] = value

    def _show_figures(self):
        """Figures still open at the end are shown; returns what drawing them raised."""
        if "figures" in self.modules:
            try:
                self.interrupts.call(self.modules["figures"].show_open_figures)
            except BaseException as exception:
                return exception
        return None

    def add_source(self, filename, source):
        """Makes the lines of an execution known to tracebacks and to `inspect.getsource`."""
        self.sources[filename] = source
        linecache = sys.modules.get("linecache")
        if linecache is not None:
            self.load("hooks").add_lines(linecache, filename, source)

    def get_shell(self):
        """IPython's shell over this session's namespace, made at first need."""
        if self.shell is None:
            module = self.load("interactive")
            with self.interrupts, self.imports:
                self.shell = module.make_shell(self)
        return self.shell

    def _display_lazily(self, *objects, **options):
        """Stands for IPython's `display` until there is a shell."""
        self.get_shell()
        return self.load("interactive").display(*objects, **options)

    # Frames

    def send_display(self, data, metadata=None):
        """A display, after everything printed before it."""
        self.flush()
        payload = self._encode({"data": _frame_data(self, data), "metadata": metadata or {}})
        if len(payload) > FRAME_LIMIT:
            text = "[display of %s left out: %d bytes are more than can be shown; save it to a file to keep it]"
            text %= (", ".join(sorted(map(str, data))), len(payload))
            payload = encode_json({"data": {"text/plain": text}, "metadata": {}})
        self.channel.show(payload)

    def send_result(self, value, text, data):
        """The value of the last expression."""
        has_json, form = self.load("values").json_form(value)
        text = shorten(text)
        result = {"text": text, "json": form, "hasJson": has_json, "data": _frame_data(self, data)}
        self.flush()
        payload = self._encode(result)
        if len(payload) > FRAME_LIMIT:
            payload = encode_json({"text": text, "json": None, "hasJson": False, "data": {}})
        self.has_result = True
        self.channel.send(RESULT, payload)

    def _send_error(self, error):
        if error is None:
            return
        if isinstance(error, SystemExit) and error.code in (None, 0):
            return
        try:
            errors = self.load("errors")
            with OwnBuiltins():
                payload = encode_json(errors.describe(error))
        except BaseException:  # out of memory, or a standard module that user code broke
            name = type(error).__name__
            memory = isinstance(error, MemoryError)
            payload = encode_json({"name": name, "message": "", "traceback": name, "isMemoryError": memory})
        self.flush()
        self.channel.send(ERROR, payload)

    def _encode(self, frame):
        try:
            return encode_json(frame)
        except (TypeError, ValueError, RecursionError):
            return encode_json(self.load("values").cleaned(frame))

    def run_command(self, command, capture):
        """Has init run a shell command; its exit code (negative: the signal that ended it) and what was captured."""
        self.flush()
        request = (b"\1" if capture else b"\0") + command.encode("utf-8", "surrogateescape")
        if len(request) > FRAME_LIMIT:
            raise OSError(E2BIG, "the command is too long")
        answer = self.channel.command(request)
        return int.from_bytes(answer[:4], "little", signed=True), answer[4:].decode("utf-8", "replace")


def _frame_data(worker, data):
    """A mime bundle as the channel takes it: base64 for bytes, and a picture in one format."""
    if "image/png" in data and "image/jpeg" in data:  # as Pillow gives them
        data = {mime: value for mime, value in data.items() if mime != "image/jpeg"}
    if any(isinstance(value, (bytes, bytearray, memoryview)) for value in data.values()):
        return worker.load("values").base64_values(data)
    return data


def shorten(text, limit=TEXT_LIMIT):
    """At most `limit` characters, with what was left out."""
    if len(text) <= limit:
        return text
    return "%s\n[… %d more characters]" % (text[:limit], len(text) - limit)


def _ends_in_semicolon(source, statement):
    """Whether the last expression is followed by `;`. What follows can only be `)`, `;`, white space and comments."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")[statement.end_lineno - 1 :]
    lines[0] = lines[0].encode()[statement.end_col_offset :].decode()
    return any(";" in line.partition("#")[0] for line in lines)


def _no_input(prompt="", /):
    """Replaces `input`: nobody is there to type."""
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    raise EOFError("no input is available: pass data with `inputs`")


def c_function(name):
    """A function of the C library that returns an int. From the C part of `ctypes`: the package takes 3 ms to import."""
    from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, dlopen, dlsym

    class Function(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
        _restype_ = c_type("i")

    return Function(dlsym(dlopen(None, 0), name))


def c_type(letter):
    """A C type by its letter in `struct`."""
    from _ctypes import _SimpleCData

    return type(_SimpleCData)("c_type", (_SimpleCData,), {"_type_": letter})


def _filter_installer():
    """A function that puts a seccomp filter on. Without it not one instruction of user code may run, so failing ends the
    worker."""
    from _ctypes import Structure, byref, get_errno
    from binascii import a2b_base64

    class Program(Structure):
        _fields_ = [("length", c_type("H")), ("filter", c_type("z"))]

    set_no_new_privileges, set_filter, all_threads, instruction_size = 38, 1, 1, 8
    prctl, syscall, long = c_function("prctl"), c_function("syscall"), c_type("L")
    seccomp = {"x86_64": 317, "aarch64": 277}.get(uname().machine)

    def install(encoded):
        try:
            instructions = a2b_base64(encoded)
            if not instructions or len(instructions) % instruction_size:
                raise ValueError("not a filter")
            program = Program(len(instructions) // instruction_size, instructions)
            if prctl(set_no_new_privileges, long(1), long(0), long(0), long(0)):
                raise OSError(get_errno(), "no_new_privs")
            # A thread that a package's start-up file left would keep what this one gives up.
            if syscall(long(seccomp), long(set_filter), long(all_threads), byref(program)):
                raise OSError(get_errno(), "seccomp")
        except BaseException:
            _exit(CANNOT_ENTER)

    return install


def main(arguments=()):
    """Serves the channel at descriptor 3 until it closes; with `--template <JSON>`, as a template's forks."""
    template = tuple(arguments[:1]) == ("--template",)
    profile = decode_json(arguments[1].encode()) if template else None
    Worker(always_ipython="--always-ipython" in arguments).serve(profile)


if __name__ == "__main__":
    main(sys.argv[1:])
