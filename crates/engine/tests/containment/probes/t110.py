# Calls that are refused, as fast as they can be made.
import time

end = time.monotonic() + 2
count = 0
while time.monotonic() < end:
    for _ in range(1000):
        libc.syscall(ctypes.c_long(425), 1, 0)
        libc.socket(16, 3, 0)
    count += 2000
FACTS["many"] = str(count > 10000)
report()
