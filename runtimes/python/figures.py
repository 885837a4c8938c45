"""The matplotlib backend: draws with Agg, and shows figures as displays, at `plt.show()` or when the execution ends."""

from io import BytesIO

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase, _Backend
from matplotlib.backends.backend_agg import FigureCanvasAgg

NAME = "module://" + __name__


class FigureManager(FigureManagerBase):
    """Shows its figure by sending a picture."""

    def show(self):
        show_figure(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block=None):
        show_open_figures()


class FigureCanvas(FigureCanvasAgg):
    """Agg, with a manager that can show."""

    manager_class = FigureManager


@_Backend.export
class _SandboxBackend(_Backend):
    FigureCanvas = FigureCanvas
    FigureManager = FigureManager
    backend_version = "1"


def adopt(pyplot):
    """Keeps pyplot on this backend where code asks for Agg or for the notebook's, as scripts for servers do."""
    switch = pyplot.switch_backend

    def switch_backend(newbackend):
        name = str(newbackend).lower()
        if name in ("agg", "inline", "nbagg", "notebook", "widget") or "inline" in name or "ipympl" in name:
            newbackend = NAME
        switch(newbackend)

    pyplot.switch_backend = switch_backend


_shown = set()  # figures displayed by the code itself, by id, while they are open


def is_open(figure):
    """Whether the figure is one of pyplot's, and so will be shown by itself."""
    return any(manager.canvas.figure is figure for manager in Gcf.get_all_fig_managers())


def show_open_figures():
    """Shows pyplot's figures in order and closes them."""
    try:
        for manager in Gcf.get_all_fig_managers():
            if id(manager.canvas.figure) not in _shown:
                show_figure(manager.canvas.figure)
    finally:
        _shown.clear()
        Gcf.destroy_all()


def show_figure(figure):
    """Sends one figure, unless nothing is drawn on it."""
    picture = png(figure)
    if picture is not None:
        worker.send_display({"image/png": picture, "text/plain": repr(figure)})
        mark_shown(figure)


def mark_shown(figure):
    """An open figure that was displayed is not shown a second time at the end."""
    if is_open(figure):
        _shown.add(id(figure))


def png(figure):
    """The figure as PNG, cut to what is drawn; None for an empty one."""
    if not figure.axes and not figure.lines and not figure.texts and not figure.images and not figure.patches:
        return None
    if not hasattr(figure.canvas, "print_png"):
        FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.canvas.print_figure(
        buffer,
        format="png",
        dpi=figure.dpi,
        facecolor=figure.get_facecolor(),
        edgecolor=figure.get_edgecolor(),
        bbox_inches="tight",
    )
    return buffer.getvalue()
