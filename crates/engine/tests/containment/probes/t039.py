# What the environment and the names tell.
attempt("environment of pid 1", lambda: read_some("/proc/1/environ" if MODE != "host" else "/proc/self/environ"))
attempt("memory map of pid 1", lambda: read_some("/proc/1/maps" if MODE != "host" else "/proc/self/maps"))
if MODE != "host":
    # Variables that bash sets for itself are not of the host.
    FACTS["variables"] = " ".join(sorted(set(os.environ) - {"_", "PWD", "OLDPWD", "SHLVL", "LC_CTYPE"}))
    FACTS["host name"] = os.uname().nodename
    text = repr(dict(os.environ))
    FACTS["words of the host"] = " ".join(word for word in P["words"] if word in text or word in repr(os.uname()))
report()
