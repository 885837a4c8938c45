"""Executions as a caller sees them: output, results, errors, state."""

import unittest

from tests.fake_init import WAKE, Session


class Executions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.session = Session()

    @classmethod
    def tearDownClass(cls):
        cls.session.close()

    def run_code(self, code, **options):
        return self.session.run(code, **options)

    def test_results(self):
        cases = [
            ("1 + 1", "2", True, 2),
            ("'a\\nb'", "'a\\nb'", True, "a\nb"),
            ("{'a': (1, None)}", "{'a': (1, None)}", True, {"a": [1, None]}),
            ("{1: 2}", "{1: 2}", False, None),
            ("float('nan')", "nan", False, None),
            ("[float('inf')]", "[inf]", True, [None]),
            ("2 ** 100", str(2**100), False, None),
            ("{3, 1, 2}", "{1, 2, 3}", False, None),
            ("print", "<function print(*args, sep=' ', end='\\n', file=None, flush=False)>", False, None),
        ]
        for code, text, has_json, form in cases:
            with self.subTest(code):
                result = self.run_code(code).result
                self.assertEqual((result["text"], result["hasJson"], result["json"]), (text, has_json, form))

    def test_no_result(self):
        for code in ("None", "x = 1", "", "   ", "# only a comment", "5;", "5 ; # seen", "(5\n);", "for i in range(3): i"):
            with self.subTest(code):
                self.assertEqual(self.run_code(code).events, [])

    def test_semicolon_in_text_does_not_suppress(self):
        self.assertEqual(self.run_code("'a;' # b;").result["text"], "'a;'")

    def test_large_results_are_cut(self):
        result = self.run_code("'x' * 3_000_000").result
        self.assertLess(len(result["text"]), 1_100_000)
        self.assertIn("more characters", result["text"])
        self.assertFalse(result["hasJson"])
        self.assertFalse(self.run_code("a = []; a.append(a); a").result["hasJson"])

    def test_state_and_history(self):
        with Session() as session:
            session.run("value = 41\n'first'")
            self.assertEqual(session.run("value + 1").result["json"], 42)
            self.assertEqual(session.run("(_, _1, Out[2], len(In))").result["json"], [42, "first", 42, 4])
            session.run("%who")  # now with IPython
            self.assertEqual(session.run("(_1, Out[2], In[2], _3[0])").result["json"], ["first", 42, "value + 1", 42])

    def test_waking_leaves_nothing_and_runs_nothing_of_the_user(self):
        """What comes next is not on record yet: not even what took the place of `compile` and `eval` is called."""
        with Session() as session:
            replaced = "import builtins\nseen = []\nbuiltins.compile = builtins.eval = lambda *a, **k: seen.append(a)\nx = 7\n41 + 1"
            self.assertEqual(session.run(replaced).result["json"], 42)
            for _ in range(3):
                session.send(WAKE, b"")
            self.assertEqual(session.run("(x, seen, _, len(In), list(Out))").result["json"], [7, [], 42, 3, [1]])

    def test_own_underscore_is_left_alone(self):
        with Session() as session:
            session.run("_ = 'mine'")
            session.run("5")
            self.assertEqual(session.run("print(_)").stdout, "mine\n")

    def test_future_imports_last(self):
        with Session() as session:
            session.run("from __future__ import annotations")
            self.assertIsNone(session.run("def f(x: unknown): pass").error)

    def test_inputs_and_filename(self):
        with Session() as session:
            self.assertEqual(session.run("inputs").result["json"], {})
            outcome = session.run("inputs['ä'], __name__, __file__", {"ä": [1, "é"]}, "/mnt/data/script.py")
            self.assertEqual(outcome.result["json"], [[1, "é"], "__main__", "/mnt/data/script.py"])
            outcome = session.run("inputs['ä']\n1 / 0", filename="/mnt/data/script.py")
            self.assertIn('File "/mnt/data/script.py", line 2', outcome.error["traceback"])
            self.assertEqual(session.run("__file__").error["name"], "NameError")

    def test_a_fresh_namespace_has_nothing_and_leaves_nothing(self):
        for session_code in ("x = 'kept'", "%timeit -n1 -r1 1\nx = 'kept'"):  # without IPython's shell, and with it
            self.run_code(session_code)
            self.run_code("def f():\n    return x")
            self.assertEqual(self.run_code("40 + 1").result["json"], 41)
            code = "y = [x for x in (globals().get('x'), _, Out, In)]\ny"
            self.assertEqual(self.session.run(code, fresh=True).result["text"], "[None, '', {}, ['']]")
            self.assertEqual(self.session.run("import __main__, pickle\nclass C: pass\npickle.loads(pickle.dumps(C())).__class__ is __main__.C", fresh=True).result["json"], True)
            self.assertEqual(self.session.run("get_ipython().run_line_magic('who_ls', '')", fresh=True).result["json"], [])
            self.assertEqual(self.session.run("inputs['a']", inputs={"a": 1}, fresh=True).result["json"], 1)
            self.assertEqual(self.session.run("1/0", fresh=True).error["name"], "ZeroDivisionError")
            self.assertEqual(self.run_code("_ + 1").result["json"], 42)
            self.assertEqual(self.run_code("f(), 'y' in globals(), 'C' in globals(), inputs").result["text"], "('kept', False, False, {})")

    def test_output_stands_before_what_follows(self):
        code = "import sys\nprint('a', end='')\ndisplay(1)\nprint('b', end='')\nsys.stderr.write('c')\n2"
        events = self.run_code(code).events
        kinds = [kind for kind, _ in events]
        self.assertEqual((events[0][1][0], kinds[-1]), ("a", "result"))
        self.assertIn("display", kinds[1:])

    def test_c_output_keeps_its_place(self):
        code = "import ctypes\nctypes.CDLL(None).printf(b'from C')\ndisplay(1)"
        self.assertEqual([k for k, _ in self.run_code(code).events], ["stdout", "display"])

    def test_lines_are_streamed(self):
        seen = []
        with Session() as session:
            code = "import os, time\nprint('early')\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('late')"

            def observe(kind, payload):
                seen.append(payload)
                if kind == "stdout" and "early" in payload:
                    session.write("go", "")

            session.run(code, observe=observe)
        self.assertEqual(seen[:2], ["early\n", "late\n"])

    def test_await(self):
        self.assertEqual(self.run_code("import asyncio\nawait asyncio.sleep(0, 'done')").result["json"], "done")
        self.assertEqual(self.run_code("x = await asyncio.sleep(0, 3)\nx").result["json"], 3)
        self.assertEqual(self.run_code("asyncio.run(asyncio.sleep(0, 4))").result["json"], 4)

    def test_display(self):
        outcome = self.run_code("from IPython.display import HTML, display as show\nshow(HTML('<b>'))")
        self.assertEqual(outcome.displays[0]["data"]["text/html"], "<b>")
        code = "class Rich:\n    def _repr_png_(self): return b'\\x89PNG'\n    def __repr__(self): return 'Rich'\nRich()"
        self.assertEqual(self.run_code(code).result["data"], {"image/png": "iVBORw=="})

    def test_display_with_awkward_data(self):
        code = "display({'application/json': {'a': float('nan'), 'b': {1, 2}}, 'text/plain': '\\ud800'}, raw=True)"
        data = self.run_code(code).displays[0]["data"]
        self.assertEqual(data["application/json"], {"a": None, "b": [1, 2]})
        self.assertEqual(data["text/plain"], "\\ud800")

    def test_oversize_display(self):
        data = self.run_code("display({'text/html': 'x' * 40_000_000}, raw=True)").displays[0]["data"]
        self.assertIn("text/html left out", data["text/plain"])
        self.assertIn("save it to a file", data["text/plain"])

    def test_many_displays(self):
        self.assertEqual(len(self.run_code("for i in range(5000): display(i)").displays), 5000)


class Errors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.session = Session()

    @classmethod
    def tearDownClass(cls):
        cls.session.close()

    def error(self, code):
        return self.session.run(code).error

    def test_traceback_shows_only_the_users_frames(self):
        with Session() as session:
            expected = 'Traceback (most recent call last):\n  File "<execution 1>", line 3, in <module>\n    f()\n'
            traceback = session.run("def f():\n    raise ValueError('bad')\nf()").error["traceback"]
            self.assertTrue(traceback.startswith(expected), traceback)
            self.assertNotIn("driver.py", traceback)
            self.assertNotIn("\x1b", traceback)

    def test_chains_and_groups(self):
        error = self.error("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e")
        self.assertIn("direct cause", error["traceback"])
        self.assertEqual(error["message"], "'k'")
        error = self.error("raise ExceptionGroup('both', [ValueError(1), TypeError(2)])")
        self.assertIn("TypeError: 2", error["traceback"])
        error = self.error("e = ValueError('x')\ne.add_note('a note')\nraise e")
        self.assertIn("a note", error["traceback"])

    def test_syntax_errors(self):
        error = self.error("x = 1\nx = = 2")
        self.assertEqual(error["name"], "SyntaxError")
        self.assertIn("    x = = 2\n        ^\n", error["traceback"])
        self.assertNotIn("Traceback", error["traceback"])
        outcome = self.session.run("print('not run')\nreturn 5")
        self.assertIn("    return 5\n", outcome.error["traceback"])
        self.assertEqual(outcome.stdout, "")
        self.assertIn(self.error("x = '\0'")["name"], ("SyntaxError", "ValueError"))

    def test_facts_about_errors(self):
        self.assertEqual(self.error("open('/nowhere')")["errno"], 2)
        self.assertTrue(self.error("bytearray(1 << 62)")["isMemoryError"])
        self.assertEqual(self.error("import sys; sys.exit(3)")["exitCode"], 3)
        self.assertEqual(self.error("sys.exit('said')")["exitCode"], 1)
        for code in ("sys.exit()", "sys.exit(0)", "exit()", "quit()"):
            self.assertIsNone(self.error(code), code)

    def test_exceptions_that_resist(self):
        self.assertEqual(self.error("def f(): f()\nf()")["name"], "RecursionError")
        error = self.error("class Bad(Exception):\n    def __str__(self): raise ValueError\nraise Bad")
        self.assertEqual(error["name"], "Bad")
        self.assertIn("\\ud800", self.error("raise ValueError('\\ud800')")["message"])
        error = self.error("raise ValueError('x' * 10**7)")
        self.assertLess(len(error["message"]) + len(error["traceback"]), 200_000)
        self.assertEqual(self.error("class Odd(BaseException): pass\nraise Odd")["name"], "Odd")

    def test_input(self):
        self.assertIn("pass data with `inputs`", self.error("input()")["message"])
        self.assertEqual(self.session.run("import sys; sys.stdin.read()").result["text"], "''")

    def test_sources_are_known(self):
        code = "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))"
        self.assertIn("return 1", self.session.run(code).stdout)


if __name__ == "__main__":
    unittest.main()
