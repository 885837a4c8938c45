# Control groups: none may be visible for writing.
def writable():
    for line in open("/proc/self/mountinfo"):
        fields = line.split()
        if " cgroup" in line.partition(" - ")[2][:8] or line.partition(" - ")[2].startswith("cgroup"):
            there(os.path.join(fields[4], "cgroup.procs")) if os.path.exists(os.path.join(fields[4], "cgroup.procs")) else there(fields[4])
            return
    raise FileNotFoundError(errno.ENOENT, "")


attempt("a cgroup file system", writable)
attempt("see /sys/fs/cgroup", lambda: there("/sys/fs/cgroup"))
if P["may_mount"]:
    attempt_forked("mount cgroup", lambda: raw(NUMBERS["mount"], b"x\0", P["folder"].encode() + b"\0", b"cgroup\0", 0, b"memory\0") and None)
    attempt_forked("mount cgroup2", lambda: raw(NUMBERS["mount"], b"x\0", P["folder"].encode() + b"\0", b"cgroup2\0", 0, None) and None)
if MODE != "host":
    with open("/proc/self/cgroup") as file:
        FACTS["paths"] = " ".join(sorted({line.rstrip("\n").split(":", 2)[2] for line in file}))
report()
