# Work for the kernel, without end: it must be possible to kill who asks for it.
FACTS["begun"] = "True"
report()
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p


def arguments():
    while True:
        child = os.fork()
        if child == 0:
            try:
                os.execv("/bin/true", ["true"] + ["x" * 120_000] * 16)
            finally:
                os._exit(1)
        os.waitpid(child, 0)


def links():
    os.chdir("/tmp")
    for number in range(40):
        os.symlink("link-%d/." % (number + 1), "link-%d" % number)
    while True:
        try:
            os.stat("link-0")
        except OSError:
            pass


def polls():
    many = (ctypes.c_uint64 * 1000)()
    while True:
        libc.poll(many, 1000, 0)
        libc.poll(many, 1_000_000, 0)


def moves():
    size = 32 << 20
    address = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
    ctypes.memset(address, 1, size)
    while True:
        other = libc.mremap(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_size_t(size * 2), 1)
        address = libc.mremap(ctypes.c_void_p(other), ctypes.c_size_t(size * 2), ctypes.c_size_t(size), 1)


def advice():
    size = 32 << 20
    address = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
    while True:
        ctypes.memset(address, 1, size)
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), 4)


globals()[P["kind"]]()
