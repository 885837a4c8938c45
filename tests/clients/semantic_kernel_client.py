"""Semantic Kernel for Python: SessionsPythonTool. It speaks https only, and waits five seconds at most."""

import os
import tempfile

from semantic_kernel.core_plugins.sessions_python_tool.sessions_python_plugin import SessionsPythonTool
from semantic_kernel.exceptions.function_exceptions import FunctionExecutionException
from semantic_kernel.kernel import Kernel

import common
from common import contains, equal


def tool(endpoint, folder=None, key=None):
    assert endpoint.startswith("https://"), "this client needs a server with TLS"
    options = {"enable_dangerous_file_uploads": True, "allowed_upload_directories": [folder]} if folder else {}
    return SessionsPythonTool(auth_callback=lambda: key or common.KEY, pool_management_endpoint=endpoint, **options)


async def executes_and_keeps_its_state(endpoint):
    plugin = tool(endpoint)
    equal(await plugin.execute_code("x = 40"), "Status:\nSuccess\nResult:\n\nStdout:\n\nStderr:\n")
    equal(await plugin.execute_code("```python\nprint('hello')\nx + 2\n```"), "Status:\nSuccess\nResult:\n42\nStdout:\nhello\n\nStderr:\n")
    kernel = Kernel()
    kernel.add_plugin(plugin, "interpreter")
    result = await kernel.invoke(plugin_name="interpreter", function_name="execute_code", code="x / 2")
    contains(str(result), "Result:\n20.0\n")


async def tells_errors(endpoint):
    shown = await tool(endpoint).execute_code("1/0")
    contains(shown, "Status:\nFailure\n")
    contains(shown, "ZeroDivisionError: division by zero")


async def gives_pictures(endpoint):
    contains(await tool(endpoint).execute_code(common.FIGURE), "'type': 'image', 'format': 'png', 'base64_data': 'iVBOR")


async def moves_files(endpoint):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data file.csv")
        with open(path, "w") as file:
            file.write("a,b\n1,2\n")
        plugin = tool(endpoint, folder)
        equal(await plugin.list_files(), [])
        uploaded = await plugin.upload_file(local_file_path=path)
        equal((uploaded.filename, uploaded.size_in_bytes, uploaded.full_path), ("data file.csv", 8, "/mnt/data/data file.csv"))
        # From now on it says of every body that it is JSON, of uploads as well.
        contains(await plugin.execute_code("open('/mnt/data/data file.csv').read()"), "Result:\na,b\n1,2\n")
        again = await plugin.upload_file(local_file_path=path, remote_file_path="again.csv")
        equal((again.filename, again.size_in_bytes), ("again.csv", 8))
        equal(sorted(file.filename for file in await plugin.list_files()), ["again.csv", "data file.csv"])
        equal((await plugin.download_file(remote_file_name="data file.csv")).read(), b"a,b\n1,2\n")
        await plugin.execute_code("import os; os.makedirs('/mnt/data/out'); open('/mnt/data/out/x.txt', 'w').write('inside')")
        copy = os.path.join(folder, "copy")
        await plugin.download_file(remote_file_name="out/x.txt", local_file_path=copy)
        with open(copy) as file:
            equal(file.read(), "inside")
        try:
            await plugin.download_file(remote_file_name="missing")
            raise AssertionError("expected an error")
        except FunctionExecutionException as error:
            contains(str(error), "404")


async def refuses_strangers(endpoint):
    try:
        await tool(endpoint, key="wrong").execute_code("1")
        raise AssertionError("expected an error")
    except FunctionExecutionException as error:
        contains(str(error), "401")


async def takes_an_endpoint_that_names_a_route():
    contains(await tool(common.URL + "/python/execute").execute_code("6*7"), "Result:\n42\n")


common.main([executes_and_keeps_its_state, tells_errors, gives_pictures, moves_files, refuses_strangers, takes_an_endpoint_that_names_a_route])
