"""`langchain-mcp-adapters`, driven as an agent drives it, without a model: tools are loaded and called, in one session or in one for each call."""

import asyncio
import base64
import traceback
import uuid
from datetime import timedelta

from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

import checks
import common
import native
from common import contains, equal
from tools import TOOLS

HTTP = {
    "transport": "streamable_http",
    "url": checks.URL,
    "headers": {"Authorization": f"Bearer {common.KEY}"},
    "timeout": timedelta(seconds=30),
    "sse_read_timeout": timedelta(minutes=16),
}
WAYS = {"http": HTTP}
if checks.COMMAND:
    WAYS["stdio"] = {"transport": "stdio", "command": checks.COMMAND[0], "args": checks.COMMAND[1:]}


async def call(tools, name, **arguments):
    """What an agent gets for a call of its model: a message."""
    (tool,) = [tool for tool in tools if tool.name == name]
    return await tool.ainvoke({"type": "tool_call", "id": str(uuid.uuid4()), "name": name, "args": arguments})


def blocks(message, kind):
    return [block for block in message.content if block["type"] == kind]


def text(message):
    return "\n".join(block["text"] for block in blocks(message, "text"))


async def works_in_one_session(connection):
    client = MultiServerMCPClient({"belljar": connection})
    async with client.session("belljar") as session:
        tools = await load_mcp_tools(session)
        equal(sorted(tool.name for tool in tools), sorted(TOOLS))
        assert all(tool.description and tool.args_schema["properties"] for tool in tools)
        await call(tools, "ExecutePythonCode", pythonCode="x = 40")
        message = await call(tools, "ExecutePythonCode", pythonCode="x + 2")
        equal(message.status, "success")
        contains(text(message), "42")
        equal(checks.execution({"structuredContent": message.artifact["structured_content"]})["result"]["json"], 42)

        message = await call(tools, "ExecutePythonCode", pythonCode=f"{checks.FIGURE}\nopen('data.bin', 'wb').write(b'\\x00\\xff')\nNone")
        (picture,) = blocks(message, "image")
        equal((picture["mime_type"], base64.b64decode(picture["base64"])[1:4]), ("image/png", b"PNG"))
        (file,) = blocks(message, "file")
        (contents,) = (await session.read_resource(file["url"])).contents
        equal(base64.b64decode(contents.blob), b"\x00\xff")

        # What fails is told to the model, and does not stop the agent.
        message = await call(tools, "ExecutePythonCode", pythonCode="1/0")
        equal(message.status, "error")
        contains(text(message), "ZeroDivisionError")
        message = await call(tools, "RunShellCommand", command="true", isBackground=True)
        equal(message.status, "error")
        contains(text(message), "foreground")


async def works_in_a_session_for_each_call(connection):
    """As `get_tools` gives them: every call is a connection of its own, and only what is named is shared."""
    client = MultiServerMCPClient({"belljar": connection})
    tools = await client.get_tools()
    await call(tools, "ExecutePythonCode", pythonCode="x = 1")
    contains(text(await call(tools, "ExecutePythonCode", pythonCode="globals().get('x', 'none')")), "none")
    if connection["transport"] == "stdio":
        # Each connection is a process, and the sessions are the process's.
        return
    message = await call(tools, "ExecutePythonCode", pythonCode="x = 41")
    session = message.artifact["structured_content"]["sessionId"]
    contains(text(await call(tools, "ExecutePythonCode", pythonCode="x + 1", sessionId=session)), "42")


async def tells_progress_and_messages():
    told, logs = [], []

    async def on_progress(amount, _total, _message, context):
        told.append((context.tool_name, amount))

    async def on_log(params, _context):
        logs.append(params.data)

    client = MultiServerMCPClient({"belljar": HTTP}, callbacks=Callbacks(on_progress=on_progress, on_logging_message=on_log))
    async with client.session("belljar") as session:
        await session.set_logging_level("info")
        tools = await load_mcp_tools(session, callbacks=client.callbacks, server_name="belljar")
        # It goes on until it was heard of.
        code = "import os, time\nprint('printed', flush=True)\nwhile not os.path.exists('heard.txt'):\n    time.sleep(0.05)\n'done'"
        session_id = checks.session_of({"structuredContent": (await call(tools, "ExecutePythonCode", pythonCode="1")).artifact["structured_content"]})

        async def heard():
            await checks.until(lambda: told and "printed" in "".join(logs))
            native.upload(session_id, "heard.txt", b"1")

        message, _ = await asyncio.wait_for(asyncio.gather(call(tools, "ExecutePythonCode", pythonCode=code), heard()), checks.PATIENCE)
        contains(text(message), "done")
        equal({name for name, _ in told}, {"ExecutePythonCode"})


async def refuses_strangers():
    client = MultiServerMCPClient({"belljar": HTTP | {"headers": {"Authorization": "Bearer wrong"}}})
    try:
        await client.get_tools()
    except Exception as error:
        contains("".join(traceback.format_exception(error)), "401")
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    common.main([works_in_one_session, works_in_a_session_for_each_call, tells_progress_and_messages, refuses_strangers], WAYS)
