# Deaf to every signal that can be ignored or held back, and at work for ever.
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
FACTS["deaf"] = "True"
report()
if MAY_FORK and P.get("vfork"):
    # The one who waits for this child cannot be woken by anything but its end.
    child = raw(NUMBERS["vfork"])
    while child == 0:
        libc.pause()
while True:
    try:
        while True:
            select.select([], [], [], 60)
    except BaseException:
        pass
