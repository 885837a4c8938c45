"""`fastmcp`: its client, over HTTP and stdio."""

import contextlib
from importlib.metadata import version

import httpx2
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport

import checks
import common
from sdk_current import SdkConnection, wire


class FastConnection(SdkConnection):
    """A connection of `fastmcp.Client`."""

    async def tools(self):
        return [wire(tool) for tool in await self.client.list_tools()]

    async def call(self, name, arguments, progress=None):
        meta = {"io.modelcontextprotocol/logLevel": self.level} if self.level else None
        return wire(await self.client.call_tool_mcp(name, arguments, progress_handler=progress, meta=meta))

    async def read(self, uri):
        return [wire(one) for one in await self.client.read_resource(uri)]


def http(way, key, headers=None, auth=None, timeout=None, **_more):
    """The HTTP client, as `fastmcp` asks for it."""
    options = checks.http_options(way, key)
    return httpx2.AsyncClient(**options | {"headers": (headers or {}) | options["headers"]}, auth=auth, timeout=timeout or httpx2.Timeout(30, read=300))


def way(mode, revision, over_http):
    @contextlib.asynccontextmanager
    async def connect(way, key=common.KEY):
        connection = FastConnection()
        if over_http:
            transport = StreamableHttpTransport(checks.URL, httpx_client_factory=lambda **given: http(way, key, **given))
        else:
            transport = StdioTransport(checks.COMMAND[0], checks.COMMAND[1:], keep_alive=False)
        async with Client(transport, mode=mode, log_handler=connection.logged) as client:
            connection.client = client
            # In the revision without connections it asks in each call.
            connection.asks = revision >= "2026"
            common.equal(client.protocol_version, revision, "revision")
            yield connection

    return checks.Way(f"fastmcp {version('fastmcp')}, {revision}, {'http' if over_http else 'stdio'}", connect, over_http, keeps=not over_http or revision < "2026")


if __name__ == "__main__":
    checks.main([way("auto", "2026-07-28", over_http=True), way("legacy", "2025-11-25", over_http=True), way("auto", "2026-07-28", over_http=False)])
