"""The native routes, for what is not the clients' business: keys of other callers, and a file that comes from elsewhere."""

import json
import urllib.request
import uuid

import common


def call(method, path, body=None, media_type="application/json"):
    headers = {"Authorization": f"Bearer {common.KEY}", "Content-Type": media_type}
    with urllib.request.urlopen(urllib.request.Request(common.URL + path, method=method, headers=headers, data=body)) as response:
        return response.read()


def make_key():
    """The id and the text of a key that stands for nobody else."""
    made = json.loads(call("POST", "/v1/admin/keys", json.dumps({"name": f"client-{uuid.uuid4()}"}).encode()))
    return made["id"], made["key"]


def revoke_key(key_id):
    call("DELETE", f"/v1/admin/keys/{key_id}")


def upload(session, name, content):
    call("PUT", f"/v1/sessions/{session}/files/{name}", content, "application/octet-stream")
