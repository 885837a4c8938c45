"""Keys of other callers, made by the operator's routes."""

import json
import urllib.request
import uuid

import common


def _call(method, path, body=None):
    headers = {"Authorization": f"Bearer {common.KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(common.URL + path, method=method, headers=headers, data=json.dumps(body).encode() if body else None)
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read() or b"null")


def make():
    """The id and the text of a key that stands for nobody else."""
    made = _call("POST", "/v1/admin/keys", {"name": f"client-{uuid.uuid4()}"})
    return made["id"], made["key"]


def revoke(key_id):
    _call("DELETE", f"/v1/admin/keys/{key_id}")
