# Shared memory and other names of IPC.
def marker():
    there("/dev/shm/" + P["shm_marker"])


def fill():
    place = "/dev/shm/fill-" + P["shm_marker"]
    with open(place, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, P["shm_bytes"])
    os.unlink(place)


attempt("neighbour's name in /dev/shm", marker)
attempt("more than its limit", fill)
# On the host they would be left behind: a sandbox without the filter is the control.
if MODE != "host":
    call("shmget", 0x5EED, 4096, 0o1666)
    call("semget", 0x5EED, 1, 0o1666)
    call("msgget", 0x5EED, 0o1666)
    call("mq_open", b"/belljar-test\0", 0, 0, None)
    with open("/dev/shm/" + P["shm_marker"] + "-inside", "w") as file:
        file.write("x")
report()
