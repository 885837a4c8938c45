# Every place that can be written to, until it is full. How many MiB each one took.
MIB = 1 << 20


def write(folder):
    with open(os.path.join(folder, "fill"), "wb", buffering=0) as file:
        while FACTS[folder] < P["most"]:
            FACTS[folder] += file.write(b"x" * MIB) / MIB


def reserve(folder):
    with open(os.path.join(folder, "fill"), "wb") as file:
        while FACTS[folder] < P["most"]:
            os.posix_fallocate(file.fileno(), FACTS[folder] * MIB, MIB)
            FACTS[folder] += 1


def nameless(folder):
    descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    while FACTS[folder] < P["most"]:
        FACTS[folder] += os.write(descriptor, b"x" * MIB) / MIB


def sparse(folder):
    with open(os.path.join(folder, "sparse"), "wb") as file:
        file.truncate(P["sparse"])
        for place in range(0, 1 << 40, 1 << 30):
            file.seek(place)
            file.write(b"x" * 65536)
            file.flush()
            FACTS[folder] += 65536 / MIB
            if FACTS[folder] >= P["most"]:
                break


for folder in P["places"]:
    FACTS[folder] = 0
    try:
        globals()[P["kind"]](folder)
    except OSError as error:
        FACTS["end of " + folder] = errno.errorcode.get(error.errno, "")
report()
if FACTS.get("end of /mnt/data") == "ENOSPC" and P.get("fail"):
    raise OSError(errno.ENOSPC, "full")
