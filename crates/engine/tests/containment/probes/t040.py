# What of /proc is there. The names are compared with the published list.
for name in P["masked"]:
    attempt("read /proc/" + name, lambda: read_some("/proc/" + name))
visible = ["/proc/" + name for name in os.listdir("/proc") if not name.isdigit()]
for folder in ("/proc/self", "/proc/self/net", "/proc/self/attr", "/proc/self/ns"):
    try:
        visible += [folder + "/" + name for name in os.listdir(folder)]
    except OSError:
        pass
FACTS["visible"] = sorted(visible)
with open("/proc/self/net/dev") as file:
    FACTS["interfaces"] = " ".join(sorted(line.split(":")[0].strip() for line in file if ":" in line))
with open("/proc/self/net/tcp") as file:
    FACTS["sockets"] = str(len(file.readlines()) - 1)
report()
