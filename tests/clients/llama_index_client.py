"""LlamaIndex: AzureCodeInterpreterToolSpec."""

import os
import tempfile

import requests
from llama_index.tools.azure_code_interpreter import AzureCodeInterpreterToolSpec

import common
from common import contains, equal, raises


def tool(endpoint, **options):
    spec = AzureCodeInterpreterToolSpec(pool_management_endpoint=endpoint, session_id=common.session(), **options)
    spec.access_token_provider = lambda: common.KEY
    return spec


def executes_and_keeps_its_state(endpoint):
    spec = tool(endpoint)
    spec.code_interpreter("x = 40")
    properties = spec.code_interpreter("print('hello')\nx + 2")["properties"]
    equal((properties["status"], properties["result"], properties["stdout"], properties["stderr"]), ("Success", 42, "hello\n", ""))
    failed = spec.code_interpreter("1/0")["properties"]
    equal(failed["status"], "Failure")
    contains(failed["stderr"], "ZeroDivisionError")


def saves_pictures(endpoint):
    with tempfile.TemporaryDirectory() as folder:
        result = tool(endpoint, local_save_path=folder).code_interpreter(common.FIGURE)["properties"]["result"]
        equal((result["type"], result["format"], result["saved_to_local_path"]), ("image", "png", True))
        (name,) = os.listdir(folder)
        with open(os.path.join(folder, name), "rb") as file:
            assert file.read().startswith(b"\x89PNG")


def moves_files(endpoint):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.csv")
        with open(path, "w") as file:
            file.write("a,b\n1,2\n")
        spec = tool(endpoint)
        (uploaded,) = spec.upload_file(local_file_path=path)
        equal((uploaded.filename, uploaded.size_in_bytes), ("data.csv", 8))
        equal(spec.code_interpreter("open('/mnt/data/data.csv').read()")["properties"]["result"], "a,b\n1,2\n")
        equal([file.filename for file in spec.list_files()], ["data.csv"])
        equal(spec.download_file_to_local("/mnt/data/data.csv").read(), b"a,b\n1,2\n")
        equal(raises(requests.HTTPError, lambda: spec.download_file_to_local("missing")).response.status_code, 404)


common.main([executes_and_keeps_its_state, saves_pictures, moves_files])
