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
    "t025.py",
    "t026.py",
    "t028.py",
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
    "t047-flock.py",
    "t047.py",
    "t048.py",
    "t049.py",
    "t050.py",
    "t051-look.py",
    "t051.py",
    "t052.py",
    "t053.py",
    "t054.py",
    "t055.py",
    "t058-look.py",
    "t058.py",
    "t060.py",
    "t061.py",
    "t062-uptime.py",
    "t062.py",
    "t063.py",
    "t064.py",
    "t067.py",
    "t068.py",
    "t070.py",
    "t070.sh",
    "t075.py",
    "t076.py",
    "t078.py",
    "t079.py",
    "t080.py",
    "t100-bomb.py",
    "t100.py",
    "t101.py",
    "t104.py",
    "t105.py",
    "t106.py",
    "t107.py",
    "t108.py",
    "t110.py",
    "t112.py",
    "t113.py",
    "t114.py",
    "t115.py",
    "t116.py",
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
