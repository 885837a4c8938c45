# A server, for the host or a neighbour to connect to.
import socket


def serve(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind((address, 0))
        server.listen()


attempt("serve on every address", lambda: serve(socket.AF_INET, "0.0.0.0" if MODE != "host" else "127.0.0.1"))
attempt("serve on every IPv6 address", lambda: serve(socket.AF_INET6, "::" if MODE != "host" else "::1"))
one, _ = socket.socketpair()
attempt("listen on a pair", lambda: one.listen())
attempt("bind a pair", lambda: one.bind(os.path.join(P["folder"], "bound")))
report()
