"""The MCP server of a pool, as Azure Container Apps has it: the tutorial's requests byte by byte, and the official SDK of either major version."""

import contextlib
import json
import urllib.error
import urllib.request
from importlib.metadata import version

import mcp

import common
import native
from common import contains, equal

IS_CURRENT = not version("mcp").startswith("1.")
TOOLS = ["launchShell", "runPythonCodeInRemoteEnvironment", "runShellCommandInRemoteEnvironment"]


def post(endpoint, body, key=common.KEY, method="POST", **headers):
    """The tutorial's call: a key in `x-ms-apikey`, and no word of revisions, connections or event streams."""
    headers = {"Content-Type": "application/json"} | ({"x-ms-apikey": key} if key else {}) | headers
    request = urllib.request.Request(endpoint + "/mcp", method=method, headers=headers, data=json.dumps(body).encode() if body else None)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def rpc(endpoint, method, params=None):
    status, headers, body = post(endpoint, {"jsonrpc": "2.0", "id": "1", "method": method} | ({"params": params} if params else {}))
    equal((status, headers.get_content_type(), headers.get("mcp-session-id")), (200, "application/json", None))
    answer = json.loads(body)
    equal((answer["jsonrpc"], answer["id"]), ("2.0", "1"))
    return answer


def called(endpoint, name, **arguments):
    return rpc(endpoint, "tools/call", {"name": name, "arguments": arguments})["result"]


def answers_the_tutorial(endpoint):
    result = rpc(endpoint, "initialize")["result"]
    equal((result["protocolVersion"], result["serverInfo"]["name"]), ("2025-03-26", "Microsoft Container Apps MCP Server"))
    equal({tool["name"] for tool in rpc(endpoint, "tools/list")["result"]["tools"]}, set(TOOLS))
    environment = called(endpoint, "launchShell")["structuredContent"]["environmentId"]
    result = called(endpoint, "runShellCommandInRemoteEnvironment", environmentId=environment, shellCommand="echo out; echo err >&2; exit 3")
    structured = result["structuredContent"]
    equal((structured["stdout"], structured["stderr"], structured["exitCode"]), ("out\n", "err\n", 3))
    result = called(endpoint, "runShellCommandInRemoteEnvironment", environmentId=environment, execCommandAndArgs=["printf", "%s|", "a b", "$HOME"])
    equal(result["structuredContent"]["stdout"], "a b|$HOME|")
    called(endpoint, "runPythonCodeInRemoteEnvironment", environmentId=environment, pythonCode="x = 40")
    result = called(endpoint, "runPythonCodeInRemoteEnvironment", environmentId=environment, pythonCode="print('hello')\nx + 2")
    equal((result["structuredContent"]["stdout"], result["structuredContent"]["result"]), ("hello\n", 42))
    contains(json.dumps(result["content"]), "hello")
    result = called(endpoint, "runPythonCodeInRemoteEnvironment", environmentId=environment, pythonCode="1/0")
    contains(result["structuredContent"]["stderr"], "ZeroDivisionError")


def refuses_what_is_not_there(endpoint):
    for method in ["server/discover", "resources/list", "prompts/list"]:
        equal(rpc(endpoint, method)["error"]["code"], -32601, method)
    error = rpc(endpoint, "tools/call", {"name": "runPythonCodeInRemoteEnvironment", "arguments": {"environmentId": "nowhere", "pythonCode": "1"}})["error"]
    equal(error["code"], -32000)
    contains(error["message"], "Environment not found: nowhere")
    equal(rpc(endpoint, "tools/call", {"name": "rm", "arguments": {}})["error"]["code"], -32602)


def speaks_http(endpoint):
    equal(post(endpoint, {"jsonrpc": "2.0", "method": "notifications/initialized"})[::2], (202, b""))
    equal(post(endpoint, None, method="GET", Accept="text/event-stream")[0], 405)
    for key in ["wrong", None]:
        equal(post(endpoint, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, key=key)[0], 401)
    status, _, body = post(endpoint, {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}, key=None, Authorization=f"Bearer {common.KEY}")
    equal((status, json.loads(body)["id"]), (200, 7))


def keeps_environments_apart(endpoint):
    environment = called(endpoint, "launchShell")["structuredContent"]["environmentId"]
    called(endpoint, "runPythonCodeInRemoteEnvironment", environmentId=environment, pythonCode="secret = 1")
    _, key = native.make_key()
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    body["params"] = {"name": "runPythonCodeInRemoteEnvironment", "arguments": {"environmentId": environment, "pythonCode": "secret"}}
    equal(json.loads(post(endpoint, body, key=key)[2])["error"]["code"], -32000)


@contextlib.asynccontextmanager
async def connected(url):
    """A client of the SDK that is here: what it lists, and what it calls."""
    headers = {"x-ms-apikey": common.KEY}
    async with contextlib.AsyncExitStack() as stack:
        if IS_CURRENT:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
            # It asks by `server/discover` first, and has to find its way back.
            client = await stack.enter_async_context(mcp.Client(streamable_http_client(url, http_client=http)))
            equal(client.protocol_version, "2025-03-26")
        else:
            import httpx
            from mcp.client.streamable_http import streamable_http_client

            http = await stack.enter_async_context(httpx.AsyncClient(headers=headers, timeout=60))
            read, write, _ = await stack.enter_async_context(streamable_http_client(url, http_client=http))
            client = await stack.enter_async_context(mcp.ClientSession(read, write))
            equal((await client.initialize()).protocolVersion, "2025-03-26")
        yield client


async def serves_the_sdk(endpoint):
    async with connected(f"{endpoint}/mcp") as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        equal(sorted(tools), TOOLS)

        async def call(name, **arguments):
            result = (await client.call_tool(name, arguments)).model_dump(by_alias=True)
            return result["structuredContent"]

        environment = (await call("launchShell"))["environmentId"]
        await call("runPythonCodeInRemoteEnvironment", environmentId=environment, pythonCode="x = 41")
        equal((await call("runPythonCodeInRemoteEnvironment", environmentId=environment, pythonCode="x + 1"))["result"], 42)
        await call("runShellCommandInRemoteEnvironment", environmentId=environment, shellCommand="echo from shell > file.txt")
        shown = await call("runPythonCodeInRemoteEnvironment", environmentId=environment, pythonCode="print(open('file.txt').read(), end='')")
        equal(shown["stdout"], "from shell\n")


ENDPOINTS = {name: endpoint.rstrip("/") for name, endpoint in common.ENDPOINTS.items() if name in ["short", "resource"]}

if __name__ == "__main__":
    checks = [answers_the_tutorial, refuses_what_is_not_there, speaks_http, keeps_environments_apart, serves_the_sdk]
    common.main(checks if IS_CURRENT else [serves_the_sdk], ENDPOINTS)
