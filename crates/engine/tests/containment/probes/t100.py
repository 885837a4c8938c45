# As many threads, or processes, as there may be.
import threading

gate = threading.Event()


def thread():
    one = threading.Thread(target=gate.wait, daemon=True)
    one.start()
    return one


def process():
    child = os.fork()
    if child == 0:
        try:
            select.select([], [], [], 30)
        finally:
            os._exit(0)
    return child


if P["kind"] == "threads":
    count_until_refused("at once", thread, P["most"])
    gate.set()
else:
    attempt("fork of the worker" if not MAY_FORK else "fork", lambda: os.waitpid(process(), os.WNOHANG) and None)
    children = count_until_refused("at once", process, P["most"])
    for child in children:
        os.kill(child, signal.SIGKILL)
report()
