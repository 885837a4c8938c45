# Random bytes, faster than anybody needs them.
import time

end = time.monotonic() + 1
count = 0
while time.monotonic() < end:
    count += len(os.getrandom(1 << 16)) + len(os.urandom(1 << 16))
with open("/dev/random", "rb", buffering=0) as file:
    count += len(file.read(1 << 16))
FACTS["enough"] = str(count > 1 << 17)
report()
