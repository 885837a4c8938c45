"""azure-dynamic-sessions-code-interpreter, which tries again where a server is busy."""

import inspect
import io
import json

import requests
from azure_dynamic_sessions_code_interpreter import core

import common
from common import contains, equal, raises


def tool(endpoint):
    (kind,) = [kind for _, kind in inspect.getmembers(core, inspect.isclass) if kind.__module__ == core.__name__ and hasattr(kind, "upload_file")]
    made = kind(pool_management_endpoint=endpoint, session_id=common.session())
    made.access_token_provider = lambda: common.KEY
    return made


def executes_and_keeps_its_state(endpoint):
    interpreter = tool(endpoint)
    interpreter.execute("x = 40")
    equal(json.loads(interpreter._run("print('hello')\nx + 2")), {"result": 42, "stdout": "hello\n", "stderr": ""})
    failed = interpreter.execute("1/0")
    equal(failed["status"], "Failure")
    contains(failed["stderr"], "ZeroDivisionError")
    equal(json.loads(interpreter._run(common.FIGURE))["result"], {"type": "image", "format": "png"})


def moves_files(endpoint):
    interpreter = tool(endpoint)
    uploaded = interpreter.upload_file(data=io.BytesIO(b"a,b\n1,2\n"), remote_file_path="data file.csv")
    equal((uploaded.filename, uploaded.size_in_bytes), ("data file.csv", 8))
    equal(interpreter.execute("open('/mnt/data/data file.csv').read()")["result"], "a,b\n1,2\n")
    equal([file.filename for file in interpreter.list_files()], ["data file.csv"])
    equal(interpreter.download_file(remote_file_path="data file.csv").read(), b"a,b\n1,2\n")
    equal(raises(requests.HTTPError, lambda: interpreter.download_file(remote_file_path="missing")).response.status_code, 404)


common.main([executes_and_keeps_its_state, moves_files])
