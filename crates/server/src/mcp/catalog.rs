//! The tools as `tools/list` shows them: schemas of what they take and give, and what a client may think of them.

use std::sync::{Arc, LazyLock};

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value as Json, json};

use super::answer::FILE_FIELDS;
use crate::tools::{Gives, TOOLS};

/// The parameter that every tool takes besides its own.
pub(super) const SESSION: &str = "sessionId";

/// All tools.
pub(super) static CATALOG: LazyLock<Vec<Tool>> = LazyLock::new(|| TOOLS.iter().map(listed).collect());

fn listed(tool: &crate::tools::Tool) -> Tool {
    let annotations = ToolAnnotations::from_raw(
        Some(tool.title.to_owned()),
        Some(tool.is_read_only),
        Some(tool.is_destructive),
        Some(tool.is_idempotent),
        // Sandboxes reach nothing outside.
        Some(false),
    );
    Tool::new(tool.name, tool.description, object(input(tool)))
        .with_title(tool.title)
        .with_raw_output_schema(object(output(tool.gives)))
        .with_annotations(annotations)
}

fn object(schema: Json) -> Arc<JsonObject> {
    match schema {
        Json::Object(schema) => Arc::new(schema),
        _ => Arc::default(),
    }
}

fn input(tool: &crate::tools::Tool) -> Json {
    let mut schema = plain(&tool.input_schema(), &Json::Null);
    let session = json!({
        "type": "string", "minLength": 4, "maxLength": 128,
        "description": "The session to work in: an id that a result has told, or one of your choice of A-Z a-z 0-9 . _ : @ -. Leave it out to use your own."
    });
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        properties.insert(SESSION.to_owned(), session);
    }
    schema
}

fn output(gives: Gives) -> Json {
    let components = crate::rest::components();
    let mut schema =
        plain(&json!({"$ref": format!("#/components/schemas/{}", if gives == Gives::Execution { "Execution" } else { "ToolAnswer" })}), components);
    if gives == Gives::Files {
        if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
            properties.retain(|name, _| FILE_FIELDS.contains(&name.as_str()));
        }
        if let Some(required) = schema.get_mut("required").and_then(Json::as_array_mut) {
            required.retain(|name| name.as_str().is_some_and(|name| FILE_FIELDS.contains(&name)));
        }
    }
    // A picture's bytes stand in the content, once.
    if let Some(required) = schema.pointer_mut("/properties/outputs/items/required").and_then(Json::as_array_mut) {
        required.retain(|name| name != "data");
    }
    schema
}

/// A schema as any client can read it: without references, without types to choose from, and without what only our own description needs. What may
/// be null in it may be left out instead.
fn plain(schema: &Json, components: &Json) -> Json {
    let Some(entries) = schema.as_object() else { return schema.clone() };
    let choice = entries.get("oneOf").or_else(|| entries.get("anyOf")).and_then(Json::as_array);
    let whole = choice.and_then(|choice| choice.iter().find(|one| one.get("type").is_none_or(|kind| kind != "null")));
    let referred = entries.get("$ref").and_then(Json::as_str).and_then(|reference| components.get(reference.rsplit('/').next()?));
    let mut made = whole.or(referred).map(|other| plain(other, components)).and_then(|other| other.as_object().cloned()).unwrap_or_default();
    for (name, value) in entries {
        let value = match (name.as_str(), value) {
            ("$ref" | "oneOf" | "anyOf" | "example" | "required", _) => continue,
            // Formats that are OpenAPI's, not those of JSON Schema.
            ("format", format) if format != "date-time" => continue,
            ("type", Json::Array(kinds)) => kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default(),
            ("properties", Json::Object(properties)) => properties.iter().map(|(name, property)| (name.clone(), plain(property, components))).collect(),
            ("items", items) => plain(items, components),
            (_, value) => value.clone(),
        };
        made.insert(name.clone(), value);
    }
    if let Some(Json::Array(required)) = entries.get("required") {
        let is_whole = |name: &Json| !name.as_str().and_then(|name| entries.get("properties")?.get(name)).is_some_and(may_be_null);
        made.insert("required".to_owned(), required.iter().filter(|name| is_whole(name)).cloned().collect());
    }
    Json::Object(made)
}

fn may_be_null(schema: &Json) -> bool {
    let has_null = |kinds: &Json, is_null: fn(&Json) -> bool| kinds.as_array().is_some_and(|kinds| kinds.iter().any(is_null));
    schema.get("type").is_some_and(|kinds| has_null(kinds, |kind| kind == "null"))
        || schema.get("oneOf").is_some_and(|choice| has_null(choice, |one| one.get("type").is_some_and(|kind| kind == "null")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_as_published() {
        let text = serde_json::to_string_pretty(&*CATALOG).unwrap() + "\n";
        crate::golden("mcp-tools.json", &text);
    }

    #[test]
    fn schemas_stand_alone() {
        for tool in CATALOG.iter() {
            for schema in [&tool.input_schema, tool.output_schema.as_ref().unwrap()] {
                assert_eq!(schema["type"], "object", "{}", tool.name);
                let text = serde_json::to_string(schema).unwrap();
                assert!(!text.contains("$ref") && !text.contains("\"example\"") && !text.contains("\"null\""), "{}: {text}", tool.name);
            }
            assert_eq!(tool.input_schema["additionalProperties"], false);
            assert!(tool.input_schema["properties"][SESSION].is_object());
            let properties = tool.input_schema["properties"].as_object().unwrap();
            assert!(properties.values().all(|property| property["type"].is_string()), "{}", tool.name);
        }
    }
}
