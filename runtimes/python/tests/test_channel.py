"""Displays and commands with their answers: the order of what is shown, interrupts while the worker waits, threads."""

import os
import random
import select
import time
import unittest

from tests.fake_init import TAKEN, Session

INTERRUPTED = "KeyboardInterrupt"


def merged(outcome):
    """What was shown, in order: printed lines, and `[text]` for each display."""
    parts = []
    for kind, payload in outcome.events:
        if kind == "stdout":
            parts.append(payload)
        elif kind == "display":
            parts.append("[%s]\n" % payload["data"]["text/plain"])
    return "".join(parts)


class ChannelTest(unittest.TestCase):
    def setUp(self):
        self.session = Session()
        self.addCleanup(self.session.close)
        self.session.run("display(0)")  # loads IPython

    def assert_works(self):
        """Displays, commands and results go on as if nothing had been."""
        code = "print('a'); display(1); print('b')\nlines = !echo c\nprint(*lines); display(2); print('d')\n3"
        outcome = self.session.run(code)
        self.assertIsNone(outcome.error)
        self.assertEqual(merged(outcome), "a\n[1]\nb\nc\n[2]\nd\n")
        self.assertEqual(outcome.result["json"], 3)


class Order(ChannelTest):
    def test_what_is_printed_after_a_display_stands_behind_it(self):
        code = "for i in range(1500): print('before', i); display(i); print('after', i)"
        expected = "".join("before %d\n[%d]\nafter %d\n" % (i, i, i) for i in range(1500))
        shown = merged(self.session.run(code))
        self.assertTrue(shown == expected, shown[:1000])  # not assertEqual, whose difference would take minutes

    def test_with_commands_between(self):
        code = "for i in range(20):\n    print('a', i); display(i)\n    !echo b {i}\n    display(i); print('c', i)"
        expected = "".join("a %d\n[%d]\nb %d\n[%d]\nc %d\n" % (i, i, i, i, i) for i in range(20))
        self.assertEqual(merged(self.session.run(code)), expected)

    def test_interrupts_at_random_moments(self):
        """All that was shown until then is in order, nothing is missing between, and the next execution works."""
        moments = random.Random(5)
        code = "number = 0\nwhile True:\n    print('before', number); display(number); print('after', number); number += 1"
        for attempt in range(60):
            with self.subTest(attempt):
                count = moments.randrange(1, 12)
                outcome = self.session.run(code, observe=self.interrupter(count, moments.random() * 0.004))
                self.assertEqual(outcome.error["name"], INTERRUPTED)
                number = self.session.run("number").result["json"]
                rounds = ["before %d\n[%d]\nafter %d\n" % (i, i, i) for i in range(number + 1)]
                shown = merged(outcome)
                self.assertTrue("".join(rounds).startswith(shown), shown[-100:])
                self.assertTrue(shown.startswith("".join(rounds[:-1])), shown[-100:])
        self.assert_works()

    def interrupter(self, count, delay):
        """An observer that interrupts some time after the display of that number."""
        seen = []

        def observe(kind, _payload):
            if kind == "display":
                seen.append(kind)
                if len(seen) == count:
                    time.sleep(delay)
                    self.session.interrupt()

        return observe

    def test_interrupts_at_random_moments_of_commands(self):
        moments = random.Random(6)
        code = "n = 0\nwhile True:\n    lines = !echo {n}\n    assert lines == [str(n)]\n    print(); n += 1"
        for attempt in range(40):
            with self.subTest(attempt):
                sent = []

                def observe(kind, payload, delay=moments.random() * 0.008):
                    if kind == "stdout" and not sent:
                        sent.append(kind)
                        time.sleep(delay)
                        self.session.interrupt()

                self.assertEqual(self.session.run(code, observe=observe).error["name"], INTERRUPTED)
        self.assert_works()


class Answers(ChannelTest):
    def test_late_answer_is_not_taken_for_a_new_one(self):
        self.session.withheld = 0
        code = "for i in range(5):\n    try: display(i)\n    except KeyboardInterrupt: pass"
        outcome = self.session.run(code, observe=self.interrupt_displays)
        self.assertEqual((merged(outcome), outcome.error), ("[0]\n[1]\n[2]\n[3]\n[4]\n", None))
        self.assertEqual(self.session.withheld, 5)
        self.session.send(TAKEN, b"")  # before the next execution, and after it has begun
        reads = self.session.start("display('new'); print('went on')")
        self.assertEqual(self.session.receive()[1]["data"]["text/plain"], "'new'")
        for _ in range(4):
            self.session.send(TAKEN, b"")
        self.assertEqual(select.select([self.session.channel, reads[0]], [], [], 0.2)[0], [])
        self.session.send(TAKEN, b"")
        self.assertEqual(self.session.receive()[0], 20)
        self.assertEqual(os.read(reads[0], 100), b"went on\n")
        for read in reads:
            os.close(read)
        self.session.withheld = None
        self.assert_works()

    def interrupt_displays(self, kind, _payload):
        if kind == "display":
            time.sleep(0.02)
            self.session.interrupt()

    def test_abandoned_command(self):
        """A command that goes on after the interrupt ends at the next one, and its answer is not the next one's."""
        code = "try:\n    !trap '' INT; for i in $(seq 600); do sleep 0.1; done; echo never\nexcept KeyboardInterrupt: pass\n"
        for following in ("lines = !echo next\nlines", "display('shown'); ['next']"):
            with self.subTest(following):
                outcome = self.session.run(code + following, observe=self.first_command_interrupter())
                self.assertEqual((outcome.error, outcome.result["json"]), (None, ["next"]))
                self.assertNotIn("never", outcome.stdout)
        self.assert_works()

    def first_command_interrupter(self):
        seen = []

        def observe(kind, _payload):
            if kind == "shell" and not seen:
                seen.append(kind)
                time.sleep(0.05)
                self.session.interrupt()

        return observe

    def test_alarm_ends_the_wait(self):
        """A signal handler of the user's may raise, even an OSError, while the worker waits."""
        code = """
import signal
def ring(*_): raise TimeoutError('too slow')
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.1)
!sleep 60
"""
        self.assertEqual(self.session.run(code).error["name"], "TimeoutError")
        self.assert_works()

    def test_near_the_recursion_limit(self):
        code = "import sys\ndef dig():\n    try: display('deep')\n    except RecursionError: pass\n    dig()\ndig()"
        self.assertEqual(self.session.run("import sys; sys.setrecursionlimit(300)\n" + code).error["name"], "RecursionError")
        self.session.run("sys.setrecursionlimit(1000)")
        self.assert_works()


class Threads(ChannelTest):
    def test_each_thread_has_its_order(self):
        code = """
import threading
def show(name):
    for i in range(100):
        print('%s before %d\\n' % (name, i), end=''); display('%s %d' % (name, i)); print('%s after %d\\n' % (name, i), end='')
threads = [threading.Thread(target=show, args=(name,)) for name in 'abc']
for thread in threads: thread.start()
show('main')
for thread in threads: thread.join()
"""
        shown = merged(self.session.run(code)).splitlines()
        for name in ("a", "b", "c", "main"):
            expected = []
            for i in range(100):
                expected += ["%s before %d" % (name, i), "['%s %d']" % (name, i), "%s after %d" % (name, i)]
            mine = [line for line in shown if line.lstrip("['").startswith(name + " ")]
            self.assertEqual(mine, expected)

    def test_displays_while_commands_run(self):
        code = """
import threading
go_on = True
def show():
    while go_on: display('beside')
def count():
    for i in range(20): assert get_ipython().getoutput('echo %d' % i) == [str(i)]
    print('counted')
threads = [threading.Thread(target=show), threading.Thread(target=count)]
for thread in threads: thread.start()
for i in range(20):
    lines = !echo main {i}
    assert lines == ['main %d' % i], lines
threads[1].join()
go_on = False
threads[0].join()
"""
        outcome = self.session.run(code)
        self.assertEqual((outcome.error, outcome.stdout), (None, "counted\n"))
        self.assertGreater(len(outcome.displays), 1)
        self.assert_works()

    def test_display_that_outlives_its_execution(self):
        """A thread shows things between executions; it goes on, and so do the executions."""
        code = """
import threading, time
shown, go_on = 0, True
def late():
    global shown
    while go_on:
        display('late'); shown += 1
thread = threading.Thread(target=late); thread.start()
"""
        self.session.run(code)
        before = self.session.run("shown").result["json"]
        self.answer_late_displays(0.2)
        between = self.session.run("shown").result["json"]
        self.assertGreater(between, before + 5)
        for i in range(50):
            outcome = self.session.run("print('a'); display(%d); print('b')" % i)
            mine = [line for line in merged(outcome).splitlines() if line != "['late']"]
            self.assertEqual(mine, ["a", "[%d]" % i, "b"])
        self.session.run("go_on = False; thread.join()")
        self.assert_works()

    def answer_late_displays(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.session.channel], [], [], 0.01)[0]:
                kind, _ = self.session.receive()
                self.assertEqual(kind, 17)
                self.session.answer_display()

    def test_waiting_thread_hands_over(self):
        """A thread whose answer does not come is the one that reads; the next executions must not depend on it."""
        self.session.withheld = 0
        code = "import threading, time\nthread = threading.Thread(target=display, args=('slow',))\n"
        code += "thread.start(); time.sleep(0.1)"
        self.session.run(code)
        self.assertEqual(self.session.withheld, 1)
        for i in range(3):
            self.assertEqual(self.session.run("%d, thread.is_alive()" % i).result["json"], [i, True])
        self.session.send(TAKEN, b"")
        self.assertEqual(self.session.run("thread.join(5); thread.is_alive()").result["json"], False)
        self.session.withheld = None
        self.assert_works()

    def test_command_that_outlives_its_execution(self):
        """It ends with the execution, and a later one is refused: init takes none between executions."""
        code = """
import threading, time
errors = []
def late():
    get_ipython().system('sleep 60')
    time.sleep(0.1)
    try: get_ipython().system('echo late')
    except OSError as error: errors.append(str(error))
thread = threading.Thread(target=late); thread.start(); time.sleep(0.1)
"""
        self.session.run(code)
        time.sleep(0.3)
        outcome = self.session.run("thread.join(5); len(errors)")
        self.assertEqual((outcome.result["json"], len(self.session.commands)), (1, 1))
        self.assert_works()


if __name__ == "__main__":
    unittest.main()
