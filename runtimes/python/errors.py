"""Error frames: Python's own traceback format, with the user's lines and without those of the driver."""

import linecache
import sys
import traceback

# `traceback` and `linecache` import these while they format; by then a file of the user's might be found instead.
import ast  # noqa: F401
import tokenize  # noqa: F401
import unicodedata  # noqa: F401

TRACEBACK_LIMIT = 64 * 1024
MESSAGE_LIMIT = 16 * 1024


def describe(error):
    """The payload of an `error` frame."""
    description = {
        "name": type(error).__name__,
        "message": _middle_cut(_message(error), MESSAGE_LIMIT),
        "traceback": _middle_cut(format_error(error), TRACEBACK_LIMIT),
    }
    if isinstance(error, OSError) and isinstance(error.errno, int):
        description["errno"] = int(error.errno)
    if isinstance(error, MemoryError):
        description["isMemoryError"] = True
    if isinstance(error, SystemExit):
        description["exitCode"] = _exit_code(error.code)
    return description


def format_error(error):
    """The traceback as text. Falls back to less when the exception itself cannot be formatted."""
    try:
        worker.load("hooks").fill_linecache(linecache)
        _add_source_line(error)
        formatted = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _cut_frames(formatted, set())
        return "".join(formatted.format())
    except (Exception, RecursionError):
        return "%s: %s\n" % (type(error).__name__, _message(error))


def _message(error):
    try:
        return str(error)
    except BaseException:
        return "<the text of this exception cannot be had: its __str__ failed>"


def _exit_code(code):
    """What the exit status of a Python program would be."""
    if isinstance(code, int):
        return int(code) & 0xFF
    return 0 if code is None else 1


def _middle_cut(text, limit):
    if len(text) <= limit:
        return text
    half = limit // 2
    return "%s\n[… %d characters left out]\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def _add_source_line(error):
    """A SyntaxError found after parsing (`return` outside of a function) does not bring its line along."""
    if isinstance(error, SyntaxError) and error.text is None and isinstance(error.lineno, int):
        if error.filename in worker.sources:
            error.text = linecache.getline(error.filename, error.lineno) or None


def _cut_frames(formatted, seen):
    """Removes the driver's and IPython's frames from an exception and from all that it is chained to."""
    if formatted is None or id(formatted) in seen:
        return
    seen.add(id(formatted))
    formatted.stack[:] = _user_frames(list(formatted.stack))
    for other in (formatted.__cause__, formatted.__context__, *(formatted.exceptions or ())):
        _cut_frames(other, seen)


def _user_frames(frames):
    first = next((i for i, frame in enumerate(frames) if frame.filename in worker.sources), 0)
    hidden = _hidden_folders()
    return [frame for frame in frames[first:] if not frame.filename.startswith(hidden)]


def _hidden_folders():
    folders = [driver.DIRECTORY + "/"]
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython, "__file__", None):
        folders.append(ipython.__file__.rpartition("/")[0] + "/")
    return tuple(folders)
