# All of the processor: as many threads as there may be in a worker, as many processes in a command. How much of one they got, in percent.
import resource
import threading
import time

SECONDS = 3


def spin(end):
    while time.monotonic() < end:
        pass


begun = time.monotonic()
end = begun + SECONDS
if MAY_FORK:
    children = []
    for _ in range(P["many"]):
        try:
            child = os.fork()
        except OSError:
            break
        if child == 0:
            try:
                os.nice(0)
            except OSError:
                pass
            spin(end)
            os._exit(0)
        children.append(child)
    spin(end)
    for child in children:
        os.waitpid(child, 0)
else:
    threads = []
    for _ in range(P["many"]):
        try:
            threads.append(threading.Thread(target=spin, args=(end,)))
            threads[-1].start()
        except RuntimeError:
            threads.pop()
            break
    for thread in threads:
        thread.join()
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
own = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
taken = sum(one.ru_utime + one.ru_stime for one in used) if MAY_FORK else own
FACTS["percent of a processor"] = round(100 * taken / max(time.monotonic() - begun, 0.1))
report()
