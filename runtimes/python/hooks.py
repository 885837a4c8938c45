"""Small changes to known packages, made at the moment user code imports them.

A finder in front of the others sees each first import; for the packages in `_HOOKS` it runs a function right after the
package's own code. Nothing is imported for the hooks' sake, and a hook that fails leaves the package as it was.
"""

import sys


def install(worker):
    """Puts the finder in place, and applies the hooks to what is loaded already."""
    sys.meta_path.insert(0, _Finder())
    for name in _HOOKS:
        if name in sys.modules:
            _apply(name, sys.modules[name])


def fill_linecache(linecache):
    """Gives the lines of all executions; without a time stamp `linecache` never drops them."""
    for filename, source in worker.sources.items():
        add_lines(linecache, filename, source)


def add_lines(linecache, filename, source):
    """Gives the lines of one execution."""
    lines = [line + "\n" for line in source.splitlines()]
    linecache.cache[filename] = (len(source), None, lines, filename)


class _Finder:
    """Lets the other finders answer, and wraps the loader of a package that has a hook."""

    def find_spec(self, name, path=None, target=None):
        if name == "pkg_resources":
            _silence_pkg_resources()
        if name not in _HOOKS:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    """The package's own loader, and then the hook."""

    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _apply(module.__name__, module)


def _apply(name, module):
    try:
        _HOOKS[name](module)
    except Exception:
        pass


def _silence_pkg_resources():
    # A warning to its own users, in the way of agents that list the packages with it: they read stderr as part of the list.
    import warnings

    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)


def _pandas(pandas):
    # In a terminal pandas cuts tables to its width; here it shows what a notebook shows.
    if pandas.get_option("display.max_columns") == 0:
        pandas.set_option("display.max_columns", 20)


def _pyplot(pyplot):
    worker.load("figures").adopt(pyplot)


def _ipython(module):
    # Whoever asks IPython for its shell gets the session's, made then.
    def initialized(cls):
        try:
            worker.get_shell()
        except ImportError:  # a template has none
            return False
        return True

    worker.load("interactive")
    module.InteractiveShell.initialized = classmethod(initialized)


def _plotly(module):
    class Renderer(module.ExternalRenderer):
        """Hands the figure out as data; the page that shows it brings plotly.js."""

        def render(self, figure):
            text = module.to_json_plotly(figure) if hasattr(module, "to_json_plotly") else _plotly_json(figure)
            worker.send_display({
                "application/vnd.plotly.v1+json": driver.decode_json(text.encode()),
                "text/plain": "<plotly figure>",
            })

    renderer = Renderer()
    for name in list(module.renderers):
        if isinstance(module.renderers[name], module.MimetypeRenderer) and name not in _STATIC_RENDERERS:
            module.renderers[name] = renderer
    for name in ("browser", "firefox", "chrome", "chromium"):
        module.renderers[name] = renderer
    module.renderers.default = "plotly_mimetype"


_STATIC_RENDERERS = {"png", "jpeg", "jpg", "svg", "pdf", "json"}


def _plotly_json(figure):
    from plotly.io.json import to_json_plotly

    return to_json_plotly(figure)


def _image_viewers(module):
    class Viewer(module.Viewer):
        """`Image.show()` without a program to show it."""

        def show(self, image, **_options):
            worker.send_display({"image/png": image._repr_png_(), "text/plain": repr(image)})
            return 1

    module._viewers[:] = [Viewer()]


def _document(function):
    return lambda module: getattr(worker.load("documents"), function)(module)


_HOOKS = {
    "linecache": fill_linecache,
    "pandas": _pandas,
    "matplotlib.pyplot": _pyplot,
    "IPython.core.interactiveshell": _ipython,
    "plotly.io._renderers": _plotly,
    "PIL.ImageShow": _image_viewers,
    "openpyxl.reader.excel": _document("openpyxl"),
    "pandas.io.excel._base": _document("pandas_excel"),
    "docx.api": _document("docx"),
    "pptx.api": _document("pptx"),
    "pypdf.errors": _document("pypdf_errors"),
    "pypdf._reader": _document("pypdf_reader"),
    "pypdf._page": _document("pypdf_page"),
    "pdfminer.pdfdocument": _document("pdfminer"),
    "pdfplumber.page": _document("pdfplumber"),
}
