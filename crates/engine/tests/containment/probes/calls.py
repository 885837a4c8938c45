# System calls that must not reach the kernel, each with arguments that it would refuse for another reason than ours.
for name in P["calls"]:
    arguments = P["calls"][name]
    attempt_forked(name, lambda: raw(NUMBERS[name.partition(" ")[0]], *arguments) and None)
for path in P.get("paths", []):
    attempt("open " + path, lambda: read_some(path))
report()
