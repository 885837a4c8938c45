"""langchain-azure-dynamic-sessions: the Python tool, the shell tool and the shell backend."""

import base64
import io
import json
import os
import tempfile
import warnings

warnings.filterwarnings("ignore")

import requests
from langchain_azure_dynamic_sessions import SessionsPythonREPLTool
from langchain_azure_dynamic_sessions.tools.sessions import SessionsBashTool

import common
from common import contains, equal, raises


def python_tool(endpoint, **options):
    return SessionsPythonREPLTool(pool_management_endpoint=endpoint, access_token_provider=lambda: common.KEY, session_id=common.session(), **options)


def executes_and_keeps_its_state(endpoint):
    tool = python_tool(endpoint)
    result = tool.execute("6*7")
    equal(result["result"], 42)
    equal((result["status"], result["stdout"], result["stderr"]), ("Success", "", ""))
    tool.execute("x = 20\ndef double(n):\n    return 2 * n")
    equal(tool.execute("double(x) + 2")["result"], 42)
    equal(tool.execute("print('hello')")["stdout"], "hello\n")
    shown = json.loads(tool.run("```python\nprint('a')\n1 + 1\n```"))
    equal(shown, {"result": 2, "stdout": "a\n", "stderr": ""})
    tool.delete_session()
    equal(tool.execute("globals().get('x')")["result"], "", "a new session")


def types_values(endpoint):
    tool = python_tool(endpoint)
    for code, value in [("'text'", "text"), ("1.5", 1.5), ("True", True), ("None", ""), ("float('nan')", "nan"), ("[1, 2]", "[1, 2]")]:
        equal(tool.execute(code)["result"], value, code)


def tells_errors(endpoint):
    result = python_tool(endpoint).execute("1/0")
    equal(result["status"], "Failure")
    contains(result["stderr"], "ZeroDivisionError: division by zero")
    assert "\x1b" not in result["stderr"]


def gives_pictures(endpoint):
    tool = python_tool(endpoint)
    result = tool.execute(common.FIGURE)["result"]
    equal((result["type"], result["format"]), ("image", "png"))
    assert base64.b64decode(result["base64_data"]).startswith(b"\x89PNG")
    message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": {"python_code": common.FIGURE}})
    assert "base64_data" not in message.content and message.artifact["result"]["base64_data"]


def moves_files(endpoint):
    tool = python_tool(endpoint)
    equal(tool.list_files(), [])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data file.csv")
        with open(path, "w") as file:
            file.write("a,b\n1,2\n")
        uploaded = tool.upload_file(local_file_path=path)
        equal((uploaded.filename, uploaded.size_in_bytes, uploaded.full_path), ("data file.csv", 8, "/mnt/data/data file.csv"))
        equal(tool.execute("open('/mnt/data/data file.csv').read()")["result"], "a,b\n1,2\n")
        tool.execute("open('/mnt/data/out ünï.txt', 'w').write('from inside')")
        equal(sorted(file.filename for file in tool.list_files()), ["data file.csv", "out ünï.txt"])
        equal(tool.download_file(remote_file_path="out ünï.txt").read(), b"from inside")
        tool.download_file(remote_file_path="data file.csv", local_file_path=os.path.join(folder, "copy"))
        with open(os.path.join(folder, "copy")) as file:
            equal(file.read(), "a,b\n1,2\n")
    large = os.urandom(3_000_000)
    tool.upload_file(data=io.BytesIO(large), remote_file_path="large.bin")
    equal(tool.download_file(remote_file_path="large.bin").read(), large)
    error = raises(requests.HTTPError, lambda: tool.download_file(remote_file_path="missing"))
    equal((error.response.status_code, error.response.json()["error"]["code"]), (404, "ResourceNotFound"))


def ends_its_session(endpoint):
    with python_tool(endpoint) as tool:
        equal(tool.execute("x = 1\nx")["result"], 1)
    equal(tool.execute("globals().get('x')")["result"], "", "a new session")
    # Ending what has never been used is no error.
    python_tool(endpoint).delete_session()


def runs_commands(endpoint):
    tool = SessionsBashTool(pool_management_endpoint=endpoint, access_token_provider=lambda: common.KEY, session_id=common.session())
    uploaded = tool.upload_file(data=io.BytesIO(b"from outside"), remote_file_path="up.txt")
    equal((uploaded.filename, uploaded.size_in_bytes), ("up.txt", 12))
    equal(tool.execute("cat up.txt")["result"]["stdout"], "from outside")
    response = tool.execute("echo out; echo err >&2; exit 7")
    equal((response["status"], response["result"]["stdout"], response["result"]["stderr"]), ("7", "out\n", "err\n"))
    contains(tool.run("echo hello"), "hello")
    tool.execute("printf inside > down.txt")
    equal(sorted(file.filename for file in tool.list_files()), ["down.txt", "up.txt"])
    equal(tool.download_file(remote_file_path="down.txt").read(), b"inside")
    tool.delete_session()


def refuses_strangers(endpoint):
    tool = SessionsPythonREPLTool(pool_management_endpoint=endpoint, access_token_provider=lambda: "wrong", session_id=common.session())
    error = raises(requests.HTTPError, lambda: tool.execute("1"))
    equal((error.response.status_code, error.response.headers["x-ms-error-code"]), (401, "Unauthorized"))


common.main([executes_and_keeps_its_state, types_values, tells_errors, gives_pictures, moves_files, ends_its_session, runs_commands, refuses_strangers])
