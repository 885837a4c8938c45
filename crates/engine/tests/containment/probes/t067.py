# Processes of the host and of other sandboxes, by the numbers they have there.
for name in P["host_pids"]:
    number = P["host_pids"][name]
    attempt("signal to " + name, lambda: os.kill(number, 0))
    attempt("see " + name, lambda: there("/proc/%d" % number))
    attempt("read memory of " + name, lambda: raw(NUMBERS["process_vm_readv"], number, 0, 0, 0, 0, 0) and None)
report()
