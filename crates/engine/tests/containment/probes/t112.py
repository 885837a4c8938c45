# What would have all disks of the host written, and a loop of what may be asked for.
import time

call("sync")
descriptor = os.open(os.path.join(P["folder"], "synced"), os.O_CREAT | os.O_RDWR)
call("syncfs", descriptor)
call("sync_file_range", descriptor, 0, 0, 0)
end = time.monotonic() + (1 if MODE != "host" else 0)
while time.monotonic() < end:
    os.pwrite(descriptor, b"x" * 4096, 0)
    os.fsync(descriptor)
report()
