# Requests to terminals and file systems, with and without garbage in the upper half of the request.
if MODE == "host":
    import pty

    terminal = pty.openpty()[1]
else:
    terminal = 0
descriptor = os.open(P["scratch"], os.O_RDWR)
argument = ctypes.create_string_buffer(64)
for name, request, target in (
    ("TIOCSTI", 0x5412, terminal), ("TIOCLINUX", 0x541C, terminal), ("TIOCSETD", 0x5423, terminal), ("TIOCSCTTY", 0x540E, terminal), ("TIOCCONS", 0x541D, None if MODE == "host" else terminal),
    ("FIFREEZE", 0xC0045877, None if MODE == "host" else descriptor), ("FS_IOC_SETFLAGS", 0x40086602, descriptor), ("FICLONE", 0x40049409, descriptor), ("SIOCSIFFLAGS", 0x8914, descriptor),
):
    for form, upper in (("", 0), (" with garbage above", 0xDEADBEEF << 32)):
        if target is None:
            ATTEMPTS[name + form] = "not called"  # would change the host
        elif name == "FICLONE":
            source = os.open(P["program"], os.O_RDONLY)
            call("ioctl", target, request | upper, source, label=name + form)
        else:
            call("ioctl", target, request | upper, argument if MODE != "host" or name != "FS_IOC_SETFLAGS" else None, label=name + form)
report()
