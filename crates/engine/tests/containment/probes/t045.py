# Renaming the workspace itself, and folders across mounts.
folder = os.path.join(P["folder"], "tree")
os.makedirs(folder, exist_ok=True)
def exchange(one, two):
    if libc.renameat2(-100, one.encode(), -100, two.encode(), 2):
        raise OSError(ctypes.get_errno(), "")


other = os.path.join(P["folder"], "other")
os.makedirs(other, exist_ok=True)
for name, one, two in P["renames"]:
    attempt("rename " + name, lambda: os.rename(one, two) or os.rename(two, one))
    if name != "across":
        attempt("exchange " + name, lambda: exchange(one, other))
        attempt("remove " + name, lambda: os.rmdir(one) or os.mkdir(one))
report()
