# Displays and results without end, or without measure.
from IPython.display import HTML, display

kind = P["kind"]
if kind == "many":
    for number in range(P["count"]):
        display(HTML("<b>%d</b>" % number))
elif kind == "large":
    for _ in range(P["count"]):
        display({"image/png": "iVBORw0KGgo" + "A" * (8 << 20)}, raw=True)
elif kind == "forms":
    display({"text/x-%d" % number: "x" * 1000 for number in range(P["count"])}, raw=True)
else:
    class Large:
        def __repr__(self):
            return "x" * P["count"]

    get_ipython().displayhook(Large()) if hasattr(get_ipython(), "displayhook") else display(Large())
