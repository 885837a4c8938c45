# Memory that cannot be taken back: locked, of huge pages, secret.
SIZE = 4 << 20
libc.mmap.restype = ctypes.c_void_p


def mapped(flags):
    address = libc.mmap(None, ctypes.c_size_t(SIZE), 3, 0x22 | flags, -1, ctypes.c_long(0))
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "")
    return address


address = mapped(0)
call("mlock", address, SIZE)
call("mlockall", 1)
attempt("MAP_LOCKED", lambda: mapped(0x2000) and None)
attempt("MAP_HUGETLB", lambda: mapped(0x40000) and None)
call("memfd_secret", 0)
call("remap_file_pages", 0, 0, 0, 0, 0)
report()
