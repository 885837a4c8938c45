# Hard links out of, and into, the workspace.
sources = P["linkable"]
for source in sources:
    for folder in P["folders"]:
        place = os.path.join(folder, "hard")
        name = "%s in %s" % (source, folder) if MODE != "host" else "%s in %s" % (P["sources"][sources.index(source)], P["names"][P["folders"].index(folder)])
        attempt("link " + name, lambda: os.link(source, place) or os.unlink(place))
        attempt("rename " + name, lambda: os.rename(source, place) or os.rename(place, source))
report()
