# A lock on a file that all sandboxes share.
import fcntl

descriptor = os.open(P["target"], os.O_RDONLY)
attempt("whole-file lock", lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB))
report()
