# Sleeps, or does nothing but compute.
FACTS["begun"] = "True"
report()
while True:
    if P["sleep"]:
        select.select([], [], [], 60)
