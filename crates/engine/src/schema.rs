//! Infers a JSON Schema (draft 2020-12) from one document, as a workflow's designer wants it.

use serde_json::{Map, Value as Json, json};

/// Deeper than this everything is allowed.
const MAX_DEPTH: usize = 16;
/// Items of an array that are looked at.
const MAX_ITEMS: usize = 1000;

/// The schema of a document.
pub(crate) fn infer(document: &Json) -> Json {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    if let Json::Object(inner) = shape(document, 0) {
        schema.extend(inner);
    }
    Json::Object(schema)
}

fn shape(value: &Json, depth: usize) -> Json {
    if depth >= MAX_DEPTH {
        return json!({});
    }
    match value {
        Json::Null => json!({"type": "null"}),
        Json::Bool(_) => json!({"type": "boolean"}),
        Json::Number(number) if number.is_f64() => json!({"type": "number"}),
        Json::Number(_) => json!({"type": "integer"}),
        Json::String(_) => json!({"type": "string"}),
        Json::Array(items) => match items.iter().take(MAX_ITEMS).map(|item| shape(item, depth + 1)).reduce(|one, other| merge(&one, &other)) {
            Some(items) => json!({"type": "array", "items": items}),
            None => json!({"type": "array"}),
        },
        Json::Object(members) => {
            let properties: Map<String, Json> = members.iter().map(|(name, member)| (name.clone(), shape(member, depth + 1))).collect();
            let required: Vec<&String> = members.keys().collect();
            json!({"type": "object", "properties": properties, "required": required})
        }
    }
}

/// The schema that both values meet.
fn merge(one: &Json, other: &Json) -> Json {
    if one == other {
        return one.clone();
    }
    match (one.get("type").and_then(Json::as_str), other.get("type").and_then(Json::as_str)) {
        (Some("integer"), Some("number")) | (Some("number"), Some("integer")) => json!({"type": "number"}),
        (Some("array"), Some("array")) => match (one.get("items"), other.get("items")) {
            (Some(left), Some(right)) => json!({"type": "array", "items": merge(left, right)}),
            (items, None) | (None, items) => items.map_or_else(|| json!({"type": "array"}), |items| json!({"type": "array", "items": items})),
        },
        (Some("object"), Some("object")) => merge_objects(one, other),
        _ => any_of(one, other),
    }
}

fn merge_objects(one: &Json, other: &Json) -> Json {
    let empty = Map::new();
    let properties = |schema: &Json| schema.get("properties").and_then(Json::as_object).cloned().unwrap_or_else(|| empty.clone());
    let (mut merged, right) = (properties(one), properties(other));
    for (name, schema) in right {
        let both = merged.get(&name).map_or_else(|| schema.clone(), |left| merge(left, &schema));
        merged.insert(name, both);
    }
    let names = |schema: &Json| schema.get("required").and_then(Json::as_array).cloned().unwrap_or_default();
    let others = names(other);
    let required: Vec<Json> = names(one).into_iter().filter(|name| others.contains(name)).collect();
    json!({"type": "object", "properties": merged, "required": required})
}

fn any_of(one: &Json, other: &Json) -> Json {
    let choices = |schema: &Json| schema.get("anyOf").and_then(Json::as_array).cloned().unwrap_or_else(|| vec![schema.clone()]);
    let mut all = choices(one);
    for choice in choices(other) {
        if !all.contains(&choice) {
            all.push(choice);
        }
    }
    json!({"anyOf": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_different_shapes_are_merged() {
        let schema = infer(&json!([{"a": 1, "b": "x"}, {"a": 1.5, "c": null}, {"a": 2}]));
        let item = &schema["items"];
        assert_eq!(item["properties"]["a"], json!({"type": "number"}));
        assert_eq!(item["required"], json!(["a"]));
        assert_eq!(item["properties"]["c"], json!({"type": "null"}));
        assert_eq!(infer(&json!([1, "x", 2]))["items"], json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}));
        assert_eq!(infer(&json!([]))["type"], json!("array"));
        assert_eq!(infer(&json!([[], [1]]))["items"], json!({"type": "array", "items": {"type": "integer"}}));
    }

    #[test]
    fn depth_is_bounded() {
        let mut document = json!(1);
        for _ in 0..100 {
            document = json!([document]);
        }
        assert!(infer(&document).to_string().len() < 1000);
    }
}
