# Machine code that enters the kernel by another ABI.
import mmap

libc.mmap.restype = ctypes.c_void_p


def machine(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(ctypes.c_long)(address)
    result = ctypes.c_int(function()).value
    if -4096 < result < 0:
        raise OSError(-result, "")
