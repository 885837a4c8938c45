# More output than there may be.
def write(descriptor, piece):
    for _ in range(P["pieces"]):
        os.write(descriptor, piece)


kind = P["kind"]
if kind == "both":
    for _ in range(P["pieces"]):
        os.write(1, b"out\n" * 1024)
        os.write(2, b"err\n" * 1024)
elif kind == "line":
    for _ in range(P["pieces"]):
        os.write(1, b"x" * 65536)
elif kind == "bytes":
    for _ in range(P["pieces"] * 512):
        os.write(1, b"x")
elif kind == "print":
    for _ in range(P["pieces"]):
        print("x" * 4096)
else:
    write(2 if kind == "errors" else 1, {"zeros": bytes(4096), "garbage": bytes(range(128, 256)) * 32}.get(kind, b"y\n" * 2048))
