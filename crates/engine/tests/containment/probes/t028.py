# What the list of mounts tells of the host.
with open("/proc/self/mountinfo") as file:
    text = file.read()
FACTS["words of the host"] = " ".join(word for word in P["words"] if word in text)
FACTS["devices of the host"] = " ".join(sorted({line.partition(" - ")[2].split()[1] for line in text.splitlines() if line.partition(" - ")[2].split()[1].startswith("/dev/")}))
report()
