"""Interrupts, the seccomp filter, and code that breaks what is around it."""

import base64
import os
import platform
import signal
import struct
import time
import unittest

from tests.fake_init import WAKE, Died, Session

ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # the latter: EPERM
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}.get(platform.machine())


def instruction(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


def filter_refusing(number):
    """A filter that allows everything but one system call."""
    load, equal, give = 0x20, 0x15, 0x06
    program = [
        instruction(load, 0, 0, 0),
        instruction(equal, 0, 1, number),
        instruction(give, 0, 0, REFUSE),
        instruction(give, 0, 0, ALLOW),
    ]
    return base64.b64encode(b"".join(program)).decode()


class Interrupts(unittest.TestCase):
    def test_state_is_kept(self):
        for arguments in ((), ("--always-ipython",)):
            with self.subTest(arguments), Session(*arguments) as session:
                code = "import time\nkept = 1\nprint('go')\ntime.sleep(60)"
                error = session.run(code, interrupt_at="go").error
                self.assertEqual(error["name"], "KeyboardInterrupt")
                self.assertIn('File "<execution 1>", line', error["traceback"])
                self.assertEqual(session.run("kept").result["json"], 1)

    def test_await_is_cancelled(self):
        code = "import asyncio\nprint('go')\nawait asyncio.sleep(60)"
        with Session() as session:
            self.assertEqual(session.run(code, interrupt_at="go").error["name"], "KeyboardInterrupt")
            outcome = session.run("import gc; gc.collect()\nawait asyncio.sleep(0, 5)")
            self.assertEqual((outcome.result["json"], outcome.stderr), (5, ""))

    def test_ignored_between_executions(self):
        with Session() as session:
            for _ in range(20):
                session.interrupt()
                self.assertEqual(session.run("1").result["json"], 1)
                session.interrupt()

    def test_before_the_worker_has_begun(self):
        """The signal finds a worker that has not read `execute` yet: it was stopped while both were sent."""
        code = "began = True\ntry:\n    while True: pass\nexcept KeyboardInterrupt: once = True\nprint(once)"
        with Session() as session:
            for attempt in range(50):
                session.stop()
                reads = session.start(code if attempt % 2 else "while True: pass")
                session.interrupt()
                session.signal(signal.SIGCONT)
                outcome = session.finish(reads)
                # It begins with the interrupt, so not even an `except` of its own sees it.
                self.assertEqual((outcome.error["name"], outcome.stdout), ("KeyboardInterrupt", ""), attempt)
            self.assertIs(session.run("'began' in globals()").result["json"], False)

    def test_after_the_execution_that_it_was_for(self):
        """The next one is sent before the worker has seen the signal, and runs to its end."""
        with Session() as session:
            for _ in range(50):
                session.stop()
                session.interrupt()
                reads = session.start("import time\nfor i in range(20): time.sleep(0.0001)\n1")
                session.signal(signal.SIGCONT)
                self.assertEqual(session.finish(reads).result["json"], 1)

    def test_with_a_wake_before_the_code(self):
        with Session() as session:
            for _ in range(20):
                session.stop()
                session.send(WAKE, b"")
                reads = session.start("while True: pass")
                session.interrupt()
                session.signal(signal.SIGCONT)
                self.assertEqual(session.finish(reads).error["name"], "KeyboardInterrupt")

    def test_both_too_late_and_too_early(self):
        with Session() as session:
            for _ in range(20):
                session.stop()
                session.interrupt()
                reads = session.start("while True: pass")
                session.interrupt()
                session.signal(signal.SIGCONT)
                self.assertEqual(session.finish(reads).error["name"], "KeyboardInterrupt")

    def test_once(self):
        """An interrupt that came in time is not told a second time by its frame."""
        code = "import time\ntry:\n    print('go')\n    time.sleep(60)\nexcept KeyboardInterrupt: pass\ndisplay(1)\ntime.sleep(0.01)\ndisplay(2)"
        with Session() as session:
            for _ in range(5):
                outcome = session.run(code, interrupt_at="go")
                self.assertEqual((outcome.error, len(outcome.displays)), (None, 2))

    def test_at_any_moment(self):
        """Signals while displays are sent: each execution ends, and every frame is whole."""
        with Session() as session:
            session.run("display(0)")
            for attempt in range(40):
                outcome = session.run("for i in range(10**9): display('x' * 1000)", observe=self.interrupter(session, attempt))
                self.assertEqual(outcome.error["name"], "KeyboardInterrupt")

    @staticmethod
    def interrupter(session, attempt):
        """An observer that interrupts once, a little later at each attempt."""
        sent = []

        def observe(kind, _payload):
            if kind == "display" and not sent:
                sent.append(True)
                time.sleep(0.0005 * attempt)
                session.interrupt()

        return observe

    def test_inside_the_formatter(self):
        """An interrupt that a failing clean-up replaced, as IPython's pretty printer does, still ends the code."""
        code = """
class Shown:
    def __repr__(self):
        try:
            raise KeyboardInterrupt
        finally:
            [].pop()
display(Shown())
print('went on')
"""
        with Session() as session:
            outcome = session.run(code)
            self.assertEqual((outcome.error["name"], outcome.stdout), ("KeyboardInterrupt", ""))

    def test_caught_interrupts_can_be_repeated(self):
        code = "import time\ntry:\n    print('go')\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')"
        with Session() as session:
            outcome = session.run(code, interrupt_at="go")
            self.assertEqual((outcome.stdout, outcome.error), ("go\ncaught\n", None))

    def test_users_alarm(self):
        code = "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: print('rang'))\n"
        with Session() as session:
            self.assertEqual(session.run(code + "signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(0.2)").stdout, "rang\n")


class Filter(unittest.TestCase):
    @unittest.skipUnless(SOCKET_CALL, "unknown machine")
    def test_filter_is_on(self):
        code = "import socket\nsocket.socket()"
        with Session() as session:
            self.assertIsNone(session.run(code + ".close()").error)
        with Session(seccomp=filter_refusing(SOCKET_CALL)) as session:
            self.assertEqual(session.run(code).error["errno"], 1)

    def test_no_filter_no_worker(self):
        for broken in ("AAAA", base64.b64encode(b"\xff" * 16).decode(), "!"):
            with self.subTest(broken), self.assertRaises(Died):
                Session(seccomp=broken)


class HostileCode(unittest.TestCase):
    def test_survives(self):
        cases = [
            "import sys, io; sys.stdout = io.StringIO()",
            "import sys; sys.stdout = None; sys.stderr = None",
            "import sys; sys.stdout.close()",
            "import os; os.close(1); os.close(2); os.close(0)",
            "import builtins; builtins.len = builtins.isinstance = None; builtins.open = None",
            "import os, posix; os.dup2 = os.close = None",
            "import sys; [sys.modules.pop(m) for m in ('os', 'io', 'codecs', '__main__')]",
            "import sys; sys.setrecursionlimit(40)",
            "import sys; sys.path.clear(); sys.meta_path.clear()",
            "class Loud:\n    def __del__(self): raise ValueError\nx = Loud(); del x",
            "import atexit; atexit.register(lambda: 1 / 0)",
            "import threading, time; threading.Thread(target=lambda: [print(i) or time.sleep(0.01) for i in range(30)]).start()",
            "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
            "del __builtins__",
            "globals().clear()",
            "import gc; gc.disable()",
            "import sys; sys.settrace(lambda *a: None)",
        ]
        for code in cases:
            with self.subTest(code), Session() as session:
                session.run(code)
                outcome = session.run("print('still here')\n[1, 'x']")
                self.assertIn("still here\n", outcome.stdout)  # a thread may print, too
                self.assertEqual(outcome.result["json"], [1, "x"])
                self.assertIsNotNone(session.run("1 / 0").error)

    def test_own_handler_between_executions(self):
        with Session() as session:
            session.run("import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)")
            session.interrupt()
            self.assertEqual(session.run("1").result["json"], 1)

    def test_all_descriptors_used_up(self):
        with Session() as session:
            error = session.run("import os\nkept = []\nwhile True: kept.append(os.open('/dev/null', 0))").error
            self.assertEqual((error["name"], error["errno"]), ("OSError", 24))
            self.assertIn("in <module>", error["traceback"])
            self.assertEqual(session.run("print('still here')").stdout, "still here\n")
            session.run("for descriptor in kept: os.close(descriptor)")
            self.assertEqual(session.run("[1]").result["json"], [1])

    def test_interrupt_after_own_handler(self):
        with Session() as session:
            session.run("import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)")
            outcome = session.run("print('go')\ntime.sleep(60)", interrupt_at="go")
            self.assertEqual(outcome.error["name"], "KeyboardInterrupt")

    def test_late_output_is_dropped(self):
        code = """
import os, threading, time
def late():
    while not os.path.exists('go'): time.sleep(0.01)
    print('late'); print('late', file=sys.stderr)
    open('done', 'w').close()
import sys
threading.Thread(target=late).start()
"""
        with Session() as session:
            reads = session.start(code)
            self.assertEqual(session.receive()[0], 20)
            # Both pipes are closed on the worker's side once the execution is over, though the thread goes on.
            self.assertEqual([os.read(read, 10) for read in reads], [b"", b""])
            session.write("go", "")
            while not os.path.exists(os.path.join(session.path, "done")):
                time.sleep(0.01)
            outcome = session.run("print('now')")
            self.assertEqual((outcome.stdout, outcome.stderr), ("now\n", ""))
            for read in reads:
                os.close(read)

    def test_dies_cleanly(self):
        for code in ("import os; os.close(3)", "import os; os._exit(3)"):
            with self.subTest(code), Session() as session, self.assertRaises(Died):
                session.run(code)
                session.run("1")

    def test_channel_is_not_inherited(self):
        with Session() as session:
            code = "import os, fcntl\nfcntl.fcntl(3, fcntl.F_GETFD) & fcntl.FD_CLOEXEC"
            self.assertEqual(session.run(code).result["json"], 1)

    def test_user_files_shadow_nothing(self):
        with Session() as session:
            for name in ("json", "random", "token", "traceback", "re", "ast", "values", "errors", "hooks", "traitlets"):
                session.write(name + ".py", "raise RuntimeError('shadowed')" if name != "token" else "MINE = 1")
            session.write("mine.py", "VALUE = 5\ndef fail(): 1 / 0")
            self.assertEqual(session.run("import token; token.MINE").result["json"], 1)
            error = session.run("import mine\nmine.fail()").error
            self.assertIn("mine.py", error["traceback"])
            self.assertEqual(session.run("%who_ls").result["json"], ["mine", "token"])
            self.assertEqual(session.run("import sys; sys.path[0]").result["json"], session.path)
            self.assertEqual([n for n in os.listdir(session.path) if n.startswith("__")], [])

    def test_pickle_of_own_classes(self):
        code = "import pickle\nclass Point: pass\ntype(pickle.loads(pickle.dumps(Point()))) is Point"
        with Session() as session:
            self.assertEqual(session.run(code).result["json"], True)


if __name__ == "__main__":
    unittest.main()
