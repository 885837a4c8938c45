//! What was seen of an execution, whatever the surface.

use serde_json::Value as Json;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// In the surface's own word.
    pub(crate) outcome: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Stderr ends with what the execution failed of.
    pub(crate) error_in_stderr: bool,
    pub(crate) result: Option<Value>,
    /// The value's JSON form.
    pub(crate) json: Json,
    pub(crate) output: Option<Json>,
    pub(crate) schema: Option<Json>,
    /// Media types of pictures.
    pub(crate) pictures: Vec<String>,
    /// Media types of all else that was shown.
    pub(crate) shown: Vec<String>,
    /// Path and media type.
    pub(crate) artifacts: Vec<String>,
    pub(crate) limits: Vec<String>,
    pub(crate) state_lost: bool,
    /// Name and message.
    pub(crate) error: Option<String>,
    pub(crate) traceback: String,
    pub(crate) exit: Option<i64>,
    /// Names of streams of which something is left out.
    pub(crate) truncated: Vec<String>,
}

/// The value of the last expression.
#[derive(Debug)]
pub(crate) enum Value {
    /// As Python writes it.
    Text(String),
    /// A number or truth as such, text without its quotes, anything else as Python writes it.
    Typed(Json),
}

impl Value {
    /// Whether it is the value that Python writes so.
    pub(crate) fn is(&self, written: &str) -> bool {
        match self {
            Self::Text(text) => text == written,
            Self::Typed(Json::String(text)) => {
                let is_typed = matches!(written, "True" | "False") || written.parse::<f64>().is_ok_and(f64::is_finite);
                (text == written && !is_typed) || format!("'{text}'") == written
            }
            Self::Typed(Json::Bool(truth)) => written == if *truth { "True" } else { "False" },
            Self::Typed(other) => serde_json::to_string(other).is_ok_and(|text| text == written),
        }
    }

    /// The text of it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Typed(Json::String(text)) => text.clone(),
            Self::Typed(other) => other.to_string(),
        }
    }
}

impl Seen {
    /// From an execution object.
    pub(crate) fn of_object(object: &Json) -> Self {
        let text = |name: &str| object[name].as_str().unwrap_or_else(|| panic!("`{name}` is a text: {object}")).to_owned();
        let truth = |name: &str| object[name].as_bool().unwrap_or_else(|| panic!("`{name}` is true or false: {object}"));
        let list = |name: &str| object[name].as_array().unwrap_or_else(|| panic!("`{name}` is a list: {object}")).clone();
        let kinds = list("outputs").into_iter().map(|output| output["type"].as_str().unwrap().to_owned());
        let (pictures, shown) = kinds.partition(|kind| kind.starts_with("image/"));
        let artifact = |artifact: Json| format!("{} {}", artifact["path"].as_str().unwrap(), artifact["mediaType"].as_str().unwrap());
        let error = &object["error"];
        Self {
            outcome: text("outcome"),
            stdout: text("stdout"),
            stderr: text("stderr"),
            error_in_stderr: false,
            result: object["result"]["text"].as_str().map(|text| Value::Text(text.to_owned())),
            json: object["result"]["json"].clone(),
            output: object.get("output").cloned(),
            schema: object.get("outputSchema").cloned(),
            pictures,
            shown,
            artifacts: list("artifacts").into_iter().map(artifact).collect(),
            limits: list("limitsHit").iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
            state_lost: truth("stateLost"),
            error: error.is_object().then(|| format!("{}: {}", error["name"].as_str().unwrap(), error["message"].as_str().unwrap())),
            traceback: error["traceback"].as_str().unwrap_or_default().to_owned(),
            exit: object["exitCode"].as_i64(),
            truncated: ["stdout", "stderr"].into_iter().filter(|name| truth(&format!("{name}Truncated"))).map(str::to_owned).collect(),
        }
    }
}

#[test]
fn typed_values_are_those_that_python_writes() {
    use serde_json::json;
    let is = |typed: Json, written: &str| Value::Typed(typed).is(written);
    assert!(is(json!(42), "42") && is(json!(0.5), "0.5") && is(json!(true), "True") && is(json!("ab"), "'ab'") && is(json!("[1, 'a']"), "[1, 'a']"));
    assert!(is(json!("nan"), "nan") && is(json!("42"), "'42'") && is(json!("True"), "'True'"));
    assert!(!is(json!("42"), "42") && !is(json!(42), "'42'") && !is(json!(1), "True") && !is(json!("True"), "True") && !is(json!("ab"), "'abc'"));
    assert!(Value::Text("'ab'".to_owned()).is("'ab'") && !Value::Text("ab".to_owned()).is("'ab'"));
}
