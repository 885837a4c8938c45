# Memory in several ways, told MiB by MiB, until it is refused, or more than enough was had.
MIB = 1 << 20
libc.mmap.restype = ctypes.c_void_p
FACTS["MiB"] = 0


def mapped(size, flags=0x22):
    address = libc.mmap(None, ctypes.c_size_t(size), 3, flags, -1, ctypes.c_long(0))
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "")
    return address


def had(count):
    FACTS["MiB"] += count
    progress()
    if FACTS["MiB"] > P["most"]:
        report()
        os._exit(0)


def touched(address, size):
    ctypes.memset(address, 1, size)


kept = []


def objects():
    while True:
        kept.append(bytearray(b"x") * (4 * MIB))
        had(4)


def maps():
    while True:
        for _ in range(64):
            address = mapped(65536)
            touched(address, 65536)
        had(4)


def shared():
    while True:
        address = mapped(4 * MIB, 0x21)
        touched(address, 4 * MIB)
        had(4)


def dropped():
    # Written, and taken out of the map: no process has it any more, and it is still there.
    while True:
        address = mapped(4 * MIB, 0x21)
        touched(address, 4 * MIB)
        if libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(4 * MIB), 4):
            raise OSError(ctypes.get_errno(), "")
        had(4)


def tables():
    # One page of each 2 MiB: the tables cost as much as the pages.
    while True:
        address = mapped(1 << 30, 0x21)
        for place in range(0, 1 << 30, 2 * MIB):
            ctypes.memset(address + place, 1, 1)
        had(4)


def children():
    # Each takes less than there may be, all together more.
    while True:
        if os.fork() == 0:
            try:
                kept.append(bytearray(b"x") * (24 * MIB))
                select.select([], [], [], 30)
            finally:
                os._exit(0)
        select.select([], [], [], 0.2)
        # Those that were killed have it no more.
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
                FACTS["killed"] = FACTS.get("killed", 0) + 1
                FACTS["MiB"] -= 24
            except ChildProcessError:
                break
        had(24)
        if FACTS.get("killed", 0) > 6:
            report()
            sys.exit(0)


def pairs(slots, own):
    """Fills the buffers of sockets until there are no more of them, and counts in a slot of its own."""
    import socket

    try:
        while True:
            ends = socket.socketpair()
            kept.append(ends)
            for end in ends:
                end.setblocking(False)
                try:
                    while True:
                        slots[own] += end.send(b"x" * 65536)
                except BlockingIOError:
                    pass
    except OSError:
        pass


def pairs_of_children():
    import mmap

    slots = memoryview(mmap.mmap(-1, 4096)).cast("q")
    for number in range(6):
        if os.fork() == 0:
            pairs(slots, number)
            select.select([], [], [], 30)
            os._exit(0)
    for _ in range(100):
        select.select([], [], [], 0.05)
        FACTS["MiB"] = max(FACTS["MiB"], sum(slots[:6]) / MIB)
        had(0)


def reserved():
    for size in (1 << 40, 100 << 30):
        attempt("map %d GiB" % (size >> 30), lambda: mapped(size, 0x22) and None)
    import numpy

    attempt("100 GiB of numbers", lambda: numpy.ones(100 << 27) is None or None)
    report()
    sys.exit(0)


# Whoever is killed at once has had nothing, and has said so.
progress()
try:
    globals()[P["kind"]]()
except MemoryError:
    report()
    raise
except OSError as error:
    FACTS["end"] = errno.errorcode.get(error.errno, "")
    report()
    raise
