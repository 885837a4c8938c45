# Protocols behind AF_INET and AF_INET6 that have had their own holes.
import socket

for version, six in ((socket.AF_INET, ""), (socket.AF_INET6, "v6")):
    for name, protocol, kind, number in (
        ("sctp", "SCTP", 1, 132), ("sctp seqpacket", "SCTP", 5, 132), ("dccp", "DCCP", 6, 33), ("udplite", "UDP-Lite", 2, 136),
        ("mptcp", "MPTCP", 1, 262), ("ping", "PING", 2, 58 if six else 1), ("raw", "RAW", 3, 1), ("raw any", "RAW", 3, 255),
    ):
        attempt_protocol(protocol + six, name + six, lambda: socket.socket(version, kind, number).close())
report()
