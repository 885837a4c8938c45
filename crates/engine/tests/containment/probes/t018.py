# What the kernel says of this process.
facts = status()
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Seccomp_filters"):
    FACTS[name] = facts.get(name, "").strip()
with open("/proc/self/uid_map") as file:
    FACTS["maps host user 0"] = str(any(line.split()[1] == "0" for line in file))
report()
