//! The probes, embedded: the suite needs no source tree when it runs.

macro_rules! probes {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("probes/", $name)))),*] };
}

const PROBES: &[(&str, &str)] = probes![
    "calls.py",
    "foreign.py",
    "hook.py",
    "hook.sh",
    "paths.py",
    "paths.sh",
    "prelude.py",
    "prelude.sh",
    "t001.py",
    "t002.py",
    "t003.py",
    "t004.py",
    "t005.py",
    "t006.py",
    "t007.py",
    "t009.py",
    "t012.py",
    "t013.py",
    "t014.py",
    "t016.py",
    "t017.py",
    "t018.py",
    "t019.py",
    "t020.py",
    "t021.py",
    "t022.py",
    "t030.py",
    "t030.sh",
    "t031.py",
    "t032.py",
    "t033.py",
    "t035.py",
    "t036.py",
    "t037.py",
    "t039.py",
    "t040.py",
    "t042.py",
    "t043.py",
    "t044.py",
    "t045.py",
    "t046.py",
    "t070.py",
    "t070.sh",
    "t075.py",
    "t076.py",
    "t078.py",
    "t079.py",
    "t080.py",
    "works.py",
];

/// The text of a probe.
pub(crate) fn text(name: &str) -> &'static str {
    PROBES.iter().find(|(known, _)| *known == name).map_or_else(|| panic!("no probe {name}"), |(_, text)| text)
}

/// A probe in Python with its parameters.
pub(crate) fn python(name: &str, parameters: &serde_json::Map<String, serde_json::Value>) -> String {
    let quoted = serde_json::to_string(&serde_json::Value::Object(parameters.clone()).to_string()).expect("a string");
    // A JSON string is a Python string, but for escaped surrogates, which do not occur here.
    let foreign = if ["t002.py"].contains(&name) { text("foreign.py") } else { "" };
    format!("import json\nP = json.loads({quoted})\n{}\n{foreign}\n{}", text("prelude.py"), text(name))
}

/// A probe for bash with its arguments, which need no quoting.
pub(crate) fn bash(name: &str, arguments: &[String]) -> String {
    let report = r#"printf '{"attempts":{%s},"facts":{}}\n' "$attempts""#;
    format!("set -- {}\n{}\n{}\n{report}\n", arguments.join(" "), text("prelude.sh"), text(name))
}
