"""Magics, help and shell commands."""

import os
import unittest

from tests.fake_init import Session


class Shell(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.session = Session()

    @classmethod
    def tearDownClass(cls):
        cls.session.close()

    def run_code(self, code):
        return self.session.run(code)

    def test_commands(self):
        self.assertEqual(self.run_code("print('first')\n!echo second; exit 3").stdout, "first\nsecond\n")
        self.assertEqual(self.run_code("_exit_code").result["json"], 3)
        self.assertEqual(self.run_code("name = 'x y'\n!echo '{name}' $name $$HOME").stdout[:8], "x y x y ")
        self.assertEqual(self.run_code("def f():\n    local = 7\n    !echo {local + 1}\nf()").stdout, "8\n")
        outcome = self.run_code("lines = !printf 'a\\nb\\n'\nprint(type(lines).__name__, lines.n == 'a\\nb')\nlines")
        self.assertEqual((outcome.stdout, outcome.result["json"]), ("SList True\n", ["a", "b"]))
        self.assertEqual(self.run_code("get_ipython().getoutput('echo out')").result["json"], ["out"])
        self.assertEqual(self.run_code("get_ipython().system('echo out')").stdout, "out\n")
        self.assertEqual(self.run_code("!!echo both").result["json"], ["both"])

    def test_exit_codes(self):
        """As IPython has them in `_exit_code`: a signal is negative, also where a shell put 128 on top."""
        for command, code in (("exit 0", 0), ("exit 128", 128), ("kill -9 $$", -9), ("exit 143", -15)):
            with self.subTest(command):
                self.run_code("!" + command)
                self.assertEqual(self.run_code("_exit_code").result["json"], code)
                self.run_code("get_ipython().getoutput(%r)" % command)
                self.assertEqual(self.run_code("_exit_code").result["json"], code)
        error = self.run_code("%%bash\nkill -9 $$").error
        self.assertEqual((error["name"], "SIGKILL" in error["message"]), ("CalledProcessError", True))
        self.assertEqual(self.run_code("%%bash --no-raise-error\nexit 200").error, None)
        self.assertEqual(self.run_code("_exit_code").result["json"], 200)

    def test_captured_bytes(self):
        self.assertEqual(self.run_code("lines = !printf 'a\\377\\303\\244\\n\\n'\nlines").result["json"], ["a\ufffdä", ""])
        self.assertEqual(self.run_code("lines = !printf '\\0'\nlines").result["json"], ["\0"])
        self.assertEqual(self.run_code("lines = !true\nlines").result["json"], [])
        self.assertEqual(self.run_code("%%bash --out text\nprintf '\\377'").error, None)
        self.assertEqual(self.run_code("text").result["json"], "\ufffd")
        self.assertEqual(self.run_code("lines = !printf ä; echo bad >&2; exit 7\nlines").result["json"], ["ä"])
        self.assertEqual(self.run_code("_exit_code").result["json"], 7)
        self.assertEqual(self.run_code("len(get_ipython().getoutput('head -c 1000000 /dev/zero')[0])").result["json"], 1000000)

    def test_command_that_is_too_long(self):
        code = "get_ipython().run_cell_magic('bash', '', '#' * (1 << 25))"
        self.assertEqual(self.run_code(code).error["errno"], 7)
        self.assertEqual(self.run_code("!echo on").stdout, "on\n")

    def test_commands_share_folder_and_environment(self):
        self.run_code("import os; os.mkdir('below'); os.chdir('below'); os.environ['GREETING'] = \"it's\"")
        self.assertEqual(self.run_code("!basename $(pwd); echo \"$$GREETING\"").stdout, "below\nit's\n")
        self.run_code("os.chdir('..'); del os.environ['GREETING']")

    def test_script_cells(self):
        self.assertEqual(self.run_code("%%bash\nfor i in 1 2; do echo $i; done").stdout, "1\n2\n")
        self.assertEqual(self.run_code("%%bash --out text\necho kept").stdout, "")
        self.assertEqual(self.run_code("text").result["json"], "kept\n")
        self.assertEqual(self.run_code("%%sh\nexit 4").error["name"], "CalledProcessError")
        self.assertIsNone(self.run_code("%%bash --no-raise-error\nexit 4").error)
        self.assertEqual(self.run_code("%%bash -s one\necho \"$1\"").stdout, "one\n")
        self.assertEqual(self.run_code("%%script cat\nplain $x").stdout, "plain $x\n")

    def test_installing_is_explained(self):
        commands = ["%pip install x", "!pip install x", "!python -m pip install -q x", "%conda install x", "pip install x"]
        for command in [*commands, "%%bash\npip install x", "!pip3 install x && echo no"]:
            with self.subTest(command):
                before = len(self.session.commands)
                outcome = self.run_code(command)
                self.assertIn("belljar env build", outcome.stderr)
                self.assertEqual(outcome.stderr.count("\n"), 1)
                self.assertEqual((outcome.stdout, outcome.error), ("", None))
                if command in commands:
                    self.assertEqual(len(self.session.commands), before)
        self.assertEqual(self.run_code("%%bash\npip install x\necho goes on").stdout, "goes on\n")

    def test_magics(self):
        self.assertIn("per loop", self.run_code("%timeit -n1 -r1 pass").stdout)
        self.assertIn("Wall time", self.run_code("%%time\nx = 1").stdout)
        self.assertEqual(self.run_code("%%time\nx + 1").result["text"], "2")
        self.assertEqual(self.run_code("%matplotlib inline\n%config InlineBackend.figure_format = 'svg'").events, [])
        self.assertEqual(self.run_code("%nothing").error["name"], "UsageError")
        self.run_code("%%writefile made.txt\ncontent")
        with open(os.path.join(self.session.path, "made.txt")) as file:
            self.assertEqual(file.read(), "content\n")
        self.assertEqual(self.run_code("%%capture seen\nprint('x')").events, [])
        self.assertEqual(self.run_code("seen.stdout").result["json"], "x\n")
        self.assertEqual(self.run_code("pwd").result["json"], self.session.path)

    def test_errors_below_magics(self):
        traceback = self.run_code("def f(): 1 / 0\n%timeit -n1 -r1 f()").error["traceback"]
        self.assertNotIn("/IPython/", traceback)
        self.assertIn("%timeit -n1 -r1 f()", traceback)
        self.assertEqual(self.run_code("%%time\n1 / 0").error["name"], "ZeroDivisionError")

    def test_help(self):
        stdout = self.run_code("len?").stdout
        self.assertIn("Return the number of items", stdout)
        self.assertNotIn("\x1b", stdout)

    def test_interactivity_setting(self):
        with Session() as session:
            session.run("%config InteractiveShell.ast_node_interactivity = 'all'")
            outcome = session.run("1\n2")
            self.assertIsNone(outcome.error)
            self.assertEqual(len(outcome.events), 2)

    def test_leaves_no_traces(self):
        with Session() as session:
            home = session.path
            session.run("import os; os.environ['HOME'] = os.getcwd()")
            session.run("%who")
            tasks = session.run("len(os.listdir('/proc/self/task'))").result["json"]
            self.assertEqual((os.listdir(home), tasks), ([], 1))
            self.assertEqual(session.run("import sys; 'sqlite3' in sys.modules").result["json"], False)


if __name__ == "__main__":
    unittest.main()
