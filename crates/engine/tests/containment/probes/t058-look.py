# No core file is there.
FACTS["core files"] = " ".join(name for folder in P["folders"] for name in os.listdir(folder) if name.startswith("core"))
report()
