# A tree as deep as it gets, with names as long as they get, and many small files.
os.chdir("/mnt/data")
depth = 0
try:
    while depth < P["depth"]:
        os.mkdir("n" * 255)
        os.chdir("n" * 255)
        depth += 1
except OSError as error:
    FACTS["end"] = errno.errorcode.get(error.errno, "")
FACTS["depth"] = str(depth)
os.chdir("/mnt/data")
os.mkdir("many")
files = 0
try:
    while files < P["files"]:
        os.close(os.open("many/%d" % files, os.O_CREAT | os.O_WRONLY))
        files += 1
except OSError as error:
    FACTS["end of files"] = errno.errorcode.get(error.errno, "")
FACTS["files"] = str(files)
report()
