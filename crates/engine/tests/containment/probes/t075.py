# Raw, packet and netlink sockets.
import socket

# Netlink protocols that are part of every kernel, and those that may be modules.
for name, protocol, family, kind, number in (
    ("icmp", "RAW", 2, 3, 1), ("ping", "PING", 2, 2, 1), ("icmpv6", "RAWv6", 10, 3, 58), ("packet", "PACKET", 17, 3, 0x0300),
    ("packet datagram", "PACKET", 17, 2, 0x0300), ("route", "NETLINK", 16, 3, 0), ("uevent", "NETLINK", 16, 3, 15), ("generic", "NETLINK", 16, 3, 16),
    ("module xfrm", "", 16, 3, 6), ("module netfilter", "", 16, 3, 12), ("module audit", "", 16, 3, 9), ("module socket diagnostics", "", 16, 3, 4),
):
    attempt_protocol(protocol, name, lambda: socket.socket(family, kind, number).close())
report()
