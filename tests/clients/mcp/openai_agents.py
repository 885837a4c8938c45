"""The OpenAI Agents SDK: its servers of tools, as an agent uses them, without a model."""

import os
import re
import traceback

# It would report what it did to its maker.
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"

from agents import Agent, RunContextWrapper
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp, MCPUtil
from agents.tool_context import ToolContext

import checks
import common
from common import contains, equal
from tools import TOOLS


def http(key=common.KEY):
    params = {"url": checks.URL, "headers": {"Authorization": f"Bearer {key}"}}
    return MCPServerStreamableHttp(name="belljar", params=params, client_session_timeout_seconds=900, cache_tools_list=True)


def stdio():
    return MCPServerStdio(name="belljar", params={"command": checks.COMMAND[0], "args": checks.COMMAND[1:]}, client_session_timeout_seconds=900)


async def gives_an_agent_its_tools(make):
    async with make() as server:
        tools = await MCPUtil.get_function_tools(server, False, RunContextWrapper(context=None), Agent(name="Analyst"))
        equal(sorted(tool.name for tool in tools), sorted(TOOLS))

        async def call(name, arguments):
            """What the model is shown of a call."""
            (tool,) = [tool for tool in tools if tool.name == name]
            return str(await tool.on_invoke_tool(ToolContext(context=None, tool_name=name, tool_call_id="1", tool_arguments=arguments), arguments))

        shown = await call("ExecutePythonCode", '{"pythonCode": "x = 40"}')
        # Over HTTP it speaks the revision without connections: the model is told what to name from now on.
        told = re.search(r"session: (\S+?) \(pass it", shown)
        session = f', "sessionId": "{told[1]}"' if told else ""
        assert bool(told) == (make is http), shown
        contains(await call("ExecutePythonCode", f'{{"pythonCode": "x + 2"{session}}}'), "42")
        shown = await call("ExecutePythonCode", '{"pythonCode": "1/0"}')
        contains(shown, "ZeroDivisionError")
        shown = await call("ExecutePythonCode", '{"pythonCode": "import matplotlib.pyplot as plt\\nplt.plot([1])\\nplt.show()"}')
        contains(shown, "data:image/png;base64,iVBOR")
        shown = await call("ExecutePythonCode", '{"pythonCode": "1", "timeoutSeconds": 1}')
        contains(shown, "not within 5 to 900")
        shown = await call("RunShellCommand", f'{{"command": "ls > listed.txt"{session}}}')
        contains(shown, "listed.txt")


async def refuses_strangers():
    try:
        async with http("wrong") as server:
            await server.list_tools()
    except Exception as error:
        # It does not tell the status.
        contains("".join(traceback.format_exception(error)), "MCPError")
    else:
        raise AssertionError("a wrong key was taken")


WAYS = {"http": http} | ({"stdio": stdio} if checks.COMMAND else {})

if __name__ == "__main__":
    common.main([gives_an_agent_its_tools, refuses_strangers], WAYS)
