# Files that would give rights to who runs them.
path = os.path.join(P["folder"], "rights")
with open(path, "w") as file:
    file.write("#!/bin/sh\n")
attempt("file capability", lambda: os.setxattr(path, "security.capability", b"\x01\x00\x00\x02" + bytes(16)))
attempt("access list", lambda: os.setxattr(path, "user.test", b"x"))
attempt("owner", lambda: os.chown(path, 0, 0))
os.chmod(path, 0o6755)
FACTS["mode inside"] = "%o" % (os.stat(path).st_mode & 0o7777)
report()
