# Every family with every type and protocol, and pairs of every family.
LOADED = {1: "UNIX", 2: "TCP", 10: "TCPv6", 16: "NETLINK", 17: "PACKET", 38: "ALG", 40: "VSOCK"}


def family(number, call):
    seen = set()
    for kind in (1, 2, 3, 4, 5, 6):
        for protocol in range(256) if not P["control"] else (0,):
            made = call(number, kind, protocol)
            seen.add(made)
            if made == "OK" or len(seen) > 3:
                return "OK" if "OK" in seen else "+".join(sorted(seen))
    return "+".join(sorted(seen))


def create(number, kind, protocol):
    made = libc.socket(number, kind, protocol)
    if made >= 0:
        os.close(made)
        return "OK"
    return errno.errorcode.get(ctypes.get_errno(), "?")


def pair(number, kind, protocol):
    two = (ctypes.c_int * 2)()
    if libc.socketpair(number, kind, protocol, two) == 0:
        os.close(two[0])
        os.close(two[1])
        return "OK"
    return errno.errorcode.get(ctypes.get_errno(), "?")


for number in range(46):
    if P["control"] and not loaded(LOADED.get(number, "")):
        continue
    ATTEMPTS["family %d" % number] = family(number, create)
    if number != 1:
        ATTEMPTS["pair of family %d" % number] = family(number, pair)
report()
