# One that is never where it was: each process begins the next one and leaves.
import time


def run(seconds):
    if os.fork():
        return
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open(os.path.join(P["folder"], "beat"), "w") as file:
            file.write(repr(time.monotonic()))
        if os.fork():
            os._exit(0)
        time.sleep(0.001)
    os._exit(0)


run(8)
time.sleep(0.1)
FACTS["begun"] = "True"
report()
