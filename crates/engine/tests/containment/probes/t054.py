# Stops itself, and all it may. Never outside.
assert MODE != "host"
FACTS["stops"] = "True"
report()
if MAY_FORK:
    for number in range(2, 300):
        try:
            os.kill(number, signal.SIGSTOP) if number != os.getpid() else None
        except OSError:
            pass
    os.kill(0, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
select.select([], [], [], 60)
