# Device numbers: what is private must not stand on a file system of the host.
for path in ("/mnt/data", "/tmp", "/home/sandbox", "/dev/shm", "/", "/proc"):
    FACTS["own device " + path] = str(MODE == "host" or os.stat(path).st_dev not in P["host_devices"])
FACTS["devices"] = {path: os.stat(path).st_dev for path in ("/", "/usr", "/mnt/data", "/tmp", "/dev/shm", "/proc") if os.path.exists(path)}
report()
