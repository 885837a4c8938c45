"""Templates: what they import, what they refuse, and that a worker they fork is like one that was started."""

import base64
import ctypes
import os
import platform
import select
import signal
import struct
import time
import unittest

from tests.fake_init import Died, Session
from tests.fake_launcher import ENDED, FORKED, KINDS, ForkedSession, Refused, Sandbox, Template, can_unshare
from tests.test_robustness import SOCKET_CALL, filter_refusing

THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
LATE_THREAD = """\
import signal, threading, time
def start(*_):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
signal.signal(signal.SIGALRM, start)
signal.setitimer(signal.ITIMER_REAL, 0.3)
"""
DESCRIPTOR = "kept = open('/etc/passwd')\n"

# What user code may see of its process.
SURROUNDINGS = """\
import gc, os, resource, signal, sys, threading
{
    "argv": sys.argv, "flags": repr(sys.flags), "arguments": sys.orig_argv[1:],
    "path": sys.path, "cwd": os.getcwd(), "environment": dict(os.environ), "umask": os.umask(0o022),
    "threads": [thread.name for thread in threading.enumerate()], "tasks": len(os.listdir("/proc/self/task")),
    "gc": [gc.isenabled(), gc.get_threshold()], "main": sys.modules["__main__"].__name__, "names": sorted(globals()),
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
    "streams": [(s.name, s.encoding, s.errors, s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)],
    "signals": [repr(signal.getsignal(n)) for n in sorted(signal.valid_signals()) if n != signal.SIGINT],
    "interrupts": "Interrupts._on_signal" in repr(signal.getsignal(signal.SIGINT)),
    "wakeup": signal.set_wakeup_fd(-1), "timer": signal.getitimer(signal.ITIMER_REAL),
    "recursion": sys.getrecursionlimit(), "depth": len(__import__("inspect").stack()), "bytecode": sys.dont_write_bytecode,
    "history": [In, Out, _, __, ___], "inputs": inputs, "leader": os.getsid(0) == os.getpid(),
}
"""

# Numbers and names that are each process's own.
DRAWN = """\
import multiprocessing.process, random, secrets, ssl, tempfile, uuid
drawn = {
    "random": random.random(), "secrets": secrets.token_hex(8), "ssl": ssl.RAND_bytes(8).hex(),
    "tempfile": next(tempfile._get_candidate_names()), "uuid1": str(uuid.uuid1()), "uuid4": str(uuid.uuid4()),
    "node": uuid._random_getnode(), "authkey": bytes(multiprocessing.process.current_process().authkey).hex(),
}
drawn
"""
# The template has used all of them before it forks.
DRAWING_WARM_UP = DRAWN + "import multiprocessing.synchronize, platform\nplatform.uname()\nuuid.getnode()\n"


@unittest.skipUnless(can_unshare(), "no user namespaces here")
class TemplateTest(unittest.TestCase):
    modules = ()
    warm_up = ""

    @classmethod
    def setUpClass(cls):
        cls.template = Template(cls.modules, cls.warm_up)
        cls.addClassCleanup(cls.template.close)

    def fork(self, **options):
        session = ForkedSession(self.template, **options)
        self.addCleanup(session.close)
        return session

    def value(self, session, code):
        outcome = session.run(code)
        self.assertIsNone(outcome.error)
        return outcome.result["json"]


class Forks(TemplateTest):
    modules = ("decimal", ("missing_part", "import no_such_module"), ("leaves_at_once", "raise SystemExit(3)"))

    def test_report(self):
        report = self.template.report
        self.assertEqual(report["version"], platform.python_version())
        self.assertEqual(list(report["imported"]), ["decimal"])
        failed = {"missing_part": "ModuleNotFoundError: No module named 'no_such_module'", "leaves_at_once": "SystemExit: 3"}
        self.assertEqual((report["failed"], report["skipped"]), (failed, {}))
        self.assertEqual(self.template.imports(), ["decimal", "missing_part", "leaves_at_once", "<warm-up>"])

    def test_runs_code(self):
        session = self.fork()
        outcome = session.run("import decimal, sys\nprint('out'); print('err', file=sys.stderr)\nkept = 6\nkept * 7")
        self.assertEqual((outcome.stdout, outcome.stderr, outcome.result["json"]), ("out\n", "err\n", 42))
        self.assertEqual(self.value(session, "kept"), 6)
        self.assertEqual(session.run("1/0").error["name"], "ZeroDivisionError")
        error = session.run("import time\nprint('go')\ntime.sleep(60)", interrupt_at="go").error
        self.assertEqual(error["name"], "KeyboardInterrupt")
        self.assertEqual(self.value(session, "await __import__('asyncio').sleep(0, 5)"), 5)

    def test_workers_share_nothing(self):
        one, other = self.fork(), self.fork()
        one.run("mine = 1; open('file', 'w').write('x')\nimport decimal; decimal.mine = 1")
        code = "import os, decimal\n['mine' in globals(), hasattr(decimal, 'mine'), os.listdir()]"
        self.assertEqual(self.value(other, code), [False, False, []])

    def test_enters_the_sandbox(self):
        session = self.fork()
        code = "import os, platform\n[os.getcwd(), os.uname().nodename, platform.node(), os.getppid()]"
        self.assertEqual(self.value(session, code), ["/mnt/data", "sandbox", "sandbox", 0])
        entered = [os.stat("/proc/%d/ns/%s" % (session.worker, kind)).st_ino for kind in KINDS]
        self.assertEqual(entered, [os.fstat(descriptor).st_ino for descriptor in session.sandbox.namespaces])

    def test_gives_up_all_rights(self):
        session = self.fork()
        with open("/proc/%d/status" % session.worker) as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[name], 16), 0, name)
        self.assertEqual(status["NoNewPrivs"], "1")
        code = "import os, ctypes\nlibc = ctypes.CDLL(None)\n[os.getresuid(), os.getresgid(), libc.prctl(27), libc.prctl(3)]"
        self.assertEqual(self.value(session, code), [[1000] * 3, [1000] * 3, 0xEF, 1])

    def test_limits(self):
        session = self.fork(limits=[[7, 64], [4, 1]], dataBytes=64 << 20)
        code = "from resource import *\n[*map(getrlimit, (RLIMIT_NOFILE, RLIMIT_CORE)), getrlimit(RLIMIT_DATA)[0] > 64 << 20]"
        self.assertEqual(self.value(session, code), [[64, 64], [1, 1], True])
        self.assertEqual(session.run("x = bytearray(80 << 20)").error["name"], "MemoryError")
        self.assertIsNone(session.run("x = bytearray(40 << 20)").error)

    def test_filters(self):
        code = "import socket\ntry:\n    socket.socket()\nexcept OSError as error:\n    print(error.errno)\nelse:\n    print(0)"
        for options in ({}, {"seccomp": filter_refusing(SOCKET_CALL)}, {"process_filter": filter_refusing(SOCKET_CALL)}):
            with self.subTest(list(options)):
                self.assertEqual(self.fork(**options).run(code).stdout, "1\n" if options else "0\n")

    def test_landlock(self):
        create, everything = 444, (1 << 13) - 1
        libc = ctypes.CDLL(None)
        attributes = struct.pack("<Q", everything)
        domain = libc.syscall(create, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), 0)
        if domain < 0:
            self.skipTest("no Landlock here")
        self.addCleanup(os.close, domain)
        code = "import os\ntry:\n    os.listdir('/')\nexcept PermissionError:\n    print('no')\nelse:\n    print('yes')"
        self.assertEqual(self.fork(domain=domain).run(code).stdout, "no\n")
        self.assertEqual(self.fork().run(code).stdout, "yes\n")

    def test_a_worker_that_cannot_enter_ends(self):
        broken_filter = base64.b64encode(b"123").decode()
        for rules in ({"user": 77}, {"process_filter": broken_filter}, {"seccomp": broken_filter}):
            with self.subTest(rules):
                with self.assertRaises(Died):
                    self.fork(**rules)
                self.assertEqual(os.waitstatus_to_exitcode(self._end()[1]), 70)

    def test_the_end_of_a_worker_is_told(self):
        session = self.fork()
        os.kill(session.worker, signal.SIGKILL)
        self.assertEqual(self._end(), (session.worker, signal.SIGKILL))
        session = self.fork()
        session.start("import os; os._exit(3)")
        self.assertEqual(self._end(), (session.worker, 3 << 8))
        session = self.fork()
        session.sandbox.close()
        self.assertEqual(self._end(), (session.worker, signal.SIGKILL))

    def _end(self):
        """(process, wait status) of the latest worker, passing over those that earlier tests ended."""
        latest = [int.from_bytes(data[8:], "little") for kind, data in self.template.seen if kind == FORKED][-1]
        while True:
            process, status = struct.unpack("<ii", self.template.wait_for(ENDED))
            if process == latest:
                return process, status

    def test_a_sandbox_that_is_gone(self):
        sandbox = Sandbox(self.template)
        self.addCleanup(sandbox.close)
        os.kill(sandbox.init, signal.SIGKILL)
        with select.epoll() as end:
            end.register(sandbox.pidfd, select.EPOLLIN)
            self.assertTrue(end.poll(10))
        with self.assertRaises(Refused):
            self.template.fork(sandbox.namespaces[-1], sandbox.namespaces[-1])
        self.assertEqual(self.value(self.fork(), "1"), 1)

    def test_many(self):
        sessions = [self.fork(warm=bool(number % 2)) for number in range(12)]
        for number, session in enumerate(sessions):
            session.run("number = %d" % number)
        self.assertEqual([self.value(session, "number") for session in sessions], list(range(12)))

    def test_the_launcher_goes(self):
        with Template() as template:
            template.control.close()
            self.assertEqual(template.process.wait(10), 0)


class LikeAStartedOne(TemplateTest):
    modules = ("linecache", "multiprocessing.process", "uuid")
    warm_up = "import os\nos.environ['OWN'] = '1'\nos.environ['TZ'] = 'Mars'\nos.chdir('/')\nos.umask(0)"

    def test_surroundings(self):
        with Session() as session:
            started = self.value(session, SURROUNDINGS)
        started["cwd"] = "/mnt/data"
        started["path"][0] = "/mnt/data"
        started["leader"] = True  # init sees to that
        started["depth"] += 1  # the tests start a template through a wrapper
        for warm in (False, True):
            forked = self.value(self.fork(warm=warm), SURROUNDINGS)
            forked["arguments"][-1] = started["arguments"][-1]
            forked["argv"] = started["argv"]
            forked["path"].remove(self.template.folder.name)
            for name, value in started.items():
                with self.subTest(name, warm=warm):
                    self.assertEqual(forked[name], value)

    def test_a_first_job_leaves_nothing(self):
        session = self.fork(warm=True)
        rehearsal = session.run("kept = 1; 1/0", rehearsal=True)
        self.assertEqual((rehearsal.error, rehearsal.stderr, "4 3" in rehearsal.stdout), (None, "", True))
        self.assertEqual(session.run("In[:-1], Out, _").result["text"], "([''], {}, '')")
        code = "import linecache, sys\nworker = sys.modules['_sandbox_values'].worker\n"
        code += "[worker.number, len(worker.sources), len(In), sorted(n for n in linecache.cache if n[0] == '<'), worker.flags]"
        names = ["<execution %d>" % number for number in (1, 2)]
        self.assertEqual(self.value(session, code), [2, 2, 3, names, 0])
        self.assertEqual(self.value(session, "_2 == _ and not {'rows', 'kept'} & set(globals())"), True)
        self.assertEqual(session.run("raise ValueError(1)").error["traceback"].count("<execution 4>"), 1)


class Uniqueness(TemplateTest):
    warm_up = DRAWING_WARM_UP

    def test_two_workers_never_draw_the_same(self):
        # Some libraries know a fork by its process id: here it is that of the template.
        first = self.template.process.pid
        sessions = [self.fork(warm=warm, first=first) for warm in (False, False, True, True)]
        self.assertEqual([self.value(session, "import os; os.getpid()") for session in sessions], [first] * 4)
        draws = [self.value(session, DRAWN) for session in sessions]
        for name in draws[0]:
            with self.subTest(name):
                self.assertEqual(len({draw[name] for draw in draws}), len(draws))


class WhatCannotBeForked(unittest.TestCase):
    def setUp(self):
        if not can_unshare():
            self.skipTest("no user namespaces here")

    def assert_works(self, template, code="1"):
        with ForkedSession(template) as session:
            self.assertIsNone(session.run(code).error)

    def test_threads_and_descriptors(self):
        modules = (("first", THREAD * 2), "decimal", ("second", DESCRIPTOR), ("third", "import os; fine = True"))
        with Template(modules) as template:
            report = template.report
            self.assertEqual(set(report["imported"]), {"decimal", "third"})
            self.assertRegex(report["skipped"]["first"], "leaves 2 threads behind: .+, .+")
            self.assertEqual(report["skipped"]["second"], "leaves a descriptor open: /etc/passwd")
            self.assertEqual(template.imports()[:3], ["first", "decimal", "second"])
            self.assert_works(template, "import third, decimal, os\nassert third.fine and 'OMP_NUM_THREADS' not in os.environ")

    def test_warm_up(self):
        kept = DESCRIPTOR + "__builtins__['kept'] = kept"
        for warm_up, reason in ((THREAD, "leaves 1 thread behind"), (kept, "leaves a descriptor open: /etc/passwd")):
            with Template(["decimal"], warm_up) as template:
                self.assertIn(reason, template.report["skipped"]["<warm-up>"])
                self.assertEqual(list(template.report["imported"]), ["decimal"])
                self.assert_works(template)
        with Template(["decimal"], "import time\n1/0") as template:
            self.assertEqual(template.report["failed"], {"<warm-up>": "ZeroDivisionError: division by zero"})
            self.assert_works(template)

    def test_a_thread_that_comes_later(self):
        with Template([], LATE_THREAD) as template:
            while len(os.listdir("/proc/%d/task" % template.process.pid)) < 2:
                time.sleep(0.01)
            with self.assertRaisesRegex(Refused, "the template leaves 1 thread behind"):
                self.assert_works(template)

    def test_an_import_that_hangs(self):
        with Template(["decimal", ("endless", "import time; time.sleep(600)")], wait=False) as template:
            while template.receive()[1] != b"endless":
                pass
            template.control.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                template.receive()
            template.process.kill()
            self.assertEqual(template.imports(), ["decimal", "endless"])

    def test_a_long_report(self):
        modules = [("module_%d" % number, "raise ValueError('ä' * 5000)") for number in range(60)]
        with Template(modules) as template:
            self.assertEqual(len(template.report["failed"]), 60)
            self.assert_works(template)


class Packages(TemplateTest):
    """What profiles import."""

    modules = ("numpy", "pandas", "matplotlib.pyplot", "IPython.core.interactiveshell")
    warm_up = """\
import io, numpy, pandas
import matplotlib.pyplot as plt
numpy.random.rand()
repr(pandas.DataFrame({"a": [1, 2]}).groupby("a").sum())
plt.plot([1, 2]); plt.title("x"); plt.savefig(io.BytesIO()); plt.show()
plt.plot([3, 4])
"""

    def test_report(self):
        report = self.template.report
        self.assertEqual(set(report["imported"]), set(self.modules))
        self.assertEqual((report["failed"], report["skipped"]), ({}, {}))

    def test_results_and_figures(self):
        for warm in (False, True):
            session = self.fork(warm=warm)
            session.run("import pandas as pd\nframe = pd.DataFrame({'a': [1, 2, 1], 'b': [1, 2, 3]})")
            outcome = session.run("frame.groupby('a').sum()")
            self.assertIsNone(outcome.error)
            self.assertIn("text/html", outcome.result["data"])
            self.assertEqual(outcome.result["json"], [{"a": 1, "b": 4}, {"a": 2, "b": 2}])
            outcome = session.run("import matplotlib.pyplot as plt\nprint(plt.get_fignums()); plt.plot([1, 2]); plt.title('ö')")
            self.assertEqual((outcome.stdout, len(outcome.displays), outcome.error), ("[]\n", 1, None))

    def test_numbers_differ(self):
        code = "import numpy, random\n[numpy.random.rand(), numpy.random.default_rng().random(), random.random()]"
        draws = [self.value(self.fork(), code) for _ in range(3)]
        for drawn in zip(*draws):
            self.assertEqual(len(set(drawn)), 3)

    def test_there_is_no_shell_yet(self):
        code = "import sys\n[sys.modules['_sandbox_values'].worker.shell is None, 'get_' + 'ipython' in globals()]"
        self.assertEqual(self.value(self.fork(warm=True), code), [True, False])
        self.assertEqual(self.value(self.fork(), "get_ipython().run_line_magic('who_ls', '')"), [])
