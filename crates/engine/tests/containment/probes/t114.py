# Terminals, for as many as there are.

attempt("open /dev/ptmx", lambda: os.close(os.open("/dev/ptmx", os.O_RDWR)))
attempt("pair", lambda: [os.close(descriptor) for descriptor in os.openpty()] and None)
attempt("see /dev/pts", lambda: there("/dev/pts"))
report()
