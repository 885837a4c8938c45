"""The official SDK for Python, current major version: handshake and the revision without connections, over HTTP and stdio."""

import contextlib
from importlib.metadata import version

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import checks
import common


class SdkConnection(checks.Connection):
    def __init__(self):
        super().__init__()
        self.level = None

    async def logged(self, message):
        self.logs.append(message.data if isinstance(message.data, str) else str(message.data))

    async def tools(self):
        return [wire(tool) for tool in (await self.client.list_tools()).tools]

    async def call(self, name, arguments, progress=None):
        meta = {"io.modelcontextprotocol/logLevel": self.level} if self.level else None
        return wire(await self.client.call_tool(name, arguments, progress_callback=progress, meta=meta))

    async def read(self, uri):
        return [wire(one) for one in (await self.client.read_resource(uri)).contents]

    async def log(self, level):
        if self.client.protocol_version >= "2026":
            self.level = level
        else:
            await self.client.set_logging_level(level)

    def code(self, error):
        return error.code if isinstance(error, MCPError) else error


def wire(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def way(name, mode, revision, over_http):
    @contextlib.asynccontextmanager
    async def connect(way, key=common.KEY):
        connection = SdkConnection()
        async with contextlib.AsyncExitStack() as stack:
            if over_http:
                http = await stack.enter_async_context(httpx2.AsyncClient(**checks.http_options(way, key), timeout=httpx2.Timeout(30, read=300)))
                server = streamable_http_client(checks.URL, http_client=http)
            else:
                server = StdioServerParameters(command=checks.COMMAND[0], args=checks.COMMAND[1:])
            client = await stack.enter_async_context(Client(server, mode=mode, logging_callback=connection.logged))
            common.equal(client.protocol_version, revision, "revision")
            connection.client = client
            yield connection

    return checks.Way(f"{name}, {revision}, {'http' if over_http else 'stdio'}", connect, over_http, keeps=not over_http or revision < "2026")


SDK = f"mcp {version('mcp')}"

if __name__ == "__main__":
    checks.main(
        [
            way(SDK, "legacy", "2025-11-25", over_http=True),
            # As it is used by who gives it an address and nothing else: it asks by `server/discover` first.
            way(SDK, "auto", "2026-07-28", over_http=True),
            way(SDK, "auto", "2026-07-28", over_http=False),
            way(SDK, "legacy", "2025-11-25", over_http=False),
        ]
    )
