# `int 0x80`: getpid, socketcall, mount, and a number that does not exist.
for name, number in (("getpid", 20), ("socketcall", 102), ("mount", 21), ("nothing", 4000)):
    code = b"\x53\x31\xdb\x31\xc9\x31\xd2\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\x5b\xc3"
    attempt_forked("int 0x80 " + name, lambda: machine(code))
report()
