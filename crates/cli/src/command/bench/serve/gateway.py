"""Asks a Jupyter Kernel Gateway for what `belljar bench --serve --gateway` compares with. Reads `fresh` or `live` a line, prints milliseconds."""

import asyncio
import json
import sys
import time
import uuid

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

BASE = sys.argv[1]
GROUPBY = sys.argv[2]


async def start():
    answer = await AsyncHTTPClient().fetch(BASE + "/api/kernels", method="POST", body="{}", request_timeout=60)
    kernel = json.loads(answer.body)["id"]
    return kernel, await websocket_connect(BASE.replace("http", "ws", 1) + f"/api/kernels/{kernel}/channels")


async def run(socket, code):
    """Runs code, and returns what it printed once the kernel is idle again."""
    request = uuid.uuid4().hex
    header = {"msg_id": request, "username": "", "session": "bench", "msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    await socket.write_message(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}))
    printed = ""
    while True:
        message = json.loads(await asyncio.wait_for(socket.read_message(), 60))
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream":
            printed += message["content"]["text"]
        if message["msg_type"] == "error":
            raise SystemExit("the gateway's kernel failed: " + message["content"]["evalue"])
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return printed


async def main():
    _, live = await start()
    await run(live, "x = 1")
    for line in sys.stdin:
        begin = time.perf_counter()
        if line.strip() == "fresh":
            kernel, socket = await start()
            printed = await run(socket, GROUPBY)
            took = time.perf_counter() - begin
            socket.close()
            await AsyncHTTPClient().fetch(f"{BASE}/api/kernels/{kernel}", method="DELETE", request_timeout=60)
        else:
            printed = await run(live, "print(1)")
            took = time.perf_counter() - begin
        if not printed:
            raise SystemExit("the gateway's kernel printed nothing")
        print(took * 1000, flush=True)


asyncio.run(main())
