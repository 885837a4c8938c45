# Interfaces, routes and tunnels.
import fcntl
import socket
import struct


def flags_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x41))


def route():
    with socket.socket(16, 3, 0) as netlink:
        netlink.bind((0, 0))
        # RTM_NEWLINK of a dummy interface.
        body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + struct.pack("HH8s", 12, 3, b"probe0\0\0") + struct.pack("HHHH8s", 16, 18, 10, 1, b"dummy\0\0\0")
        netlink.send(struct.pack("IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
        answer = netlink.recv(4096)
        number = -struct.unpack("i", answer[16:20])[0]
        if number:
            raise OSError(number, "")


def by_pair():
    one, _ = socket.socketpair()
    fcntl.ioctl(one, 0x8914, struct.pack("16sH14x", b"lo", 0x41))


attempt("lo up", flags_up)
attempt("lo up by a pair", by_pair)
attempt("new interface", route)
for path in P["devices"]:
    attempt("open " + path, lambda: os.close(os.open(path, os.O_RDWR)))
report()
