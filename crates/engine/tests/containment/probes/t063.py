# Timers without end, and one that rings a million times a second.
def timer():
    identifier = (ctypes.c_int * 1)()
    raw(NUMBERS["timer_create"], 1, None, identifier)
    return identifier


count_until_refused("timers", timer, P["most"])
call("timerfd_create", 1, 0)
if MODE != "host":
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.000001, 0.000001)
    select.select([], [], [], 1)
    signal.setitimer(signal.ITIMER_REAL, 0)
report()
