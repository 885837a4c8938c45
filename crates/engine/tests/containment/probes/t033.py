# The classic ways out of a chroot.
def canary_from_here():
    for _ in range(64):
        os.chdir("..")
    there("." + P["canary"])


def classic():
    os.makedirs(os.path.join(P["folder"], "jail"), exist_ok=True)
    os.chroot(os.path.join(P["folder"], "jail"))
    canary_from_here()


def saved():
    root = os.open("/", os.O_RDONLY)
    os.makedirs(os.path.join(P["folder"], "jail"), exist_ok=True)
    os.chroot(os.path.join(P["folder"], "jail"))
    os.fchdir(root)
    canary_from_here()


def by_descriptor():
    root = os.open("/", os.O_RDONLY)
    os.fchdir(root)
    canary_from_here()


attempt_forked("chroot and climb", classic)
attempt_forked("chroot and a saved folder", saved)
attempt_forked("fchdir of the root and climb", by_descriptor)
report()
