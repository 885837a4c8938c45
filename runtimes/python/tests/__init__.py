"""Tests of the Python driver; run with `python -m unittest discover -t . -s tests` in `runtimes/python`."""
