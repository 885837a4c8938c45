# A core file, or a program of the host that is started for one.
import resource

attempt("a higher limit", lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)))
with open("/proc/self/limits") as file:
    FACTS["limit"] = next(line.split()[5] for line in file if line.startswith("Max core file size"))
report()
if MODE != "host":
    memory = bytearray(32 << 20)
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(1)
