//! Infers a JSON Schema (draft 2020-12) from one document, as a workflow's designer wants it.
//!
//! The document is the code's own work: each of its values is looked at once, and what is learnt of it is bounded.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

/// Deeper than this everything is allowed.
const MAX_DEPTH: usize = 16;
/// Items of an array that are looked at.
const MAX_ITEMS: usize = 1000;
/// Names of members that a schema tells, in all its objects together; a document may have any others.
const MAX_NAMES: usize = 2000;
/// Longer names are not told, in bytes.
const MAX_NAME_BYTES: usize = 1000;

/// The schema of a document.
pub(crate) fn infer(document: &Json) -> Json {
    let (mut shape, mut names) = (Shape::default(), MAX_NAMES);
    shape.see(document, 0, &mut names);
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    if let Json::Object(inner) = shape.schema() {
        schema.extend(inner);
    }
    Json::Object(schema)
}

/// What has been seen at one place of a document.
#[derive(Default)]
struct Shape {
    /// Deeper than [`MAX_DEPTH`].
    anything: bool,
    /// Types in the order in which they came.
    types: Vec<Type>,
}

enum Type {
    /// `null`, `boolean`, `string`.
    Plain(&'static str),
    /// `integer`, or `number` as soon as one was none.
    Number {
        whole: bool,
    },
    /// `None`: all were empty.
    Array(Option<Box<Shape>>),
    Object(Members),
}

#[derive(Default)]
struct Members {
    /// In the order in which they came.
    members: Vec<Member>,
    places: HashMap<String, usize>,
    objects: usize,
}

struct Member {
    name: String,
    shape: Shape,
    objects: usize,
}

impl Shape {
    fn see(&mut self, value: &Json, depth: usize, names: &mut usize) {
        if depth >= MAX_DEPTH {
            self.anything = true;
            return;
        }
        let fits = |seen: &Type| match (seen, value) {
            (Type::Plain(name), _) => plain(value) == Some(*name),
            (Type::Number { .. }, value) => value.is_number(),
            (Type::Array(_), value) => value.is_array(),
            (Type::Object(_), value) => value.is_object(),
        };
        let place = self.types.iter().position(fits).unwrap_or_else(|| {
            self.types.push(match value {
                Json::Number(_) => Type::Number { whole: true },
                Json::Array(_) => Type::Array(None),
                Json::Object(_) => Type::Object(Members::default()),
                other => Type::Plain(plain(other).unwrap_or_default()),
            });
            self.types.len() - 1
        });
        match (self.types.get_mut(place), value) {
            (Some(Type::Number { whole }), Json::Number(number)) => *whole &= !number.is_f64(),
            (Some(Type::Array(items)), Json::Array(values)) if !values.is_empty() => {
                let items = items.get_or_insert_default();
                values.iter().take(MAX_ITEMS).for_each(|item| items.see(item, depth + 1, names));
            }
            (Some(Type::Object(seen)), Json::Object(members)) => seen.see(members, depth, names),
            _ => {}
        }
    }

    fn schema(self) -> Json {
        if self.anything {
            return json!({});
        }
        let mut choices: Vec<Json> = self.types.into_iter().map(Type::schema).collect();
        match (choices.pop(), choices.is_empty()) {
            (None, _) => json!({}),
            (Some(only), true) => only,
            (Some(last), false) => {
                choices.push(last);
                json!({"anyOf": choices})
            }
        }
    }
}

fn plain(value: &Json) -> Option<&'static str> {
    match value {
        Json::Null => Some("null"),
        Json::Bool(_) => Some("boolean"),
        Json::String(_) => Some("string"),
        _ => None,
    }
}

impl Type {
    fn schema(self) -> Json {
        match self {
            Self::Plain(name) => json!({"type": name}),
            Self::Number { whole } => json!({"type": if whole { "integer" } else { "number" }}),
            Self::Array(None) => json!({"type": "array"}),
            Self::Array(Some(items)) => json!({"type": "array", "items": items.schema()}),
            Self::Object(members) => members.schema(),
        }
    }
}

impl Members {
    fn see(&mut self, members: &Map<String, Json>, depth: usize, names: &mut usize) {
        self.objects += 1;
        for (name, value) in members {
            let place = match self.places.get(name) {
                Some(place) => *place,
                None if *names == 0 || name.len() > MAX_NAME_BYTES => continue,
                None => {
                    *names -= 1;
                    self.places.insert(name.clone(), self.members.len());
                    self.members.push(Member { name: name.clone(), shape: Shape::default(), objects: 0 });
                    self.members.len() - 1
                }
            };
            if let Some(member) = self.members.get_mut(place) {
                member.objects += 1;
                member.shape.see(value, depth + 1, names);
            }
        }
    }

    fn schema(self) -> Json {
        let required: Vec<&str> = self.members.iter().filter(|member| member.objects == self.objects).map(|member| member.name.as_str()).collect();
        let required = json!(required);
        let properties: Map<String, Json> = self.members.into_iter().map(|member| (member.name, member.shape.schema())).collect();
        json!({"type": "object", "properties": properties, "required": required})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    /// Whether a document meets a schema of the few words that we write.
    fn meets(document: &Json, schema: &Json) -> bool {
        if let Some(choices) = schema["anyOf"].as_array() {
            return choices.iter().any(|choice| meets(document, choice));
        }
        match (schema["type"].as_str(), document) {
            (None, _) | (Some("null"), Json::Null) | (Some("boolean"), Json::Bool(_)) | (Some("string"), Json::String(_)) => true,
            (Some("number"), Json::Number(_)) => true,
            (Some("integer"), Json::Number(number)) => !number.is_f64(),
            (Some("array"), Json::Array(items)) => items.iter().all(|item| meets(item, &schema["items"])),
            (Some("object"), Json::Object(members)) => {
                let has_all = schema["required"].as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()));
                has_all && members.iter().all(|(name, member)| schema["properties"].get(name).is_none_or(|schema| meets(member, schema)))
            }
            _ => false,
        }
    }

    fn documents() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i32>().prop_map(Json::from),
            any::<f32>().prop_filter_map("finite", |number| serde_json::Number::from_f64(f64::from(number)).map(Json::Number)),
            "[a-c]{0,2}".prop_map(Json::from),
        ];
        leaf.prop_recursive(20, 200, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::vec(("[a-d]{1,2}", inner), 0..6).prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_meets_its_own_schema(document in documents()) {
            let schema = infer(&document);
            prop_assert!(meets(&document, &schema), "{document} {schema}");
        }
    }

    #[test]
    fn what_is_told_of_a_hostile_document_is_bounded() {
        // Names that never come twice, over and over: merged schema by schema, these would take minutes.
        let many: Vec<Json> = (0..1000).map(|row| Json::Object((0..100).map(|name| (format!("{row}-{name}"), json!(1))).collect())).collect();
        let wide: Vec<Json> = (0..2).map(|_| Json::Object((0..100_000).map(|name| (format!("{name:07}"), json!(1))).collect())).collect();
        let long = json!([{"x".repeat(MAX_NAME_BYTES + 1): 1, "y": 2}]);
        for document in [json!(many), json!(wide), long.clone()] {
            let schema = infer(&document);
            assert!(meets(&document, &schema));
            assert!(schema["items"]["properties"].as_object().unwrap().len() <= MAX_NAMES);
        }
        assert_eq!(infer(&long)["items"]["required"], json!(["y"]));
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
