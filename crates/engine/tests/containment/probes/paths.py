# Paths that must not be there, and files that must not open for writing: opened only, never written.
for path in P.get("absent", []):
    attempt("see " + path, lambda: there(path))
    attempt("read " + path, lambda: read_some(path))
for path in P.get("unwritable", []):
    attempt("write " + path, lambda: os.close(os.open(path, os.O_WRONLY)))
report()
