# Whether what was left still changes its file.
import time


def read():
    with open(os.path.join(P["folder"], "beat")) as file:
        return file.read()


def beats():
    before = read()
    for _ in range(100):
        time.sleep(0.01)
        if read() not in (before, ""):
            return "OK"
    return "ENOENT"


attempt("goes on", beats)
report()
