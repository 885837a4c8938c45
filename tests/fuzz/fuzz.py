"""Calls every route of the served description with values that fit it and values that do not (T205): no 5xx, no answer that is not described.

BELLJAR_URL       http://127.0.0.1:8720
BELLJAR_KEY       a key
BELLJAR_EXAMPLES  examples of each route in fuzzing; default: 6
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

URL = os.environ["BELLJAR_URL"].rstrip("/")
KEY = os.environ["BELLJAR_KEY"]
EXAMPLES = int(os.environ.get("BELLJAR_EXAMPLES", "6"))
SESSION = "fuzz-1"

# Left out: checks of what the description does not promise, such as that every request that does not fit is refused (what is longer than
# said may still be taken) or that what was deleted stays away (ids are made anew by who executes in them). No route is left out.
CHECKS = ",".join(
    f"{name}_conformance" for name in ("status_code", "content_type", "response_schema", "response_headers")
) + ",not_a_server_error"


def execute(code):
    """Runs code in a session that the second round is about."""
    request = urllib.request.Request(
        f"{URL}/v1/sessions/{SESSION}/executions",
        json.dumps({"code": code}).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def fuzz(name, settings, phases, examples):
    """One round; the same requests each time, unless the description changes."""
    print(f"-- {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "schemathesis.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(settings)
        command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--config-file", path, "run", f"{URL}/openapi.json"]
        command += ["--header", f"Authorization: Bearer {KEY}", "--checks", CHECKS, "--phases", phases, "--max-examples", str(examples)]
        command += ["--generation-deterministic", "--continue-on-failure", "--request-timeout", "60", "--no-shrink", "--no-color", "--warnings", "off"]
        return subprocess.run(command, cwd=folder, check=False).returncode


def main():
    failed = fuzz("whatever fits, and what does not", "", "examples,coverage,fuzzing", EXAMPLES)
    # Most made-up ids lead to nothing that is there: once more, with those of things that are.
    done = execute("open('there.txt', 'w').write('line\\n' * 100)\nprint('x' * 2_000_000)")
    settings = f'[parameters]\n"path.id" = "{SESSION}"\n"path.exe" = "{done["id"]}"\n"path.path" = "there.txt"\n'
    failed |= fuzz("with things that are there", settings, "fuzzing", EXAMPLES)
    return failed


if __name__ == "__main__":
    sys.exit(main())
