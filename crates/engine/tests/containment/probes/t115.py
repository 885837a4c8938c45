# Locks, polls within polls, signals: by the thousand.
import fcntl
import threading
import time

path = os.path.join(P["folder"], "locks")
descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
for number in range(P["locks"]):
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number * 2)
polls = [select.epoll()]


def nested():
    polls.append(select.epoll())
    polls[-1].register(polls[-2].fileno(), select.EPOLLIN)
    return polls[-1]


count_until_refused("polls within polls", nested, 64)
call("inotify_init1", 0)
call("rt_sigqueueinfo", os.getpid(), 34, 0)
call("signalfd4", -1, 0, 8, 0)
if MODE != "host":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    lock, end = threading.Lock(), time.monotonic() + 1

    def contend():
        while time.monotonic() < end:
            with lock:
                os.kill(os.getpid(), signal.SIGUSR1)

    threads = [threading.Thread(target=contend) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
report()
