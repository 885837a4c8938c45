"""The same code gives the same frames with and without IPython."""

import re
import unittest

from tests.fake_init import Session

CORPUS = [
    "1",
    "-1.5e300",
    "'it''s \"quoted\"'",
    "b'bytes'",
    "True",
    "3 + 4j",
    "[]",
    "()",
    "(1,)",
    "{}",
    "[1, [2, (3, {'four': 5})], None, 'six']",
    "list(range(20))",
    "list(range(26))",
    "list(range(27))",
    "['x' * 73]",
    "['x' * 75]",
    "['x' * 76]",
    "{'k' * 30: 'v' * 37}",
    "{'k' * 30: 'v' * 40}",
    "{'a': 1, 2: 'b', (3,): [4]}",
    "list(range(2000))",
    "'long ' * 100",
    "'line\\nline'",
    "[[[[[[[1]]]]]]]",
    "{3, 1, 2}",
    "range(3)",
    "int",
    "len",
    "object",
    "...",
    "x = 5\nx",
    "x = 5\nx;",
    "print('a'); 'b'",
    "if True:\n    1",
    "def f(): return 1\nf()",
    "class C:\n    def __repr__(self): return 'C!'\nC()",
    "class D(dict): pass\nD(a=1)",
    "'''doc'''",
    "import sys\nprint('e', file=sys.stderr)",
    "1 / 0",
    "def f():\n    1 / 0\ndef g():\n    f()\n\ng()",
    "try:\n    1 / 0\nexcept Exception:\n    undefined",
    "raise SystemExit(2)",
    "raise SystemExit",
    "x = (1,\n",
    "x == = 1",
    "def f():\nreturn 1",
    "if True:\n  x = 1\n   y = 2",
    "print 'x'",
    "return 1",
    "break",
    "f(**{'a': 1}, *[])",
    "'unterminated",
    "await 5",
    "import asyncio\nawait asyncio.sleep(0)\n'slept'",
    "async def f():\n    raise ValueError('async')\nawait f()",
    "raise ExceptionGroup('g', [ValueError('v')])",
    "import json\njson.loads('{')",
    "assert 1 == 2, 'message'",
    "'before'",
    "_",
    "__name__",
    "lambda: 1",
    "display(1)\n2",
    "10 ** 5000",
]

# Around the width at which the pretty printer breaks lines.
CORPUS += ["['%s', '%s']" % ("x" * 36, "y" * length) for length in range(33, 39)]


def normal(events):
    """Events without what differs between any two processes."""
    joined = []
    for kind, payload in events:
        if joined and kind in ("stdout", "stderr") and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + payload)
        else:
            joined.append((kind, payload))
    return re.sub(r"0x[0-9a-f]+|/tmp/tmp\w+|<execution \d+>", "…", repr(joined))


class Parity(unittest.TestCase):
    maxDiff = None

    def test_corpus(self):
        """Each code in a session that has used IPython and in one that has not; the latter starts anew when code needs it."""
        plain, needed = Session(), 0
        with Session("--always-ipython") as forced:
            for code in CORPUS:
                with self.subTest(code):
                    self.assertEqual(normal(plain.run(code).events), normal(forced.run(code).events))
                    if plain.run("import sys; print('IPython' in sys.modules)").stdout == "True\n":
                        self.assertEqual(normal(plain.run(code).events), normal(forced.run(code).events))
                        needed += 1
                        plain.close()
                        plain = Session()
        plain.close()
        # The speed path is worth its code only while it takes the plain cases.
        self.assertLess(needed, len(CORPUS) / 2)

    def test_plain_code_does_not_load_ipython(self):
        code = "import sys\nx = [1, 2]\nfor _ in x: pass\nprint(x)\nx"
        with Session() as session:
            session.run(code)
            loaded = "[m for m in ('IPython', 'traceback', 'json', 're', 'ast', 'asyncio') if m in sys.modules]"
            self.assertEqual(session.run(loaded).result["json"], [])


if __name__ == "__main__":
    unittest.main()
