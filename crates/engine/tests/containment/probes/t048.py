# Marks on files that would make removing them fail.
import fcntl

path = os.path.join(P["folder"], "marked")
with open(path, "w") as file:
    file.write("x")
    for name, flags in (("immutable", 0x10), ("append only", 0x20), ("no dump", 0x40)):
        attempt(name, lambda: fcntl.ioctl(file, 0x40086602, flags.to_bytes(8, sys.byteorder)) and None)
        if ATTEMPTS[name] == "OK":
            # Else the control's own folder could not be removed.
            fcntl.ioctl(file, 0x40086602, bytes(8))
for name in ("user.x", "security.x", "trusted.x", "system.posix_acl_access"):
    attempt("attribute " + name, lambda: os.setxattr(path, name, b"x"))
# What may be done must not hinder either.
locked = os.path.join(P["folder"], "locked")
os.makedirs(os.path.join(locked, "below"), exist_ok=True)
os.chmod(locked, 0)
FACTS["mode of the folder"] = "%o" % (os.stat(locked).st_mode & 0o7777)
report()
