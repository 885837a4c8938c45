# Every option of prctl but the documented ones.
DOCUMENTED = {1, 3, 15, 16, 21, 22, 23, 38, 39, 0x53564D41}
for option in [*range(0, 82), 0x59616D61, 0x41555856]:
    if option not in DOCUMENTED:
        attempt_forked("prctl %d" % option, lambda: raw(NUMBERS["prctl"], option, 1, 0, 0, 0) and None)
report()
