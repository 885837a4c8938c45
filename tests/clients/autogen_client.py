"""AutoGen: ACADynamicSessionsCodeExecutor. It asks for the installed packages first, and reads them from the text of a list."""

import os
import tempfile

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock, with_requirements
from autogen_ext.code_executors.azure import ACADynamicSessionsCodeExecutor

import common
from common import contains, equal


class Credential:
    """All that it needs of one."""

    def __init__(self, key):
        self.token = key

    def get_token(self, *_scopes, **_options):
        return self


def executor(endpoint, folder=None, **options):
    return ACADynamicSessionsCodeExecutor(pool_management_endpoint=endpoint, credential=Credential(common.KEY), work_dir=folder, session_id=common.session(), **options)


async def run(tool, code):
    return await tool.execute_code_blocks([CodeBlock(code=code, language="python")], CancellationToken())


async def executes_and_keeps_its_state(endpoint):
    tool = executor(endpoint)
    result = await run(tool, "x = 40\nprint('hello')")
    equal((result.exit_code, result.output), (0, "hello\n"))
    equal((await run(tool, "x + 2")).output, "42")
    equal((await run(tool, "import os; os.getcwd()")).output, "/mnt/data")
    # It then begins with code that is empty.
    await tool.restart()
    equal((await run(tool, "'x' in globals()")).output, "False")


async def knows_the_packages(endpoint):
    tool = executor(endpoint)
    await run(tool, "1")
    packages = await tool.get_available_packages(CancellationToken())
    assert {"numpy", "pandas", "matplotlib"} <= packages, packages
    assert not any(set(name) & set(" ,'[]\n") for name in packages), packages


async def tells_errors(endpoint):
    result = await run(executor(endpoint), "1/0")
    equal(result.exit_code, 1)
    contains(result.output, "ZeroDivisionError: division by zero")


async def gives_pictures(endpoint):
    contains((await run(executor(endpoint), common.FIGURE)).output, "'format': 'png'")
    equal((await run(executor(endpoint, suppress_result_output=True), common.FIGURE)).output, "")


@with_requirements(python_packages=["pandas"], global_imports=["pandas"])
def rows() -> int:
    """Counts rows; sent to the session as source."""
    return len(pandas.DataFrame({"a": [1, 2, 3]}))  # noqa: F821


async def brings_its_functions(endpoint):
    result = await run(executor(endpoint, functions=[rows]), "print(rows())")
    equal((result.exit_code, result.output), (0, "3\n"))


async def moves_files(endpoint):
    with tempfile.TemporaryDirectory() as folder:
        tool = executor(endpoint, folder)
        for name, content in [("data.csv", "a,b\n"), ("with space é.txt", "x")]:
            with open(os.path.join(folder, name), "w") as file:
                file.write(content)
        token = CancellationToken()
        await tool.upload_files(["data.csv", "with space é.txt"], token)
        equal(sorted(await tool.get_file_list(token)), ["data.csv", "with space é.txt"])
        result = await run(tool, "print(open('data.csv').read(), end='')\nopen('out.txt', 'w').write('inside')\nNone")
        equal((result.exit_code, result.output), (0, "a,b\n"))
        os.remove(os.path.join(folder, "with space é.txt"))
        paths = await tool.download_files(["out.txt", "with space é.txt"], token)
        equal([open(path).read() for path in paths], ["inside", "x"])


common.main([executes_and_keeps_its_state, knows_the_packages, tells_errors, gives_pictures, brings_its_functions, moves_files])
