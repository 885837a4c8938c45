"""Calls every route of the served description with values that fit it and values that do not (T205): no 5xx, no answer that is not described.

BELLJAR_URL       http://127.0.0.1:8720
BELLJAR_KEY       a key
BELLJAR_EXAMPLES  examples of each route in fuzzing; default: 6
BELLJAR_CASES     go on with other requests until there were so many; default: 0
BELLJAR_SEED      the first seed of those; default: 1
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request

URL = os.environ["BELLJAR_URL"].rstrip("/")
KEY = os.environ["BELLJAR_KEY"]
EXAMPLES = int(os.environ.get("BELLJAR_EXAMPLES", "6"))
CASES = int(os.environ.get("BELLJAR_CASES", "0"))
SEED = int(os.environ.get("BELLJAR_SEED", "1"))
LONG_EXAMPLES = 60  # of each route in one of the rounds that go on; with many, Hypothesis spends its time on making old ones smaller
SESSION = "fuzz-1"

# Left out: checks of what the description does not promise, such as that every request that does not fit is refused (what is longer than
# said may still be taken) or that what was deleted stays away (ids are made anew by who executes in them). No route is left out.
CHECKS = ",".join(
    f"{name}_conformance" for name in ("status_code", "content_type", "response_schema", "response_headers")
) + ",not_a_server_error"

# Of one route 503 is what it is for: no sandbox waits at this moment. Its form is checked all the same.
READINESS = """
[[operations]]
include-name = "GET /readyz"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""


def execute(code):
    """Runs code in a session that the second round is about."""
    request = urllib.request.Request(
        f"{URL}/v1/sessions/{SESSION}/executions",
        json.dumps({"code": code}).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def fuzz(name, settings, phases, examples, seed=None):
    """One round; whether it failed, and the number of requests: without a seed the same each time, unless the description changes."""
    print(f"-- {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "schemathesis.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(settings + READINESS)
        command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--config-file", path, "run", f"{URL}/openapi.json"]
        command += ["--header", f"Authorization: Bearer {KEY}", "--checks", CHECKS, "--phases", phases, "--max-examples", str(examples)]
        command += ["--generation-deterministic"] if seed is None else ["--seed", str(seed), "--generation-database", "none"]
        command += ["--continue-on-failure", "--request-timeout", "60", "--no-shrink", "--no-color", "--warnings", "off"]
        done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        cases = re.search(r"^ *([0-9,]+) generated", done.stdout, re.MULTILINE)
        return done.returncode != 0 or cases is None, int(cases[1].replace(",", "")) if cases else 0


def settings_of_what_is_there():
    """Most made-up ids lead to nothing that is there: these do. Made anew for each round, since requests of the round before may have removed them."""
    done = execute("open('there.txt', 'w').write('line\\n' * 100)\nprint('x' * 2_000_000)")
    return f'[parameters]\n"path.id" = "{SESSION}"\n"path.exe" = "{done["id"]}"\n"path.path" = "there.txt"\n'


def main():
    anything, there = "whatever fits, and what does not", "with things that are there"
    failed, cases = fuzz(anything, "", "examples,coverage,fuzzing", EXAMPLES)
    again, more = fuzz(there, settings_of_what_is_there(), "fuzzing", EXAMPLES)
    failed, cases, seed = failed or again, cases + more, SEED
    while cases < CASES and not failed:
        settings = settings_of_what_is_there() if seed % 2 else ""
        failed, more = fuzz(f"{there if settings else anything}, seed {seed}", settings, "fuzzing", LONG_EXAMPLES, seed)
        cases, seed = cases + more, seed + 1
        print(f"== {cases} of {CASES} cases", flush=True)
    print(f"== {cases} cases, {'with failures' if failed else 'no 5xx, no answer that is not described'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
