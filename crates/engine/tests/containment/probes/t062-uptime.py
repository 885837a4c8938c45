# What the clocks tell of the host.
import time

attempt("time since the host's start", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) and None)
report()
