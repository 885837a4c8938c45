# x32: the number with bit 30.
for name, number in (("getpid", 39), ("socket", 41), ("ioctl", 514), ("execve", 520)):
    attempt_forked("x32 " + name, lambda: raw(number | 0x40000000, 0, 0, 0) and None)
report()
