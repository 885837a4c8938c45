# vsock: a network namespace does not confine it, so nobody is called when the filter is off.
import socket


def reach(cid, port):
    with socket.socket(40, socket.SOCK_STREAM) as client:
        client.settimeout(0.2)
        client.connect((cid, port))


def listen(cid):
    with socket.socket(40, socket.SOCK_STREAM) as server:
        server.bind((cid, 50123))


attempt_protocol("VSOCK", "socket", lambda: socket.socket(40, socket.SOCK_STREAM).close())
attempt_protocol("VSOCK", "listen", lambda: listen(0xFFFFFFFF))
if not P["control"]:
    for cid in (0, 1, 2, 3, 4, 0xFFFFFFFF):
        attempt("connect to %d" % cid, lambda: reach(cid, 1024))
for path in P["devices"]:
    attempt("see " + path, lambda: there(path))
report()
