"""What a value looks like in a frame: its text without IPython, its JSON form, binary data as base64."""

import sys
from binascii import b2a_base64
from math import isfinite

PRETTY_WIDTH = 79  # IPython breaks what is wider
JSON_LIMIT = 1024 * 1024
NODE_LIMIT = 100_000
DEPTH_LIMIT = 32

SCALARS = {int, float, bool, str, bytes, type(None)}


def plain_text(value):
    """The repr, where IPython's pretty printer is known to give the same and there is no richer form; else None."""
    kind = type(value)
    if kind in SCALARS:
        return _repr(value)
    if kind in (list, tuple, dict):
        text = _repr(value) if _is_plain(value, 0) else None
        return text if text is not None and len(text) <= PRETTY_WIDTH else None
    if kind.__module__ == "numpy" and isinstance(value, sys.modules["numpy"].generic):
        return _repr(value)
    return None


def _repr(value):
    try:
        return repr(value)
    except ValueError:  # an integer too long to print; IPython says so
        return None


def _is_plain(value, depth):
    kind = type(value)
    if kind in SCALARS:
        return True
    if depth > 4 or kind not in (list, tuple, dict) or len(value) > 40:
        return False
    if kind is dict:
        return all(_is_plain(k, depth + 1) and _is_plain(v, depth + 1) for k, v in value.items())
    return all(_is_plain(item, depth + 1) for item in value)


def base64_values(data):
    """The bundle with bytes written as base64."""
    return {
        mime: b2a_base64(value, newline=False).decode() if isinstance(value, (bytes, bytearray, memoryview)) else value
        for mime, value in data.items()
    }


def json_form(value):
    """(True, the form) where the value has one of reasonable size; else (False, None). Never raises."""
    try:
        if isinstance(value, float) and not isfinite(value):
            return False, None
        form = _Converter().convert(value, 0)
        return (True, form) if len(driver.encode_json(form)) <= JSON_LIMIT else (False, None)
    except Exception:
        return False, None


class _NoForm(Exception):
    """The value has no JSON form."""


class _Converter:
    """Builds a JSON form, and gives up on values that are too large."""

    def __init__(self):
        self.nodes = 0

    def convert(self, value, depth):
        self.nodes += 1
        if depth > DEPTH_LIMIT or self.nodes > NODE_LIMIT:
            raise _NoForm
        if value is None or isinstance(value, (bool, str)):
            return str(value) if isinstance(value, str) and type(value) is not str else value
        if isinstance(value, int):
            return self._integer(int(value))
        if isinstance(value, float):
            return float(value) if isfinite(value) else None  # as pandas and browsers write it
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise _NoForm
            return {str(key): self.convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.convert(item, depth + 1) for item in value]
        return self._foreign(value, depth)

    @staticmethod
    def _integer(value):
        if not -(1 << 63) <= value < 1 << 64:
            raise _NoForm  # readers would round it or refuse it
        return value

    def _foreign(self, value, depth):
        """Values of numpy, pandas and polars, which are known only if those are loaded."""
        numpy, pandas, polars = map(sys.modules.get, ("numpy", "pandas", "polars"))
        if numpy is not None and isinstance(value, numpy.generic):
            return self.convert(_unboxed(value), depth)
        if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind in "biufUO":
            self._claim(value.size)
            return self.convert(value.tolist(), depth)
        if pandas is not None and isinstance(value, pandas.DataFrame):
            return self._records(value, pandas)
        if pandas is not None and isinstance(value, pandas.Series):
            return self._series(value, pandas)
        if pandas is not None and isinstance(value, pandas.Index) and not isinstance(value, pandas.MultiIndex):
            self._claim(len(value))
            return [self._cell(item) for item in value.tolist()]
        if polars is not None and isinstance(value, polars.DataFrame):
            self._claim(value.height * value.width)
            return [{name: self._cell(item) for name, item in row.items()} for row in value.to_dicts()]
        raise _NoForm

    def _claim(self, size):
        if self.nodes + size > NODE_LIMIT:
            raise _NoForm

    def _records(self, frame, pandas):
        """A list of rows; an index that says something becomes columns."""
        self._claim(frame.size)
        if not isinstance(frame.index, pandas.RangeIndex):
            frame = frame.reset_index()
        names = [" ".join(map(str, name)).strip() if isinstance(name, tuple) else str(name) for name in frame.columns]
        if len(set(names)) != len(names):
            raise _NoForm
        columns = [[self._cell(item) for item in frame.iloc[:, i].tolist()] for i in range(len(names))]
        return [dict(zip(names, row)) for row in zip(*columns)]

    def _series(self, series, pandas):
        self._claim(series.size)
        if isinstance(series.index, pandas.MultiIndex):
            return self._records(series.to_frame(), pandas)
        cells = [self._cell(item) for item in series.tolist()]
        if isinstance(series.index, pandas.RangeIndex):
            return cells
        labels = [str(label) for label in series.index.tolist()]
        if len(set(labels)) != len(labels):
            raise _NoForm
        return dict(zip(labels, cells))

    def _cell(self, value):
        """A table's cell: missing values are null, times ISO 8601, anything else without a form its text."""
        if type(value).__name__ in ("NaTType", "NAType"):
            return None
        if hasattr(value, "isoformat"):
            return value.isoformat()
        try:
            return self.convert(value, 1)
        except _NoForm:
            if self.nodes > NODE_LIMIT:
                raise
            return str(value)


def _unboxed(scalar):
    value = scalar.item()
    if type(value) is type(scalar):  # long double and the like stay as they are
        raise _NoForm
    return value


def cleaned(value, depth=0):
    """JSON for a display whose data is almost that: numbers that are none become null, unknown objects their text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 64 else float(value) if abs(value) < 1 << 1000 else str(value)
    if depth > 200:
        return "…"
    if isinstance(value, dict):
        return {str(key): cleaned(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [cleaned(item, depth + 1) for item in value]
    if hasattr(value, "tolist"):
        return cleaned(value.tolist(), depth + 1)
    return str(value)
