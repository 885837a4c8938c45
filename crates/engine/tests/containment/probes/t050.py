# Signals to everybody, and to those who are in charge.
for name, number in [("nothing", 0)] + ([("an end", 9), ("a stop", 19)] if MODE != "host" else []):
    attempt("%s to everybody" % name, lambda: raw(NUMBERS["kill"], -1, number) and None)
# On the host its own first process stands for the one in charge: the harmless signal only.
for number in [0] + (list(range(1, 65)) if MODE != "host" else []):
    attempt("signal %d to the first process" % number, lambda: os.kill(1 if MODE != "host" else os.getpid(), number))
report()
