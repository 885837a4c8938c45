# Device nodes: made, and opened.
import stat

for name, kind, major, minor in (("null", stat.S_IFCHR, 1, 3), ("mem", stat.S_IFCHR, 1, 1), ("kmsg", stat.S_IFCHR, 1, 11), ("disk", stat.S_IFBLK, 254, 0)):
    for folder in P["folders"]:
        place = os.path.join(folder, "node-" + name)
        attempt("mknod %s in %s" % (name, folder if MODE != "host" else P["names"][P["folders"].index(folder)]), lambda: os.mknod(place, kind | 0o666, os.makedev(major, minor)) or os.unlink(place))
for path in P["devices"]:
    attempt("see " + path, lambda: there(path))
attempt("socket node", lambda: os.mknod(os.path.join(P["folder"], "socket-node"), stat.S_IFSOCK | 0o666))
report()
