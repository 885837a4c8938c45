# Clocks: set, shifted, and timers that wake a machine.
import time

call("clock_settime", 0, 0)
call("clock_adjtime", 0, 0)
call("timerfd_create", 8, 0)
call("timer_create", 8, None, (ctypes.c_int * 1)())
attempt("offsets of a time namespace", lambda: os.close(os.open("/proc/self/timens_offsets", os.O_WRONLY)))
report()
