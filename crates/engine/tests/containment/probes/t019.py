# Whether files placed where an interpreter looks early ran before the last layer was on. Each of them left its findings.
FILTERS = 3 if MODE == "worker" else 2


def ran(name):
    try:
        with open(os.path.join(P["workspace"], "hook-" + name)) as file:
            seen = json.load(file)
    except FileNotFoundError:
        return "not loaded"
    whole = seen["Seccomp"] == "2" and seen["NoNewPrivs"] == "1" and int(seen["CapBnd"], 16) == 0 and int(seen["Seccomp_filters"]) >= FILTERS
    return "layers on" if whole else None


if MODE == "host":
    import subprocess

    folder = P["workspace"]
    names = [name[:-3] for name in P["hooks"] if name.endswith(".py")]
    early = "import sys, importlib; sys.path.insert(0, %r); [(sys.modules.pop(n, None), importlib.import_module(n)) for n in %r]" % (folder, names)
    subprocess.run([sys.executable, "-S", "-c", early], cwd=folder)
    subprocess.run(["/bin/bash", "-c", ":"], cwd=folder, env={"BASH_ENV": os.path.join(folder, "hook.sh")})
for name in P["hooks"]:
    attempt(name, lambda: ran(name))
report()
