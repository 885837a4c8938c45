# Connections to addresses and ports; `targets` holds [name, address, port].
import socket


def tcp(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect((address, port))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")


def udp(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.sendto(b"probe", (address, port))


def lookup(name):
    socket.getaddrinfo(name, 80)


for name, address, port in P["targets"]:
    attempt("tcp " + name, lambda: tcp(address, port))
    attempt("udp " + name, lambda: udp(address, port))
for name in P["hosts"]:
    attempt("resolve " + name, lambda: lookup(name))
for path in P["resolver_sockets"]:
    attempt("see " + path, lambda: there(path))
report()
