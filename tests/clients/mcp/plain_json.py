"""A client that takes no event streams and ends nothing it began, as Copilot Studio is one: whatever it sends, the answer is plain JSON."""

import base64
import json
import urllib.error
import urllib.request

import common
from common import contains, equal
from tools import TOOLS, check_tools

URL = common.URL + "/mcp"


def send(message, method="POST", key=common.KEY, **headers):
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "CopilotStudio PowerFx"} | headers
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    data = json.dumps(message).encode() if message else None
    try:
        with urllib.request.urlopen(urllib.request.Request(URL, method=method, headers=headers, data=data)) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class Client:
    """The same requests with and without a connection, in one revision."""

    def __init__(self, revision, connects):
        self.headers, self.count = {}, 0
        if connects:
            client = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "mcs", "version": "1.0.0"}}
            equal(self.call("initialize", client)["protocolVersion"], revision)
            self.headers = {"Mcp-Session-Id": self.answered["mcp-session-id"], "MCP-Protocol-Version": revision}
            status, headers, body = send({"jsonrpc": "2.0", "method": "notifications/initialized"}, **self.headers)
            equal((status, body, headers.get("content-type")), (202, b"", None))

    def call(self, method, params=None):
        self.count += 1
        status, self.answered, body = send({"jsonrpc": "2.0", "id": str(self.count), "method": method, "params": params or {}}, **self.headers)
        equal((status, self.answered.get_content_type()), (200, "application/json"), body)
        answer = json.loads(body)
        equal(answer["id"], str(self.count))
        return answer["result"]

    def tool(self, name, _meta=None, **arguments):
        return self.call("tools/call", {"name": name, "arguments": arguments} | ({"_meta": _meta} if _meta else {}))


def answers_in_plain_json():
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"]:
        client = Client(revision, connects=True)
        check_tools(client.call("tools/list")["tools"])
        client.tool("ExecutePythonCode", pythonCode="x = 40")
        result = client.tool("ExecutePythonCode", pythonCode="x + 2")
        contains(result["content"][0]["text"], "42")
        # Also where there would be news on the way, for who could take them.
        equal(client.call("logging/setLevel", {"level": "debug"}), {})
        result = client.tool("ExecutePythonCode", pythonCode="import time\nprint('on the way', flush=True)\ntime.sleep(1.5)", _meta={"progressToken": 1})
        contains(result["content"][0]["text"], "on the way")
        result = client.tool("ExecutePythonCode", pythonCode="import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()")
        (picture,) = [block for block in result["content"] if block["type"] == "image"]
        equal(base64.b64decode(picture["data"])[1:4], b"PNG")


def works_without_a_connection():
    client = Client(None, connects=False)
    equal({tool["name"] for tool in client.call("tools/list")["tools"]}, set(TOOLS))
    session = client.tool("ExecutePythonCode", pythonCode="x = 41")["structuredContent"]["sessionId"]
    contains(client.tool("ExecutePythonCode", pythonCode="x + 1", sessionId=session)["content"][0]["text"], "42")


def opens_no_stream():
    for headers in [{}, Client("2025-11-25", connects=True).headers]:
        equal(send(None, method="GET", **headers)[0], 405)
    for accept in ["*/*", "application/*", "application/json;q=0.5, text/html"]:
        equal(send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, Accept=accept)[:2][1].get_content_type(), "application/json", accept)
    equal(send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, Accept="text/html")[0], 406)


def says_who_may_not():
    for key in ["wrong", None]:
        status, headers, body = send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, key=key)
        equal(status, 401)
        contains(headers["www-authenticate"], "Bearer")
        json.loads(body)


if __name__ == "__main__":
    common.main([answers_in_plain_json, works_without_a_connection, opens_no_stream, says_who_may_not])
