# Descriptors of every kind, until there are no more to be had; and hidden ones, in letters that nobody opens.
import socket

KINDS = {
    "files": lambda: os.open("/dev/null", os.O_RDONLY),
    "copies": lambda: os.dup(1),
    "pairs": lambda: socket.socketpair(),
    "pipes": os.pipe,
    "polls": select.epoll,
    "events": lambda: os.eventfd(0),
}
action = KINDS[P["kind"]]
kept = count_until_refused("at once", action, P["most"])
FACTS["at once"] *= 2 if P["kind"] in ("pairs", "pipes") else 1
for number in range(3, 4096) if MODE != "worker" else []:
    try:
        os.close(number)
    except OSError:
        pass
del kept[:]
if P["kind"] == "pairs" and MODE != "worker":
    one, other = socket.socketpair()
    attempt("a letter with a descriptor", lambda: socket.send_fds(one, [b"x"], [0]) and None)
report()
