# Replaces what a later set-up might follow: devices, terminals, masked places.
for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/fd", "/etc/passwd", "/proc/self", "/opt/runtime"):
    place = P["stage"] + path
    attempt("replace " + path, lambda: os.rename(place, place + ".moved"))
for path in ("/dev/console", "/dev/pts", "/dev/ptmx", "/dev/tty", "/proc/kcore", "/sys", "/etc/mtab", "/lib.new"):
    place = P["stage"] + path
    attempt("plant " + path, lambda: os.symlink("/mnt/data/evil", place))
report()
