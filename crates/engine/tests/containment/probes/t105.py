# Files, folders, links, until there are no more to be had.
def make(folder):
    kinds = (
        lambda place: os.close(os.open(place, os.O_CREAT | os.O_WRONLY)),
        os.mkdir,
        lambda place: os.symlink("x" * 200, place),
        os.mkfifo,
    )
    number = 0
    while number < P["most"]:
        kinds[number % 4](os.path.join(folder, "%d-%s" % (number, "n" * 200)))
        number += 1
        FACTS[folder] = number


for folder in P["places"]:
    FACTS[folder] = 0
    try:
        make(folder)
    except OSError as error:
        FACTS["end of " + folder] = errno.errorcode.get(error.errno, "")
report()
