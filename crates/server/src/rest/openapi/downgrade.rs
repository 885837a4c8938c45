//! OpenAPI 3.1 as OpenAPI 2.0, for importers that read nothing newer: custom connectors of Power Platform and Logic Apps.

use serde_json::{Map, Value as Json, json};

/// Methods that are shown: importers know no HEAD.
const METHODS: [&str; 4] = ["get", "put", "post", "delete"];
/// What a schema says that OpenAPI 2.0 takes as it is.
const KEPT: [&str; 18] = [
    "title",
    "description",
    "type",
    "format",
    "default",
    "enum",
    "required",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "additionalProperties",
    "properties",
    "items",
    "example",
];

/// The document as OpenAPI 2.0.
pub(super) fn downgrade(document: &Json) -> Json {
    let mut info = document["info"].clone();
    info["license"] = json!({"name": "Apache-2.0"});
    let responses = entries(&document["components"]["responses"]).map(|(name, one)| (name.clone(), response(one))).collect::<Map<_, _>>();
    let definitions = entries(&document["components"]["schemas"]).map(|(name, one)| (name.clone(), schema(one))).collect::<Map<_, _>>();
    let paths = entries(&document["paths"]).map(|(path, item)| (path.clone(), path_item(item))).collect::<Map<_, _>>();
    json!({
        "swagger": "2.0",
        "info": info,
        "host": "localhost:8720",
        "basePath": "/",
        "schemes": ["https", "http"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "tags": document["tags"],
        "securityDefinitions": {"key": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "`Bearer `, followed by a key of this server"}},
        "security": [{"key": []}],
        "paths": paths,
        "definitions": definitions,
        "responses": responses
    })
}

fn entries(value: &Json) -> impl Iterator<Item = (&String, &Json)> {
    value.as_object().into_iter().flatten()
}

fn path_item(item: &Json) -> Json {
    entries(item).filter(|(method, _)| METHODS.contains(&method.as_str())).map(|(method, one)| (method.clone(), operation(one))).collect::<Map<_, _>>().into()
}

fn operation(operation: &Json) -> Json {
    let mut made = json!({"tags": operation["tags"], "summary": operation["summary"], "operationId": operation["operationId"]});
    if let Some(description) = operation.get("description") {
        made["description"] = description.clone();
    }
    if let Some(security) = operation.get("security") {
        made["security"] = security.clone();
    }
    let mut parameters: Vec<Json> = operation["parameters"].as_array().into_iter().flatten().map(parameter).collect();
    if let Some(body) = operation.get("requestBody") {
        let (kind, content) = content(&body["content"]);
        if kind != "application/json" {
            made["consumes"] = json!([kind]);
        }
        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema(&content["schema"])}));
    }
    if !parameters.is_empty() {
        made["parameters"] = json!(parameters);
    }
    let responses = &operation["responses"];
    let kinds = entries(responses).filter_map(|(_, one)| one.get("content")).map(|one| content(one).0).collect::<Vec<_>>();
    if let Some(kind) = kinds.into_iter().find(|kind| kind != "application/json") {
        made["produces"] = json!([if kind == "*/*" { "application/octet-stream" } else { &kind }, "application/json"]);
    }
    made["responses"] = entries(responses).map(|(status, one)| (status.clone(), response(one))).collect::<Map<_, _>>().into();
    made
}

fn parameter(parameter: &Json) -> Json {
    let mut made = json!({"name": parameter["name"], "in": parameter["in"], "required": parameter["required"] == true});
    if let Some(description) = parameter.get("description") {
        made["description"] = description.clone();
    }
    for (name, value) in entries(&schema(&parameter["schema"])) {
        made[name] = value.clone();
    }
    made
}

fn response(response: &Json) -> Json {
    if let Some(reference) = response.get("$ref") {
        return json!({"$ref": redirected(reference)});
    }
    let mut made = json!({"description": response["description"]});
    if let Some(one) = response.get("content") {
        let (kind, content) = content(one);
        made["schema"] =
            if kind == "application/json" || kind.starts_with("text/") { schema(&content["schema"]) } else { json!({"type": "string", "format": "binary"}) };
    }
    for (name, header) in entries(&response["headers"]) {
        let mut value = schema(&header["schema"]);
        value["description"] = header["description"].clone();
        made["headers"][name] = value;
    }
    made
}

/// The content to be shown: JSON where there is a choice.
fn content(content: &Json) -> (String, &Json) {
    let json = content.get("application/json").map(|one| ("application/json".to_owned(), one));
    json.or_else(|| entries(content).next().map(|(kind, one)| (kind.clone(), one))).unwrap_or((String::new(), &Json::Null))
}

fn redirected(reference: &Json) -> Json {
    let text = reference.as_str().unwrap_or_default();
    json!(text.replace("#/components/schemas/", "#/definitions/").replace("#/components/", "#/"))
}

/// A schema without what is newer. What may be null is marked as that.
fn schema(from: &Json) -> Json {
    if let Some(reference) = from.get("$ref") {
        return json!({"$ref": redirected(reference)});
    }
    if let Some(choice) = from.get("oneOf").or_else(|| from.get("anyOf")).and_then(Json::as_array) {
        // The one choice that the generator makes: something, or null.
        let some = choice.iter().find(|one| one["type"] != "null").map(schema).unwrap_or_default();
        let mut made = if some.get("$ref").is_some() { json!({"allOf": [some]}) } else { some };
        if choice.iter().any(|one| one["type"] == "null") {
            made["x-nullable"] = json!(true);
        }
        if let Some(description) = from.get("description") {
            made["description"] = description.clone();
        }
        return made;
    }
    let mut made = Map::new();
    for (name, value) in entries(from).filter(|(name, _)| KEPT.contains(&name.as_str())) {
        let value = match name.as_str() {
            "properties" => entries(value).map(|(name, one)| (name.clone(), schema(one))).collect::<Map<_, _>>().into(),
            "items" => schema(value),
            "additionalProperties" if value.is_object() => schema(value),
            "type" if value.is_array() => {
                made.insert("x-nullable".to_owned(), json!(true));
                value.as_array().into_iter().flatten().find(|kind| *kind != "null").cloned().unwrap_or_default()
            }
            _ => value.clone(),
        };
        made.insert(name.clone(), value);
    }
    if let Some(least) = from.get("exclusiveMinimum") {
        made.insert("minimum".to_owned(), least.clone());
        made.insert("exclusiveMinimum".to_owned(), json!(true));
    }
    if let Some(example) = from.get("examples").and_then(|examples| examples.get(0)) {
        made.insert("example".to_owned(), example.clone());
    }
    Json::Object(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_lose_what_is_newer() {
        let cases = [
            (json!({"type": ["string", "null"], "minLength": 1}), json!({"x-nullable": true, "type": "string", "minLength": 1})),
            (
                json!({"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/A"}], "description": "d"}),
                json!({"allOf": [{"$ref": "#/definitions/A"}], "x-nullable": true, "description": "d"}),
            ),
            (json!({"type": "number", "exclusiveMinimum": 0}), json!({"type": "number", "minimum": 0, "exclusiveMinimum": true})),
            (json!({"type": "object", "propertyNames": {"type": "string"}}), json!({"type": "object"})),
            (json!({"type": "array", "items": {"type": ["integer", "null"]}}), json!({"type": "array", "items": {"x-nullable": true, "type": "integer"}})),
        ];
        for (from, expected) in cases {
            assert_eq!(schema(&from), expected);
        }
    }

    #[test]
    fn bodies_become_parameters() {
        let made = operation(&json!({
            "tags": ["t"], "summary": "s", "operationId": "o",
            "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}],
            "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            "responses": {"200": {"description": "d", "content": {"*/*": {"schema": {"type": "string"}}}}, "404": {"$ref": "#/components/responses/NotFound"}}
        }));
        assert_eq!(made["parameters"][0], json!({"name": "id", "in": "path", "required": true, "type": "string", "minLength": 1}));
        assert_eq!(made["parameters"][1]["in"], "body");
        assert_eq!(made["consumes"], json!(["application/octet-stream"]));
        assert_eq!(
            made["responses"],
            json!({"200": {"description": "d", "schema": {"type": "string", "format": "binary"}}, "404": {"$ref": "#/responses/NotFound"}})
        );
        assert_eq!(made["produces"], json!(["application/octet-stream", "application/json"]));
    }
}
