"""The eight tools as every client must find them: names, parameters, limits and defaults are fixed."""

from jsonschema import Draft202012Validator

from common import equal

SESSION = {"sessionId": {"type": "string"}}


def seconds(most, default):
    """A time-out."""
    return {"timeoutSeconds": {"type": "integer", "minimum": 5, "maximum": most, "default": default}}


CODE = {"pythonCode": {"type": "string", "maxLength": 20_000}}
FILE = {"filePath": {"type": "string"}}

# Per tool: its parameters with what must be said of each, those that are required, and whether it only reads.
TOOLS = {
    "ExecutePythonCode": (CODE | seconds(900, 120), ["pythonCode"], False),
    "RunShellCommand": (
        {"command": {"type": "string"}, "explanation": {"type": "string"}, "isBackground": {"type": "boolean"}} | seconds(240, 120),
        ["command"],
        False,
    ),
    "GeneratePdfReport": (
        CODE | {"expectedOutputFilename": {"type": "string"}, "saveAsFilename": {"type": "string"}} | seconds(900, 180),
        ["expectedOutputFilename", "pythonCode", "saveAsFilename"],
        False,
    ),
    "ReadSessionFile": (FILE | {"startLine": {"type": "integer"}, "endLine": {"type": "integer"}}, ["filePath"], True),
    "SearchSessionFiles": (
        {"pattern": {"type": "string"}, "path": {"type": "string"}, "include": {"type": "string"}, "maxResults": {"type": "integer", "maximum": 500}},
        ["pattern"],
        True,
    ),
    "ListSessionFiles": ({"path": {"type": "string"}, "recursive": {"type": "boolean"}}, [], True),
    "GetSessionFile": (FILE, ["filePath"], True),
    "UploadFileToSession": ({"fileName": {"type": "string"}, "contentBase64": {"type": "string"}}, None, False),
}


def check_tools(tools):
    """Checks a list of tools, as it is on the wire."""
    equal(sorted(tool["name"] for tool in tools), sorted(TOOLS), "names")
    for tool in tools:
        name = tool["name"]
        parameters, required, only_reads = TOOLS[name]
        assert tool.get("title") and len(tool.get("description", "")) > 60, f"{name}: title and description"
        schema = tool["inputSchema"]
        equal(schema.get("type"), "object", f"{name}: type of the parameters")
        equal(schema.get("additionalProperties"), False, f"{name}: unknown parameters")
        properties = schema["properties"]
        extra = set(properties) - set(parameters) - set(SESSION)
        # A file may also be given by a link, in a parameter of its own.
        assert extra <= ({"contentUri", "resourceUri", "resourceLink"} if name == "UploadFileToSession" else set()), f"{name}: {extra}"
        for parameter, said in (parameters | SESSION).items():
            found = properties[parameter]
            assert found.get("description"), f"{name}: {parameter} is not described"
            equal({key: found.get(key) for key in said}, said, f"{name}: {parameter}")
        if required is not None:
            equal(sorted(schema.get("required", [])), required, f"{name}: required parameters")
        annotations = tool["annotations"]
        equal(annotations.get("readOnlyHint"), only_reads, f"{name}: readOnlyHint")
        # Nothing outside of the session can be reached.
        equal(annotations.get("openWorldHint"), False, f"{name}: openWorldHint")
        if not only_reads:
            equal(annotations.get("destructiveHint"), True, f"{name}: destructiveHint")
        for kind in ["inputSchema", "outputSchema"]:
            Draft202012Validator.check_schema(tool[kind])
            check_portable(tool[kind], f"{name}: {kind}")


def check_portable(schema, where):
    """What some agents do not read: Copilot Studio drops tools with references, and cuts off a schema where a type is a list."""
    if isinstance(schema, list):
        for one in schema:
            check_portable(one, where)
    if not isinstance(schema, dict):
        return
    assert "$ref" not in schema, f"{where}: {schema}"
    assert not isinstance(schema.get("type"), list), f"{where}: {schema}"
    for bound in ["exclusiveMinimum", "exclusiveMaximum"]:
        assert bound not in schema, f"{where}: {schema}"
    for key, value in schema.items():
        if key not in ["default", "example", "examples", "enum", "const"]:
            check_portable(value, where)
