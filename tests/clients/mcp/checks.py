"""What every client must see of the MCP server, whatever the client, the transport and the revision.

A *way* is one client on one transport in one revision; see `Way`. A check takes a *talk*: a connection with the session that belongs to it.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import sys
import time
import traceback
import uuid

from jsonschema import Draft202012Validator

import common
import native
from common import contains, equal
from tools import TOOLS, check_tools

URL = common.URL + "/mcp"
# The program over stdio: a command with its arguments, as JSON.
COMMAND = json.loads(os.environ.get("BELLJAR_MCP_COMMAND", "[]"))
# Nothing here takes that long; what hangs is a failure.
PATIENCE = 120
# Shows a figure, as in a notebook.
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [2, 1, 3])\nplt.show()"
# Counts until it is stopped.
COUNT = "import time\ncount = 0\nwhile True:\n    count += 1\n    print('counted', count, flush=True)\n    time.sleep(0.1)"


class Connection:
    """A connection of one client. What it gives is as on the wire: dictionaries with the protocol's names.

    `tools()`, `call(name, arguments, progress)`, `read(uri)`; `log(level)` asks for messages, whose texts come into `logs`; `code(error)` is the
    protocol's code of an error that a call raised.
    """

    # Whether the client asks for messages of itself.
    asks = False

    def __init__(self):
        self.logs = []

    async def stop(self, call):
        """Cancels a call; clients that tell the server so when a task is cancelled need no more."""
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


class Way:
    """One client on one transport in one revision.

    name       how it is called in what is printed
    connect    of a way: a `Connection`, as a context manager; `key` is the caller's
    over_http  over streamable HTTP; else over stdio
    keeps      a connection has a session of its own; else one has to be named in each call, as in the revision without connections
    """

    def __init__(self, name, connect, over_http, keeps):
        self.name, self.connect, self.over_http, self.keeps = name, connect, over_http, keeps
        # Of the answers over HTTP; not every client tells them.
        self.statuses = []

    @contextlib.asynccontextmanager
    async def talk(self, session=None, **options):
        async with self.connect(self, **options) as connection:
            yield Talk(self, connection, session)


class Talk:
    """A connection, and the session that is named in each call where connections have none."""

    def __init__(self, way, connection, session=None):
        self.way, self.connection, self.session = way, connection, session

    def _with_session(self, arguments):
        return arguments | ({"sessionId": self.session} if self.session and "sessionId" not in arguments else {})

    async def call(self, tool, progress=None, **arguments):
        result = await self.connection.call(tool, self._with_session(arguments), progress)
        if not self.way.keeps and not self.session and "sessionId" not in arguments:
            self.session = session_of(result)
            # A model reads only the text, and has to name it from now on.
            contains(text(result), self.session)
        return result

    async def python(self, code, **more):
        return await self.call("ExecutePythonCode", pythonCode=code, **more)

    def expect_no_messages(self):
        if not self.connection.asks:
            equal(self.connection.logs, [], "messages that nobody asked for")

    async def stopped(self, code, when, progress=None):
        """Runs code without an end, and stops it when something has come to be."""
        arguments = self._with_session({"pythonCode": code, "timeoutSeconds": 600})
        call, waiting = asyncio.ensure_future(self.connection.call("ExecutePythonCode", arguments, progress)), asyncio.ensure_future(when)
        await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise AssertionError(f"it has ended by itself: {call.result()}")
        await self.connection.stop(call)

    async def value(self, code, **more):
        """The value of an expression, as the model reads it and as programs do."""
        result = await self.python(code, **more)
        assert not result.get("isError"), text(result)
        value = execution(result)["result"]["text"]
        contains(text(result), value)
        return value


async def until(holds):
    """Waits until something holds; the check's own patience bounds it."""
    while not holds():
        await asyncio.sleep(0.02)


def http_options(way, key):
    """For a client of `httpx`, or of what has come of it: the caller's key, and a note of each answer."""

    async def answered(response):
        way.statuses.append(response.status_code)

    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return {"headers": headers, "event_hooks": {"response": [answered]}, "follow_redirects": True}


def text(result):
    """What a model reads."""
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")


def blocks(result, kind):
    return [block for block in result["content"] if block["type"] == kind]


def session_of(result):
    return result["structuredContent"]["sessionId"]


def execution(result):
    """The execution object."""
    structured = result["structuredContent"]
    return structured.get("execution", structured)


async def lists_the_tools(talk):
    check_tools(await talk.connection.tools())


async def keeps_its_state(talk):
    await talk.python("import math\nx = 40\ndef double(n):\n    return 2 * n")
    equal(await talk.value("x + 2"), "42")
    equal(await talk.value("double(x) + math.floor(2.5)"), "82")
    await talk.call("RunShellCommand", command="printf shared > from-shell.txt")
    equal(await talk.value("open('from-shell.txt').read()"), "'shared'")


async def takes_named_sessions(talk):
    """A call may name another session, and changes nothing for those that do not."""
    await talk.python("whose = 'own'")
    name = f"named-{uuid.uuid4()}"
    equal(await talk.value("globals().get('whose', 'nobody')", sessionId=name), "'nobody'")
    equal(session_of(await talk.python("whose = 'named'", sessionId=name)), name)
    equal([await talk.value("whose", sessionId=name), await talk.value("whose")], ["'named'", "'own'"])
    (link,) = blocks(await talk.python("open('theirs.txt', 'w').write(whose)\nNone", sessionId=name), "resource_link")
    (contents,) = await talk.connection.read(link["uri"])
    equal(contents["text"], "named")


async def gives_pictures(talk):
    result = await talk.python(FIGURE)
    (picture,) = blocks(result, "image")
    equal(picture["mimeType"], "image/png")
    data = base64.b64decode(picture["data"], validate=True)
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB\x60\x82"), data[:20]
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in [16, 20])
    assert width > 100 and height > 100, (width, height)
    # A picture that was asked for.
    await talk.python("plt.plot([3, 1, 2])\nplt.savefig('asked.png')\nplt.close('all')")
    (picture,) = blocks(await talk.call("GetSessionFile", filePath="asked.png"), "image")
    equal(base64.b64decode(picture["data"])[:4], b"\x89PNG")


async def links_files(talk):
    code = "open('all bytes.bin', 'wb').write(bytes(range(256)) * 4)\nopen('ünï.csv', 'w', encoding='utf-8').write('a,b\\n1,ü\\n')\nNone"
    links = {link["name"]: link for link in blocks(await talk.python(code), "resource_link")}
    equal(sorted(links), ["all bytes.bin", "ünï.csv"])
    equal(links["ünï.csv"]["mimeType"], "text/csv")
    equal(links["all bytes.bin"].get("size"), 1024)
    contents = await talk.connection.read(links["all bytes.bin"]["uri"])
    equal([(one["uri"], base64.b64decode(one["blob"])) for one in contents], [(links["all bytes.bin"]["uri"], bytes(range(256)) * 4)])
    (contents,) = await talk.connection.read(links["ünï.csv"]["uri"])
    equal((contents["text"], contents["mimeType"]), ("a,b\n1,ü\n", "text/csv"))
    (link,) = blocks(await talk.call("GetSessionFile", filePath="all bytes.bin"), "resource_link")
    equal(link["uri"], links["all bytes.bin"]["uri"])


async def hands_over_what_is_large(talk):
    """Clients refuse large events, and models large pictures: both come as links, and are there."""
    size = 1_200_000
    code = f"import os\nfrom IPython.display import Image, display\nnoise = os.urandom({size})\nopen('noise.bin', 'wb').write(noise)\n"
    code += "display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + noise, format='png'))\nimport hashlib\nhashlib.sha256(noise).hexdigest()"
    result = await talk.python(code)
    equal(blocks(result, "image"), [])
    links = {link["mimeType"]: link for link in blocks(result, "resource_link")}
    (contents,) = await talk.connection.read(links["application/octet-stream"]["uri"])
    equal(repr(hashlib.sha256(base64.b64decode(contents["blob"])).hexdigest()), execution(result)["result"]["text"])
    (contents,) = await talk.connection.read(links["image/png"]["uri"])
    equal((contents["mimeType"], len(base64.b64decode(contents["blob"]))), ("image/png", size + 8))


async def answers_calls_at_once(talk):
    """Calls of one session are done one after the other, however they are asked."""
    await talk.python("order = []")
    calls = [talk.python(f"import time\ntime.sleep(0.1)\norder.append({number})\nlen(order)") for number in range(4)]
    lengths = [execution(result)["result"]["json"] for result in await asyncio.gather(*calls)]
    equal(sorted(lengths), [1, 2, 3, 4])
    equal(await talk.value("sorted(order)"), "[0, 1, 2, 3]")


async def serves_no_other_resources(talk):
    (link,) = blocks(await talk.python("open('here.txt', 'w').write('here')\nNone"), "resource_link")
    inside = link["uri"].rsplit("/", 1)[0]
    for uri in ["file:///etc/passwd", f"{inside}/missing.txt", f"{inside}/../../etc/passwd", f"{inside}/%2e%2e/%2e%2e/etc/passwd", "belljar://nothing", "x:y"]:
        try:
            contents = await talk.connection.read(uri)
        except Exception as error:
            # By the protocol's code: not found, or in the newest revision a wrong parameter.
            assert talk.connection.code(error) in (-32002, -32602), (uri, error)
        else:
            raise AssertionError(f"`{uri}` was read: {contents}")


async def answers_as_its_schemas_say(talk):
    """Each tool once, with what it says of its own answers."""
    schemas = {tool["name"]: tool["outputSchema"] for tool in await talk.connection.tools()}
    pdf = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('out.pdf')\nplt.close('all')"
    calls = [
        ("UploadFileToSession", {"fileName": "data.csv", "contentBase64": base64.b64encode(b"a,b\n1,2\n").decode()}, "data.csv"),
        ("ExecutePythonCode", {"pythonCode": "print(open('data.csv').read())\n{'rows': 1}"}, "a,b"),
        ("ExecutePythonCode", {"pythonCode": "None"}, ""),
        ("RunShellCommand", {"command": "wc -l data.csv", "explanation": "count the lines", "isBackground": False}, "2 data.csv"),
        ("GeneratePdfReport", {"pythonCode": pdf, "expectedOutputFilename": "out.pdf", "saveAsFilename": "Sales report.pdf"}, "Sales report.pdf"),
        ("ReadSessionFile", {"filePath": "/mnt/data/data.csv", "startLine": 2, "endLine": 2}, "1,2"),
        ("SearchSessionFiles", {"pattern": "^\\d,", "include": "*.csv"}, "data.csv"),
        ("ListSessionFiles", {"recursive": True}, "data.csv"),
        ("GetSessionFile", {"filePath": "Sales report.pdf"}, "Sales report.pdf"),
        ("ExecutePythonCode", {"pythonCode": "1/0"}, "ZeroDivisionError"),
    ]
    equal({name for name, _, _ in calls}, set(TOOLS))
    for name, arguments, part in calls:
        result = await talk.call(name, **arguments)
        equal(bool(result.get("isError")), part == "ZeroDivisionError", f"{name}: {text(result)}")
        contains(json.dumps(result["content"]), part)
        assert text(result).strip(), f"{name}: nothing to read for a model"
        Draft202012Validator(schemas[name]).validate(result["structuredContent"])
        if name in ["ExecutePythonCode", "RunShellCommand", "GeneratePdfReport"]:
            done = execution(result)
            assert done["id"].startswith("exe_") and isinstance(done["executionTimeMs"], int), done
            equal(done["outcome"], "raised" if result.get("isError") else "completed")


async def tells_failures_as_results(talk):
    await talk.python("kept = 'still here'")
    result = await talk.python("def broken():\n    return 1 / 0\n\nbroken()")
    equal(result["isError"], True)
    for part in ["ZeroDivisionError", "division by zero", "return 1 / 0"]:
        contains(text(result), part)
    assert "\x1b" not in text(result)
    result = await talk.call("RunShellCommand", command="echo out; echo err >&2; exit 7")
    equal((result["isError"], execution(result)["exitCode"]), (True, 7))
    for part in ["out", "err", "7"]:
        contains(text(result), part)
    # A program's error is none of the protocol's, and not of the session's.
    equal(await talk.value("kept"), "'still here'")


async def cuts_long_output(talk):
    result = await talk.python("for line in range(2000):\n    print('line', line)")
    done = execution(result)
    equal((done["stdoutTruncated"], result.get("isError", False)), (True, False))
    assert len(done["stdout"]) <= 4000 and len(text(result)) < 6000, len(text(result))
    # It is told where the rest is, and it is there.
    path = f"outputs/{done['id']}/stdout.txt"
    contains(text(result), path)
    contains(text(await talk.call("ReadSessionFile", filePath=path, startLine=1001, endLine=1001)), "line 1000")


async def reports_progress_and_stops(talk):
    """Progress is told while code runs; what is cancelled is interrupted, and loses nothing."""
    await talk.python("kept = 'before'")
    told = []

    async def progress(amount, _total=None, _message=None):
        told.append(amount)

    await talk.stopped(COUNT, until(lambda: len(told) >= 2), progress)
    assert len(told) >= 2 and told == sorted(set(told)), f"progress has to grow: {told}"
    # It is answered although the code would run for ten minutes; twice the same: it does not run on.
    counted = await talk.value("count")
    assert int(counted) > 0
    equal(await talk.value("count"), counted)
    equal(await talk.value("kept"), "'before'")


async def sends_logs_when_asked(talk):
    """What code prints comes while it runs, as messages, to who asked for them."""
    result = await talk.python("print('nobody asked')")
    contains(text(result), "nobody asked")
    talk.expect_no_messages()
    await talk.connection.log("info")
    # It came before the end: the end comes only by this.
    await talk.stopped(f"print('first line')\n{COUNT}", until(lambda: "first line" in "".join(talk.connection.logs)))
    result = await talk.python("print('second line')\nprint('to stderr', file=__import__('sys').stderr)")
    for part in ["second line", "to stderr"]:
        contains(text(result), part)
        # They may come by another stream than the result.
        await until(lambda part=part: part in "".join(talk.connection.logs))


async def corrects_the_model(talk):
    """Whatever is wrong with a call, the answer is one that a model reads, and says what to do instead."""
    run, shell, read = "ExecutePythonCode", "RunShellCommand", "ReadSessionFile"
    await talk.python("None")
    wrong = [
        (run, {}, ["pythonCode", "required"]),
        (run, {"pythonCode": "1", "python": "1"}, ["`python`", "pythonCode"]),
        (run, {"pythonCode": 1}, ["pythonCode"]),
        (run, {"pythonCode": None}, ["pythonCode"]),
        (run, {"pythonCode": ""}, ["pythonCode"]),
        (run, {"pythonCode": "#" * 20_001}, ["20,000"]),
        (run, {"pythonCode": "1", "timeoutSeconds": 4}, ["timeoutSeconds", "5", "900"]),
        (run, {"pythonCode": "1", "timeoutSeconds": 901}, ["timeoutSeconds", "900"]),
        (run, {"pythonCode": "1", "timeoutSeconds": "soon"}, ["timeoutSeconds"]),
        (run, {"pythonCode": "1", "sessionId": "no"}, ["session id", "4 to 128"]),
        (run, {"pythonCode": "1", "sessionId": "../../etc"}, ["session id", "4 to 128"]),
        (shell, {"command": "sleep 1", "isBackground": True}, ["isBackground", "foreground"]),
        (shell, {"command": "true", "timeoutSeconds": 241}, ["timeoutSeconds", "240"]),
        (read, {"filePath": "../secret"}, ["filePath", "relative to /mnt/data"]),
        (read, {"filePath": "/etc/passwd"}, ["filePath", "relative to /mnt/data"]),
        (read, {"filePath": "missing.csv"}, ["missing.csv"]),
        ("SearchSessionFiles", {"pattern": "("}, ["pattern"]),
        ("GetSessionFile", {"filePath": "missing.csv"}, ["missing.csv"]),
        ("UploadFileToSession", {"fileName": "../x", "contentBase64": "eA=="}, ["fileName"]),
        ("UploadFileToSession", {"fileName": "x", "contentBase64": "not base64!"}, ["contentBase64"]),
        (read, {"filePath": "a", "sessionId": f"nobody-{uuid.uuid4()}"}, ["session"]),
    ]
    for tool, arguments, parts in wrong:
        result = await talk.call(tool, **arguments)
        equal(result.get("isError"), True, f"{tool} {str(arguments)[:80]}: {text(result)}")
        for part in parts:
            contains(text(result), part)
    # A tool that is not there is an error of the protocol, or a result that says so; both name those that are.
    try:
        result = await talk.call("ExecuteCode", pythonCode="1")
    except Exception as error:
        equal(talk.connection.code(error), -32602, str(error))
        said = str(error)
    else:
        equal(result["isError"], True)
        said = text(result)
    contains(said, "ExecutePythonCode")


async def survives_what_code_writes(talk):
    """Nothing that code writes, to whatever it finds open, gets among the messages."""
    code = (
        "import os\n"
        "for descriptor in range(256):\n"
        "    try:\n"
        "        os.write(descriptor, b'\\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\\n')\n"
        "    except OSError:\n"
        "        pass\n"
        "print('{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"error\",\"data\":\"forged\"}}')\n"
        "'done'"
    )
    result = await talk.python(code)
    # The worker may not survive writing into its own channels; the connection does.
    assert "done" in text(result) or result["isError"], text(result)
    result = await talk.call("RunShellCommand", command="for f in 1 2 3 4 5 6 7 8 9; do echo '{\"jsonrpc\":\"2.0\"}' >&$f; done 2>/dev/null; printf '\\033[31mred\\033[0m'")
    contains(text(result), "jsonrpc")
    talk.expect_no_messages()
    equal(await talk.value("6 * 7"), "42")


async def separates_connections(way):
    async with way.talk() as one, way.talk() as other:
        ids = [session_of(await talk.python(f"mine = {number}")) for number, talk in enumerate([one, other])]
        assert ids[0] != ids[1], ids
        equal([await talk.value("mine") for talk in [one, other]], ["0", "1"])
        await one.python("open('mine.txt', 'w').write('x')\nNone")
        assert "mine.txt" not in text(await other.call("ListSessionFiles"))


async def shares_named_sessions(way):
    """A session that is named is one, from wherever it is named; connections still have their own."""
    name = f"shared-{uuid.uuid4()}"
    async with way.talk() as one, way.talk() as other:
        equal(session_of(await one.python("met = 'here'", sessionId=name)), name)
        equal(await other.value("met", sessionId=name), "'here'")
        for talk in [one, other]:
            equal(await talk.value("globals().get('met', 'not here')"), "'not here'")


async def finds_its_session_again(way):
    """The end of a connection is not the end of its session."""
    async with way.talk() as talk:
        session = session_of(await talk.python("left = 'behind'"))
        (link,) = blocks(await talk.python("open('left.txt', 'w').write('behind')\nNone"), "resource_link")
    async with way.talk(session=session) as talk:
        equal(await talk.value("left"), "'behind'")
        (contents,) = await talk.connection.read(link["uri"])
        equal(contents["text"], "behind")


async def keeps_callers_apart(way):
    """Another key does not get at a session, whatever it knows of it."""
    async with way.talk(session=f"private-{uuid.uuid4()}") as mine:
        session = session_of(await mine.python("secret = 'mine'"))
        (link,) = blocks(await mine.python("open('secret.txt', 'w').write('mine')\nNone"), "resource_link")
        async with way.talk(session=session, key=native.make_key()[1]) as theirs:
            equal(await theirs.value("globals().get('secret', 'nothing')"), "'nothing'")
            try:
                contents = await theirs.connection.read(link["uri"])
            except Exception as error:
                assert theirs.connection.code(error) in (-32002, -32602), error
            else:
                raise AssertionError(f"read another's file: {contents}")
        equal(await mine.value("secret"), "'mine'")


async def refuses_wrong_keys(way):
    for key in ["wrong", None]:
        way.statuses.clear()
        try:
            async with way.talk(key=key) as talk:
                await talk.python("1")
        except Exception:
            assert 401 in way.statuses and 200 not in way.statuses, (key, way.statuses)
        else:
            raise AssertionError(f"the key {key!r} was taken")


async def ends_with_its_key(way):
    """A key that is revoked in mid-connection is good for nothing more."""
    name, key = native.make_key()
    try:
        async with way.talk(key=key) as talk:
            equal(await talk.value("1 + 1"), "2")
            native.revoke_key(name)
            way.statuses.clear()
            await talk.python("1")
    except Exception:
        assert way.statuses and set(way.statuses) == {401}, way.statuses
    else:
        raise AssertionError("a revoked key was taken")


TALKS = [
    lists_the_tools,
    keeps_its_state,
    takes_named_sessions,
    gives_pictures,
    links_files,
    hands_over_what_is_large,
    answers_calls_at_once,
    serves_no_other_resources,
    answers_as_its_schemas_say,
    tells_failures_as_results,
    cuts_long_output,
    reports_progress_and_stops,
    corrects_the_model,
    survives_what_code_writes,
    # Last: from here on messages are asked for.
    sends_logs_when_asked,
]
WAYS = [separates_connections]
HTTP_WAYS = [shares_named_sessions, finds_its_session_again, keeps_callers_apart, refuses_wrong_keys, ends_with_its_key]


async def all_of(way, only):
    """Every check of one way; those that need no connection of their own share one, since starting a program takes its time."""
    failed = []

    async def checked(name, check, what):
        if only and only not in name:
            return
        try:
            started = time.monotonic()
            await asyncio.wait_for(check(what), PATIENCE)
            print(f"ok    {name} ({way.name}, {time.monotonic() - started:.1f} s)", flush=True)
        except Exception:
            failed.append(name)
            print(f"FAIL  {name} ({way.name})", flush=True)
            traceback.print_exc(file=sys.stdout)

    try:
        async with way.talk() as talk:
            for check in TALKS:
                await checked(check.__name__, check, talk)
    except Exception:
        # It could not be made, or not be ended.
        failed.append("connects")
        print(f"FAIL  connects ({way.name})", flush=True)
        traceback.print_exc(file=sys.stdout)
    for check in WAYS + (HTTP_WAYS if way.over_http else []):
        await checked(check.__name__, check, way)
    return failed


def main(ways):
    """Tries every way; the arguments may name one check, and one way."""
    only, wanted = [*sys.argv[1:], "", ""][:2]
    failed = [name for way in ways if wanted in way.name for name in asyncio.run(all_of(way, only))]
    if failed:
        sys.exit(f"{len(failed)} checks have failed")
