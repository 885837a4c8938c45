# A better place in the queue of the processor, or another processor.
def scheduled(policy, priority):
    os.sched_setscheduler(0, policy, os.sched_param(priority))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


attempt_forked("FIFO", lambda: scheduled(os.SCHED_FIFO, 1))
attempt_forked("RR", lambda: scheduled(os.SCHED_RR, 1))
deadline = (ctypes.c_uint32 * 12)(48, 6, 0, 0, 0, 0, 10_000_000, 0, 30_000_000, 0, 30_000_000, 0)
attempt_forked("DEADLINE", lambda: raw(NUMBERS["sched_setattr"], 0, deadline, 0) and None)
attempt_forked("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
attempt_forked("ioprio", lambda: raw(NUMBERS["ioprio_set"], 1, 0, 1 << 13) and None)
attempt_forked("affinity", lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))
report()
