# Filters of the code's own: strict mode, notification, tracing, and many.
def filter_of(result):
    instruction = ctypes.create_string_buffer(b"\x06\x00\x00\x00" + result.to_bytes(4, "little"))
    return (ctypes.c_ulong * 2)(1, ctypes.addressof(instruction)), instruction


for name, result in (("notify", 0x7FC00000), ("trace", 0x7FF00000), ("allow", 0x7FFF0000)):
    program, keep = filter_of(result)
    attempt_forked("seccomp filter, " + name, lambda: raw(NUMBERS["seccomp"], 1, 8 if name == "notify" else 0, program) and None)
program, keep = filter_of(0x7FFF0000)
attempt_forked("seccomp strict", lambda: raw(NUMBERS["seccomp"], 0, 0, None) or os._exit(0))
attempt_forked("prctl strict", lambda: raw(NUMBERS["prctl"], 22, 1, None) or os._exit(0))


def many():
    for count in range(100_000):
        raw(NUMBERS["prctl"], 22, 2, program)


# What a shell command may do, and a worker's code may not.
whose = "of the worker: " if MODE == "worker" else ""
attempt_forked(whose + "filter of all threads", lambda: raw(NUMBERS["seccomp"], 1, 1, program) and None)
attempt_forked(whose + "filter by prctl", lambda: raw(NUMBERS["prctl"], 22, 2, program) and None)
attempt_forked(whose + "filters without end", many)
report()
