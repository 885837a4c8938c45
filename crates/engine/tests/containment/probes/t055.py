# Children that nobody collects; and orphans by the hundred.
def zombie():
    child = os.fork()
    if child == 0:
        os._exit(0)
    return child


children = count_until_refused("zombies", zombie, P["most"])
for child in children:
    os.waitpid(child, 0)
orphans = 0
for _ in range(300):
    child = os.fork()
    if child == 0:
        try:
            os.fork()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    orphans += 1
FACTS["orphans"] = str(orphans)
report()
