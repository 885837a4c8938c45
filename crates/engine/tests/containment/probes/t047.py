# Signals and leases on files and pipes that others see too.
signal.signal(signal.SIGIO, signal.SIG_IGN)
read, write = os.pipe()
descriptor = os.open(P["target"], os.O_RDONLY)
attempt("lease", lambda: raw(NUMBERS["fcntl"], descriptor, 1024, 0) and None)
attempt("owner outside", lambda: raw(NUMBERS["fcntl"], read, 8, P["host_pid"]) and None)
attempt("signal", lambda: raw(NUMBERS["fcntl"], read, 10, 12) and None)
attempt("news of a folder", lambda: raw(NUMBERS["fcntl"], os.open("/usr/bin" if MODE != "host" else P["folder"], os.O_RDONLY), 1026, 1) and None)
report()
