# A working folder that was deleted, and one that is a descriptor.
def climb():
    for _ in range(64):
        os.chdir("..")
    there("." + P["canary"])


def deleted():
    os.mkdir(os.path.join(P["folder"], "gone"))
    os.chdir(os.path.join(P["folder"], "gone"))
    os.rmdir(os.path.join(P["folder"], "gone"))
    try:
        climb()
    except FileNotFoundError:
        # The kernel may refuse `..` of a folder that is gone; from the descriptor of its parent then.
        os.chdir(P["folder"])
        climb()


def by_descriptor():
    descriptor = os.open(P["folder"], os.O_RDONLY)
    os.chdir("/proc/self/fd/%d" % descriptor)
    climb()


def moved():
    # A folder renamed away from below the working folder.
    inner = os.path.join(P["folder"], "outer", "inner")
    os.makedirs(inner)
    os.chdir(inner)
    os.rename(inner, os.path.join(P["folder"], "away"))
    os.rmdir(os.path.join(P["folder"], "outer"))
    os.rmdir(os.path.join(P["folder"], "away"))
    os.chdir(P["folder"])
    climb()


for name, way in (("deleted folder", deleted), ("descriptor", by_descriptor), ("renamed folder", moved)):
    attempt(name, way)
    os.chdir(P["workspace"])
report()
