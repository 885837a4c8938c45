# Interrupts to all processors: memory made readable and not, by many threads, without end.
import threading

FACTS["begun"] = "True"
report()
libc.mmap.restype = ctypes.c_void_p


def storm():
    address = libc.mmap(None, ctypes.c_size_t(1 << 20), 3, 0x22, -1, ctypes.c_long(0))
    while True:
        ctypes.memset(address, 1, 1 << 20)
        libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20), 1)
        libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20), 3)
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20), 4)


for _ in range(8):
    threading.Thread(target=storm, daemon=True).start()
storm()
