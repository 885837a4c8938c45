# A daemon as the book says: twice forked, a session of its own, no streams. It shows that it lives by changing a file.
import time


def beat(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open(os.path.join(P["folder"], "beat"), "w") as file:
            file.write(repr(time.monotonic()))
        time.sleep(0.01)


def daemon():
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for descriptor in range(3):
        os.close(descriptor)
    try:
        beat(8)
    finally:
        os._exit(0)


daemon()
time.sleep(0.1)
FACTS["begun"] = "True"
report()
