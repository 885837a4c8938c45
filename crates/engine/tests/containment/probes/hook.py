# Stands under the name of a module that an interpreter or the driver may import early: says what is on by then, and makes way for
# the module of that name.
def _look(name):
    with open("/proc/self/status") as file:
        facts = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    seen = ",".join('"%s":"%s"' % (key, facts.get(key, "0").strip()) for key in ("Seccomp", "Seccomp_filters", "NoNewPrivs", "CapBnd"))
    try:
        with open(__file__.rpartition("/")[0] + "/hook-" + name, "x") as file:
            file.write("{" + seen + "}")
    except FileExistsError:
        pass


def _make_way():
    import sys

    folder = __file__.rpartition("/")[0]
    before = sys.path[:]
    sys.path[:] = [entry for entry in before if entry and entry != folder]
    del sys.modules[__name__]
    try:
        __import__(__name__)
    finally:
        sys.path[:] = before


_look(__file__.rpartition("/")[2])
if __name__ not in ("sitecustomize", "usercustomize"):
    _make_way()
