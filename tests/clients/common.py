"""What the client scripts share: where the server is, by which endpoints, and how a check fails.

BELLJAR_URL            http://127.0.0.1:8720, or https
BELLJAR_KEY            a key
BELLJAR_POOL           name of a pool; default: `default`
SSL_CERT_FILE          the certificate of an https server, for clients that check it
"""

import asyncio
import inspect
import os
import sys
import traceback
import uuid

URL = os.environ["BELLJAR_URL"].rstrip("/")
KEY = os.environ["BELLJAR_KEY"]
POOL = os.environ.get("BELLJAR_POOL", "default")

# As endpoints are written in configurations: bare, short, and as the cloud gives them.
ENDPOINTS = {
    "bare": URL,
    "bare with a slash": URL + "/",
    "short": f"{URL}/pools/{POOL}",
    "resource": f"{URL}/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/group/sessionPools/{POOL}",
}

# A figure that is saved, and never shown: the service gives it all the same.
FIGURE = """
import matplotlib
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], [2, 1, 3])
plt.savefig('/mnt/data/figure.png')
"""


def session():
    """A session that nobody else has."""
    return str(uuid.uuid4())


def equal(seen, expected, what=""):
    """Fails where two values differ."""
    assert seen == expected, f"{what}: expected {expected!r}, and saw {seen!r}"


def contains(text, part):
    """Fails where a text lacks a part."""
    assert part in text, f"expected {part!r} in {text!r}"


def raises(kind, call):
    """The error of this kind that a call must raise."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def main(checks, every=ENDPOINTS):
    """Runs every check on every endpoint, or whatever else is given by name; a function that takes none runs once."""
    failed = 0
    for check in checks:
        each = every.items() if inspect.signature(check).parameters else [(None, None)]
        for name, endpoint in each:
            label = check.__name__ + (f" ({name})" if name else "")
            try:
                outcome = check(endpoint) if name else check()
                if inspect.iscoroutine(outcome):
                    asyncio.run(outcome)
                print(f"ok    {label}", flush=True)
            except Exception:
                failed += 1
                print(f"FAIL  {label}", flush=True)
                traceback.print_exc(file=sys.stdout)
    if failed:
        sys.exit(f"{failed} checks have failed")
