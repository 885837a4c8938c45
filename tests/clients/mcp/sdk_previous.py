"""The official SDK for Python, previous major version, over HTTP and stdio."""

import asyncio
import contextlib
from importlib.metadata import version

import httpx
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

import checks
import common


class SessionConnection(checks.Connection):
    """A connection, as a `ClientSession` of this version is one."""

    async def logged(self, message):
        self.logs.append(message.data if isinstance(message.data, str) else str(message.data))

    async def tools(self):
        return [wire(tool) for tool in (await self.session.list_tools()).tools]

    async def call(self, name, arguments, progress=None):
        # The numbers of requests count up; it is needed to cancel this one.
        self.latest = self.session._request_id
        return wire(await self.session.call_tool(name, arguments, progress_callback=progress))

    async def stop(self, call):
        """This version does not tell the server when a task is cancelled: programs do."""
        params = types.CancelledNotificationParams(requestId=self.latest, reason="not needed any more")
        await self.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        # A server need not answer what was cancelled.
        await asyncio.wait({call}, timeout=1)
        await super().stop(call)

    async def read(self, uri):
        return [wire(one) for one in (await self.session.read_resource(uri)).contents]

    async def log(self, level):
        await self.session.set_logging_level(level)

    def code(self, error):
        return error.error.code if isinstance(error, McpError) else error


def wire(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def way(over_http):
    @contextlib.asynccontextmanager
    async def connect(way, key=common.KEY):
        connection = SessionConnection()
        async with contextlib.AsyncExitStack() as stack:
            if over_http:
                http = await stack.enter_async_context(httpx.AsyncClient(**checks.http_options(way, key), timeout=httpx.Timeout(30, read=300)))
                read, write, _ = await stack.enter_async_context(streamable_http_client(checks.URL, http_client=http))
            else:
                read, write = await stack.enter_async_context(stdio_client(StdioServerParameters(command=checks.COMMAND[0], args=checks.COMMAND[1:])))
            connection.session = await stack.enter_async_context(ClientSession(read, write, logging_callback=connection.logged))
            common.equal((await connection.session.initialize()).protocolVersion, "2025-11-25", "revision")
            yield connection

    return checks.Way(f"mcp {version('mcp')}, 2025-11-25, {'http' if over_http else 'stdio'}", connect, over_http, keeps=True)


if __name__ == "__main__":
    checks.main([way(over_http=True), way(over_http=False)])
