//! The description as a page: one document without scripts and without anything from elsewhere.

use std::fmt::Write;

use base64::Engine;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("docs.css");

/// The page, and the policy under which it is shown.
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: String,
}

/// Renders a description.
pub(super) fn render(document: &Json) -> Page {
    let mut html = String::new();
    let info = &document["info"];
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} API</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>{title} <span class=\"version\">{version}</span></h1><p>{description}</p>\
         <p class=\"links\"><a href=\"/openapi.json\">OpenAPI 3.1</a> <a href=\"/openapi-2.json\">OpenAPI 2.0</a></p></header>\n",
        title = text(&info["title"]),
        version = text(&info["version"]),
        description = prose(&info["description"]),
    );
    contents(&mut html, document);
    html.push_str("<main>\n");
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or_default();
        let _ = write!(html, "<section id=\"{0}\">\n<h2>{0}</h2>\n<p>{1}</p>\n", text(&tag["name"]), prose(&tag["description"]));
        for (path, method, operation) in operations(document, name) {
            route(&mut html, document, path, method, operation);
        }
        html.push_str("</section>\n");
    }
    errors(&mut html, document);
    schemas(&mut html, document);
    html.push_str("</main>\n</body>\n</html>\n");
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    Page { html, policy }
}

/// Routes of a group: path, method, operation.
fn operations<'a>(document: &'a Json, tag: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a Json)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let all = paths.flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(method, operation)| (path.as_str(), method.as_str(), operation)));
    // What is read without its body needs no words of its own.
    all.filter(move |(_, method, operation)| operation["tags"][0] == tag && *method != "head")
}

fn contents(html: &mut String, document: &Json) {
    html.push_str("<nav aria-label=\"Contents\"><ul>\n");
    for tag in document["tags"].as_array().into_iter().flatten() {
        let _ = write!(html, "<li><a href=\"#{0}\">{0}</a><ul>", text(&tag["name"]));
        for (_, method, operation) in operations(document, tag["name"].as_str().unwrap_or_default()) {
            let _ = write!(
                html,
                "<li><a href=\"#op-{}\"><span class=\"method {method}\">{method}</span> {}</a></li>",
                text(&operation["operationId"]),
                text(&operation["summary"])
            );
        }
        html.push_str("</ul></li>\n");
    }
    html.push_str("<li><a href=\"#errors\">errors</a></li><li><a href=\"#schemas\">schemas</a></li></ul></nav>\n");
}

fn route(html: &mut String, document: &Json, path: &str, method: &str, operation: &Json) {
    let _ = write!(
        html,
        "<article id=\"op-{}\">\n<h3>{}</h3>\n<p class=\"route\"><span class=\"method {method}\">{method}</span> <code>{}</code></p>\n",
        text(&operation["operationId"]),
        text(&operation["summary"]),
        broken(path)
    );
    if let Some(description) = operation.get("description") {
        let _ = writeln!(html, "<p>{}</p>", prose(description));
    }
    let parameters: Vec<&Json> = operation["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        html.push_str("<h4>Parameters</h4>\n<dl>\n");
        for parameter in parameters {
            let required = if parameter["required"] == true { " <em>required</em>" } else { "" };
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            let (kind, bounds) = (kind(&parameter["schema"]), bounds(&parameter["schema"]));
            let _ =
                writeln!(html, "<dt><code>{name}</code> <small>{place} · {kind}{bounds}</small>{required}</dt><dd>{}</dd>", prose(&parameter["description"]));
        }
        html.push_str("</dl>\n");
    }
    if let Some(content) = operation["requestBody"]["content"].as_object() {
        for (media_type, one) in content {
            let _ = writeln!(html, "<h4>Body <small>{}</small></h4>", escape(media_type));
            let schema = resolve(document, &one["schema"]);
            if schema["properties"].is_object() { properties(html, schema) } else { html.push_str("<p>The bytes as they are.</p>\n") }
        }
    }
    html.push_str("<h4>Answers</h4>\n<dl>\n");
    for (status, response) in operation["responses"].as_object().into_iter().flatten().filter(|(_, response)| response.get("$ref").is_none()) {
        let forms = response["content"].as_object().into_iter().flatten();
        let forms: Vec<String> = forms.map(|(media_type, one)| format!("{} · {}", escape(media_type), kind(&one["schema"]))).collect();
        let _ = writeln!(html, "<dt><code>{}</code> <small>{}</small></dt><dd>{}</dd>", escape(status), forms.join(", "), prose(&response["description"]));
    }
    let more = if operation.get("security").is_some() { "" } else { "<dt><code>4xx</code> <code>5xx</code></dt><dd><a href=\"#errors\">Errors</a></dd>" };
    let _ = writeln!(html, "{more}</dl>");
    example(html, document, path, method, operation);
    html.push_str("</article>\n");
}

/// A call with curl.
fn example(html: &mut String, document: &Json, path: &str, method: &str, operation: &Json) {
    let path = path.replace("{id}", "analysis-1").replace("{exe}", "exe_3f1c9ab27de54c08a1b2c3d4e5f60718").replace("{path}", "data.csv");
    let mut command = String::from("curl");
    if operation.get("security").is_none() {
        command.push_str(" -H \"Authorization: Bearer $KEY\"");
    }
    if let Some(content) = operation["requestBody"]["content"].as_object() {
        if let Some(one) = content.get("application/json") {
            let body = &resolve(document, &one["schema"])["example"];
            // Within single quotes of a shell, a single quote stands alone.
            let body = body.to_string().replace('\'', "'\\''");
            let _ = write!(command, " \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'");
        } else {
            command.push_str(" \\\n  -T data.csv");
        }
    } else if method != "get" {
        let _ = write!(command, " -X {}", method.to_uppercase());
    }
    let _ = write!(command, " \\\n  \"$URL{path}\"");
    let _ = writeln!(html, "<h4>Example</h4>\n<pre tabindex=\"0\"><code>{}</code></pre>", escape(&command));
}

fn errors(html: &mut String, document: &Json) {
    html.push_str("<section id=\"errors\">\n<h2>errors</h2>\n<p>Every route that needs a key may answer with these, all of one form:</p>\n");
    let example = &document["components"]["schemas"]["ErrorBody"]["example"];
    let _ = writeln!(html, "<pre tabindex=\"0\"><code>{}</code></pre>\n<dl>", escape(&serde_json::to_string_pretty(example).unwrap_or_default()));
    for (status, name, description) in super::ERRORS {
        let _ = writeln!(html, "<dt><code>{status}</code> <small>{}</small></dt><dd>{}</dd>", escape(name), escape(description));
    }
    html.push_str("</dl>\n</section>\n");
}

fn schemas(html: &mut String, document: &Json) {
    html.push_str("<section id=\"schemas\">\n<h2>schemas</h2>\n");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let name = escape(name);
        let _ = write!(html, "<article id=\"schema-{name}\">\n<h3>{name}</h3>\n<p>{}</p>\n", prose(&schema["description"]));
        if schema["properties"].is_object() {
            properties(html, schema);
        } else {
            let _ = writeln!(html, "<p>{}</p>", kind(schema));
        }
        if let Some(example) = schema.get("example") {
            let pretty = serde_json::to_string_pretty(example).unwrap_or_default();
            let _ = writeln!(html, "<details><summary>Example</summary><pre tabindex=\"0\"><code>{}</code></pre></details>", escape(&pretty));
        }
        html.push_str("</article>\n");
    }
    html.push_str("</section>\n");
}

fn properties(html: &mut String, schema: &Json) {
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    html.push_str("<dl>\n");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let mark = if required(name) { " <em>required</em>" } else { "" };
        let (kind, bounds) = (kind(property), bounds(property));
        let _ = writeln!(html, "<dt><code>{}</code> <small>{kind}{bounds}</small>{mark}</dt><dd>{}</dd>", escape(name), prose(&property["description"]));
    }
    html.push_str("</dl>\n");
}

fn resolve<'a>(document: &'a Json, schema: &'a Json) -> &'a Json {
    let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

/// What a schema is, in a few words of HTML.
fn kind(schema: &Json) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return format!("<a href=\"#schema-{0}\">{0}</a>", escape(name));
    }
    if let Some(choice) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        return choice.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(names) = schema["enum"].as_array() {
        return names.iter().map(|name| format!("<code>{}</code>", text(name))).collect::<Vec<_>>().join(" ");
    }
    match &schema["type"] {
        Json::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        Json::String(name) if name == "array" => format!("array of {}", kind(&schema["items"])),
        Json::String(name) => escape(name),
        _ => "anything".to_owned(),
    }
}

/// The bounds of a schema, in a few words of HTML.
fn bounds(schema: &Json) -> String {
    let mut words = String::new();
    let known = [("minimum", "from"), ("maximum", "to"), ("maxLength", "at most"), ("maxItems", "at most"), ("default", "default")];
    for (name, word) in known {
        if let Some(value) = schema.get(name).filter(|value| **value != 0) {
            let unit = if name == "maxLength" { " characters" } else { "" };
            let _ = write!(words, "{} {word} {}{unit}", if words.is_empty() { " ·" } else { "," }, escape(&value.to_string()));
        }
    }
    words
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| if value.is_null() { String::new() } else { escape(&value.to_string()) }, escape)
}

/// Words with code between backticks.
fn prose(value: &Json) -> String {
    let escaped = text(value);
    let mut html = String::new();
    for (number, piece) in escaped.split('`').enumerate() {
        if number % 2 == 1 {
            let _ = write!(html, "<code>{piece}</code>");
        } else {
            html.push_str(piece);
        }
    }
    html
}

/// A path that may be broken after its slashes.
fn broken(path: &str) -> String {
    escape(path).replace('/', "/<wbr>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = render(&super::super::DOCUMENT);
        for foreign in ["<script", "http://", "https://", "src=", "@import", "url(", "style=\"", " on"] {
            let hits = page.html.matches(foreign).count();
            assert!(hits == 0 || foreign == " on", "{foreign}: {hits}");
        }
        assert!(page.policy.contains("default-src 'none'; style-src 'sha256-"));
        assert!(axum::http::HeaderValue::from_str(&page.policy).is_ok());
        for tool in &crate::tools::TOOLS {
            assert!(page.html.contains(&format!("id=\"op-{}\"", tool.name)));
        }
    }

    #[test]
    fn what_is_described_cannot_become_markup() {
        let document = json!({
            "info": {"title": "<b>", "version": "\"", "description": "a `<i>` b"}, "tags": [{"name": "t", "description": "&"}],
            "paths": {"/<x>": {"get": {"tags": ["t"], "operationId": "'", "summary": "<s>", "responses": {"200": {"description": "<d>"}}}}}
        });
        let html = render(&document).html;
        for raw in ["<b>", "<i>", "<x>", "<s>", "<d>", "'\""] {
            assert!(!html.contains(raw), "{raw}");
        }
        assert!(html.contains("a <code>&lt;i&gt;</code> b"));
    }
}
