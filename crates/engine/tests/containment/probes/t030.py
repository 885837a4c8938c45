# Overwriting programs: their own files, and the interpreter's, libc's and init's by the links in /proc.
for path in P["binaries"]:
    name = os.path.basename(path)
    attempt("write " + name, lambda: os.close(os.open(path, os.O_WRONLY)))
    attempt("chmod " + name, lambda: os.chmod(path, 0o777))
    attempt("touch " + name, lambda: os.utime(path))
    attempt("rename " + name, lambda: os.rename(path, path + ".moved") or os.rename(path + ".moved", path))
    attempt("link over " + name, lambda: os.symlink("/nowhere", path + ".new") or os.unlink(path + ".new"))
    attempt("truncate " + name, lambda: os.truncate(path, os.stat(path).st_size))
    attempt("unlink " + name, lambda: os.rename(path, path + ".kept") or os.symlink("x", path) or os.unlink(path) or os.rename(path + ".kept", path))
if MODE != "host":
    for path in ("/proc/self/exe", "/proc/1/exe"):
        attempt("write " + path, lambda: os.close(os.open(path, os.O_WRONLY)))
        attempt("truncate " + path, lambda: os.truncate(path, 0))
report()
