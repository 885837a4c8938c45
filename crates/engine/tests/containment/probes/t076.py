# Unix sockets by name. A datagram pair may send to any name without connecting: that needs no socket(2).
import socket


def stream(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect(address)


def datagram(address, descriptor=False):
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        if descriptor:
            one.sendmsg([b"probe"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, other.fileno().to_bytes(4, sys.byteorder))], 0, address)
        else:
            one.sendto(b"probe", address)


for name, address, listener in P["unix"]:
    if listener != "datagram":
        attempt("connect to " + name, lambda: stream(address))
    if listener != "stream":
        attempt("send to " + name, lambda: datagram(address))
        attempt("send a descriptor to " + name, lambda: datagram(address, True))
if MODE != "host":
    with open("/proc/self/net/unix") as file:
        FACTS["names visible"] = " ".join(sorted(line.split()[7] for line in list(file)[1:] if len(line.split()) > 7))
report()
