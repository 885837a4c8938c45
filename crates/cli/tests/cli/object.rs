//! The execution object of `--json`, key by key.

use serde_json::{Value as Json, json};

use crate::support::Scene;

/// Keys of all executions in their order, with the types they were seen with.
const GOLDEN: &str = include_str!("object.golden.txt");

/// Keys with types, in order of first sight.
#[derive(Default)]
struct Seen(Vec<(String, Vec<&'static str>)>);

impl Seen {
    fn note(&mut self, path: &str, kind: &'static str) {
        let place = self.0.iter().position(|(known, _)| known == path).unwrap_or_else(|| {
            self.0.push((path.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        let kinds = &mut self.0[place].1;
        if !kinds.contains(&kind) {
            kinds.push(kind);
            kinds.sort_unstable();
        }
    }

    fn collect(&mut self, value: &Json, path: &str) {
        // What the code itself chose may be anything.
        if matches!(path, "output" | "result.json") {
            return self.note(path, "any");
        }
        let kind = match value {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(number) if number.is_f64() => "number",
            Json::Number(_) => "integer",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        };
        if !path.is_empty() {
            self.note(path, kind);
        }
        match value {
            Json::Object(members) if path != "outputSchema" => {
                for (name, member) in members {
                    self.collect(member, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") });
                }
            }
            Json::Array(items) => items.iter().for_each(|item| self.collect(item, &format!("{path}[]"))),
            _ => {}
        }
    }

    fn lines(&self) -> String {
        self.0.iter().map(|(path, kinds)| format!("{path}: {}\n", kinds.join(" | "))).collect()
    }
}

#[test]
fn keys_and_types_are_those_of_the_contract() {
    let scene = Scene::new();
    let mut seen = Seen::default();
    let full = scene.python_json("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nopen('made.txt', 'w').write('x')\nprint('[1]')\n{'a': 1}");
    let others = [scene.python_json("1/0"), scene.shell_json("exit 3"), scene.shell_json("echo text"), scene.python_json("object()")];
    seen.collect(&full.0, "");
    others.iter().for_each(|execution| seen.collect(&execution.0, ""));
    assert!(seen.lines() == GOLDEN, "if this is meant, write it into object.golden.txt:\n{}", seen.lines());
    let keys = |json: &Json| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for execution in others {
        let optional = |key: &String| matches!(key.as_str(), "output" | "outputSchema");
        let expected: Vec<String> = keys(&full.0).into_iter().filter(|key| !optional(key)).collect();
        assert_eq!(keys(&execution.0), expected, "every key is always there but `output` and its schema");
    }
}

#[test]
fn ids_times_and_limits_are_as_said() {
    let execution = Scene::limited("processes = 77\ntmp_bytes = 1048576\ncpus = 0.5").call(["run", "--json", "--timeout", "33", "-"], "1").execution();
    for (key, prefix) in [("id", "exe_"), ("sessionId", "ses_")] {
        let digits = execution.text(key).strip_prefix(prefix).unwrap_or_else(|| panic!("{key}: {}", execution.0));
        assert!(digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "128 bits: {digits}");
    }
    assert_eq!(execution.text("isolation"), "namespace");
    let started = execution.text("startedAt");
    assert!(started.len() == 24 && started.ends_with('Z') && started.as_bytes()[10] == b'T', "RFC 3339: {started}");
    let limits = json!({
        "wallSeconds": 33, "cpuSeconds": 120, "cpus": 0.5, "memoryBytes": 536_870_912, "processes": 77, "openFiles": 1024,
        "workspaceBytes": 268_435_456, "workspaceInodes": 100_000, "tmpBytes": 1_048_576, "outputBytes": 16_777_216,
    });
    assert_eq!(execution.0["limits"], limits);
}

#[test]
fn a_json_document_on_stdout_is_the_output() {
    let scene = Scene::new();
    let execution = scene.python_json("import json\nprint(json.dumps({'rows': [{'a': 1, 'b': 'x'}, {'a': 2.5}], 'none': None}, indent=1))\n'a value'");
    assert_eq!(execution.0["output"], json!({"rows": [{"a": 1, "b": "x"}, {"a": 2.5}], "none": null}), "stdout comes before the value");
    let expected = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "rows": {"type": "array", "items": {
                "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string"}}, "required": ["a"],
            }},
            "none": {"type": "null"},
        },
        "required": ["rows", "none"],
    });
    assert_eq!(execution.0["outputSchema"], expected);
    assert_eq!(scene.shell_json("echo '[1, 2]'").0["output"], json!([1, 2]), "from a command, too");
    assert_eq!(scene.python_json("{'a': (1, 2)}").0["output"], json!({"a": [1, 2]}), "else the value");
    assert!(scene.python_json("print('{\"a\": 1} and more')").0.get("output").is_none(), "else there is none");
    assert!(scene.python_json("print('text')\n{'a': 1}").0.get("output").is_none(), "text on stdout is no document");
    assert!(scene.python_json("object()").0.get("output").is_none(), "nor is a value without JSON form");
}

#[test]
fn values_have_a_text_and_where_possible_a_json_form() {
    let scene = Scene::new();
    for (code, text, form) in [
        ("3", "3", json!(3)),
        ("'ü'", "'ü'", json!("ü")),
        ("[1, None, {'k': 2.5}]", "[1, None, {'k': 2.5}]", json!([1, null, {"k": 2.5}])),
        ("float('nan')", "nan", Json::Null),
        ("{1, 2}.__class__", "set", Json::Null),
        ("import numpy as np; np.arange(3)", "array([0, 1, 2])", json!([0, 1, 2])),
    ] {
        let execution = scene.python_json(code);
        assert_eq!((execution.outcome(), execution.0["result"]["text"].as_str()), ("completed", Some(text)), "{code}: {}", execution.0);
        assert_eq!(execution.0["result"]["json"], form, "{code}: {}", execution.0);
    }
    assert!(scene.python_json("x = 1").0["result"].is_null(), "no value");
}

#[test]
fn text_and_json_tell_the_same() {
    let scene = Scene::new();
    let code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nopen('made.csv', 'w').write('a,b')\nimport matplotlib.pyplot as plt\nplt.bar([1, 2], [3, 4])\nraise KeyError('gone')";
    let text = scene.python(code);
    let execution = scene.python_json(code);
    assert_eq!(text.text(), execution.stdout());
    let told = &text.stderr;
    assert!(told.starts_with(execution.text("stderr")), "{told}");
    assert!(told.contains(execution.0["error"]["traceback"].as_str().unwrap()), "{told}");
    assert!(told.contains(&format!("belljar: {}\n", execution.outcome())), "{told}");
    for artifact in execution.0["artifacts"].as_array().unwrap() {
        let line = format!("saved {} ({}, {} bytes)\n", artifact["url"].as_str().unwrap(), artifact["mediaType"].as_str().unwrap(), artifact["sizeBytes"]);
        assert!(told.contains(&line), "{line}: {told}");
    }
    for output in execution.0["outputs"].as_array().unwrap() {
        assert!(told.contains(&format!("belljar-out/{} ({})\n", output["name"].as_str().unwrap(), output["type"].as_str().unwrap())), "{output}: {told}");
    }
    assert_eq!((execution.artifacts(), execution.shown()), (vec!["made.csv"], vec!["image/png"]), "{}", execution.0);
}

#[test]
fn no_variable_inside_tells_of_the_outside() {
    let scene = Scene::new();
    let outside =
        scene.command(["run"]).get_envs().filter(|(name, _)| name.to_string_lossy().contains("KEY") || name.to_string_lossy().contains("TOKEN")).count();
    assert_eq!(outside, 3, "outside there are such variables");
    for text in [scene.python("import os\nfor pair in os.environ.items(): print(pair)").text(), scene.shell("env").text(), scene.python("!env").text()] {
        assert!(text.contains("PATH"), "variables are listed: {text}");
        for line in text.lines() {
            let upper = line.to_uppercase();
            assert!(!["BELLJAR", "KEY", "TOKEN", "SECRET"].iter().any(|word| upper.contains(word)), "{line}");
        }
    }
}
