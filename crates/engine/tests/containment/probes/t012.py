# New namespaces in every way, singly and together; and the calls that real programs need work.
import threading

FLAGS = {"time": 0x80, "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000, "network": 0x40000000}
FLAGS["all"] = sum(FLAGS.values())
FLAGS["user+mount"] = FLAGS["user"] | FLAGS["mount"]
FLAGS["user+network"] = FLAGS["user"] | FLAGS["network"]


def cloned(flags):
    child = raw(NUMBERS["clone"], flags | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def cloned3(flags):
    arguments = (ctypes.c_ulong * 11)(flags, 0, 0, 0, signal.SIGCHLD)
    child = raw(NUMBERS["clone3"], arguments, 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


for name, flags in FLAGS.items():
    attempt_forked("unshare " + name, lambda: raw(NUMBERS["unshare"], flags) and None)
    if name != "time":  # the bit is part of the signal number there
        attempt_forked("clone " + name, lambda: cloned(flags))
    attempt_forked("clone3 " + name, lambda: cloned3(flags))
for name in ("user", "mnt", "net", "pid", "ipc", "uts"):
    attempt_forked("setns " + name, lambda: raw(NUMBERS["setns"], os.open("/proc/self/ns/" + name, os.O_RDONLY), 0) and None)

done = []
thread = threading.Thread(target=lambda: done.append(1))
thread.start()
thread.join()
FACTS["threading"] = str(len(done))
report()
