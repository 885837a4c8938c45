//! The description of the native routes: OpenAPI 3.1, made from the code, and what is made of it.
#![expect(clippy::indexing_slicing, reason = "of our own description alone, as JSON: what is not there reads as null, and a test makes all of it")]

mod docs;
mod downgrade;

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json, json};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use super::call::Call;
use super::view::schema::{ErrorBody, ErrorCode, ErrorDetail};
use crate::error::ApiError;
use crate::tools::{TOOLS, ToolAnswer};

/// Errors that every route behind the key may answer with: status, name, what it says.
const ERRORS: [(&str, &str, &str); 11] = [
    ("400", "InvalidRequest", "The request is not as it has to be"),
    ("401", "Unauthenticated", "No valid key was given"),
    ("403", "Denied", "The key does not allow this"),
    ("404", "NotFound", "Something named does not exist, or is not the caller's"),
    ("408", "TimedOut", "The body of the request did not come in time"),
    ("409", "Conflict", "It cannot be done as things stand"),
    ("413", "TooLarge", "It is larger than is allowed"),
    ("421", "Misdirected", "The server does not answer to the name it was called by"),
    ("429", "Limit", "Too many at once, or too often: try again after the time that is told"),
    ("500", "Internal", "The service failed"),
    ("503", "Unavailable", "The host cannot do it now"),
];

/// Routes that read bytes.
const DOWNLOADS: [&str; 3] = ["/v1/sessions/{id}/files/{path}", "/v1/sessions/{id}/executions/{exe}/stdout", "/v1/sessions/{id}/executions/{exe}/stderr"];

/// Groups of routes, in the order of the documentation.
const TAGS: [(&str, &str); 7] = [
    ("sessions", "A session is a caller's lease of one sandbox: its variables, imports, files and working directory last from call to call."),
    ("executions", "Code that is run, and what it came to. Executions of one session run in the order in which they were asked for."),
    ("files", "The session's folder /mnt/data. Names are bytes: what is percent-encoded is decoded once and never interpreted."),
    ("tools", "Eight tools for a model, each with everything in words besides the data."),
    ("pools", "What sessions are made of."),
    ("admin", "For operators: keys, the record, and how everything is doing."),
    ("operations", "Whether the service is well, and its own description."),
];

#[derive(OpenApi)]
#[openapi(components(schemas(ErrorBody, ErrorDetail, ErrorCode, crate::tools::Lines, crate::tools::Match)))]
struct Base;

/// OpenAPI 3.1.
static DOCUMENT: LazyLock<Json> = LazyLock::new(build);
static DOCUMENT_TEXT: LazyLock<String> = LazyLock::new(|| pretty(&DOCUMENT));
/// OpenAPI 2.0, for who reads nothing newer.
static DOCUMENT_2: LazyLock<Json> = LazyLock::new(|| downgrade::downgrade(&DOCUMENT));
static PAGE: LazyLock<docs::Page> = LazyLock::new(|| docs::render(&DOCUMENT));

/// The schemas that the description refers to, by name.
pub(crate) fn components() -> &'static Json {
    &DOCUMENT["components"]["schemas"]
}

fn pretty(document: &Json) -> String {
    serde_json::to_string_pretty(document).map(|text| text + "\n").unwrap_or_default()
}

/// Get this description
pub(crate) async fn openapi(call: Call) -> Result<Response, ApiError> {
    call.query(&[])?;
    Ok(json_answer(DOCUMENT_TEXT.clone()))
}

/// The same as OpenAPI 2.0, with the name that the caller knows this server by: importers ask for one.
pub(crate) async fn openapi_2(call: Call, headers: HeaderMap) -> Result<Response, ApiError> {
    call.query(&[])?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| is_plain_host(host));
    let mut document = DOCUMENT_2.clone();
    if let (Some(host), Some(document)) = (host, document.as_object_mut()) {
        document.insert("host".to_owned(), json!(host));
    }
    Ok(json_answer(pretty(&document)))
}

/// Whether a host may be repeated to who named it.
pub(crate) fn is_plain_host(host: &str) -> bool {
    !host.is_empty() && host.len() <= 255 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
}

/// The documentation page.
pub(crate) async fn docs(call: Call) -> Result<Response, ApiError> {
    call.query(&[])?;
    let mut response = PAGE.html.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Without a policy that can be told, the page is not given away.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&PAGE.policy).unwrap_or(HeaderValue::from_static("default-src 'none'")));
    Ok(response)
}

fn json_answer(text: String) -> Response {
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn build() -> Json {
    let mut api = Base::openapi();
    api.merge(super::described().into_openapi());
    api.merge(crate::admin::described().into_openapi());
    let mut schemas = Vec::new();
    <ToolAnswer<'static> as ToSchema>::schemas(&mut schemas);
    schemas.push((ToolAnswer::name().into_owned(), ToolAnswer::schema()));
    let mut document = serde_json::to_value(api).unwrap_or_default();
    for (name, schema) in schemas {
        document["components"]["schemas"][name] = json!(schema);
    }
    document["info"] = json!({
        "title": "Belljar",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Runs code of AI agents in sandboxes: sessions that keep their state, files in and out, and eight tools for a model. \
                        Every request needs a key, sent as `Authorization: Bearer <key>`.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    });
    document["servers"] = json!([{"url": "/", "description": "This server"}]);
    document["tags"] = TAGS.iter().map(|(name, description)| json!({"name": name, "description": description})).collect();
    document["security"] = json!([{"key": []}]);
    document["components"]["securitySchemes"] = json!({
        "key": {"type": "http", "scheme": "bearer", "description": "A key of this server, or a token of the issuer that is configured"}
    });
    document["components"]["responses"] = ERRORS.iter().map(|(_, name, description)| ((*name).to_owned(), error_response(name, description))).collect();
    add_tools(&mut document);
    document["paths"] = finish_paths(document.get("paths").and_then(Json::as_object));
    add_operations(&mut document);
    tidy(&mut document);
    document
}

/// Descriptions as paragraphs, whose lines are not those of the source; and beside a choice instead of in it.
fn tidy(value: &mut Json) {
    match value {
        Json::Object(entries) => {
            let choice = entries.get_mut("oneOf").and_then(Json::as_array_mut);
            if let Some(description) = choice.and_then(|choice| choice.iter_mut().find_map(|one| one.as_object_mut()?.shift_remove("description"))) {
                entries.insert("description".to_owned(), description);
            }
            if let Some(Json::String(description)) = entries.get_mut("description") {
                *description = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
            }
            entries.values_mut().for_each(tidy);
        }
        Json::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// An error as it is answered.
fn error_response(name: &str, description: &str) -> Json {
    let mut response = json!({"description": description, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}});
    let header = |description: &str, kind: &str| json!({"description": description, "schema": {"type": kind}});
    match name {
        "Limit" | "Unavailable" => response["headers"]["Retry-After"] = header("Seconds after which to try again", "integer"),
        "Unauthenticated" => response["headers"]["WWW-Authenticate"] = header("How to authenticate", "string"),
        _ => {}
    }
    response
}

/// Each tool as a route of its own, which clients can call like any other.
fn add_tools(document: &mut Json) {
    for tool in &TOOLS {
        let (schema, name) = (tool.input_schema(), format!("{}Params", tool.name));
        document["components"]["schemas"][&name] = schema;
        document["paths"][format!("/v1/sessions/{{id}}/tools/{}", tool.name)]["post"] = json!({
            "tags": ["tools"],
            "summary": tool.title,
            "description": tool.description,
            "operationId": tool.name,
            "x-annotations": {"readOnlyHint": tool.is_read_only, "destructiveHint": tool.is_destructive, "idempotentHint": tool.is_idempotent},
            "parameters": [
                {"name": "id", "in": "path", "required": true, "description": "The session's id", "schema": {"type": "string"}},
                {"name": "pool", "in": "query", "description": "The pool, where it is not the default one", "schema": {"type": "string"}}
            ],
            "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}}},
            "responses": {"200": {
                "description": "What it came to", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ToolAnswer"}}}
            }}
        });
    }
}

/// What is the same for all routes and would be said everywhere: errors, and what the generator says in its own way.
fn finish_paths(paths: Option<&Map<String, Json>>) -> Json {
    let mut finished = Map::new();
    for (path, item) in paths.into_iter().flatten() {
        // The router's mark for a path with slashes.
        let path = path.replace("{*", "{");
        let mut item = item.clone();
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            finish(&path, method, operation);
        }
        finished.insert(path, item);
    }
    Json::Object(finished)
}

fn finish(path: &str, method: &str, operation: &mut Json) {
    for (status, name, _) in ERRORS {
        operation["responses"][status] = json!({"$ref": format!("#/components/responses/{name}")});
    }
    if DOWNLOADS.contains(&path) && matches!(method, "get" | "head") {
        operation["responses"]["304"] = json!({"description": "The caller has it already"});
        operation["responses"]["416"] = error_response("", "The range is not within the file");
    }
    for parameter in operation.get_mut("parameters").and_then(Json::as_array_mut).into_iter().flatten() {
        // A parameter that may be left out is not for that null.
        if let Some(kinds) = parameter["schema"].get("type").and_then(Json::as_array) {
            parameter["schema"]["type"] = kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default();
        }
        if parameter["in"] == "path" {
            parameter["schema"]["minLength"] = json!(1);
        }
    }
    // What may make a session takes an id of ours only.
    let makes = path == "/v1/sessions/{id}/executions" && method == "post" || path.contains("/tools/");
    if let Some(id) = operation.get_mut("parameters").and_then(|parameters| parameters.get_mut(0)).filter(|_| makes) {
        id["schema"] = json!({"type": "string", "minLength": 4, "maxLength": 128, "pattern": "^[A-Za-z0-9._:@-]{4,128}$"});
    }
    if method == "head" {
        let id = operation["operationId"].as_str().unwrap_or_default().replace("read", "check");
        operation["operationId"] = json!(id);
        operation["summary"] = json!(operation["summary"].as_str().unwrap_or_default().replace("Read", "Check"));
        for (_, response) in operation.get_mut("responses").and_then(Json::as_object_mut).into_iter().flatten() {
            let description = response.get("description").cloned().unwrap_or(json!("As of GET, without a body"));
            *response = json!({"description": description});
        }
    }
}

/// Routes that other modules answer.
fn add_operations(document: &mut Json) {
    let text = |kind: &str| json!({kind: {"schema": {"type": "string"}}});
    let status = json!({"application/json": {"schema": {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}}});
    let object = json!({"application/json": {"schema": {"type": "object"}}});
    let routes = [
        ("/healthz", "alive", "Whether the service lives", status.clone()),
        ("/readyz", "ready", "Whether the default pool has a sandbox ready", status.clone()),
        ("/metrics", "metrics", "Metrics, as Prometheus reads them", text("text/plain")),
        ("/openapi.json", "openapi", "This description", object.clone()),
        ("/openapi-2.json", "openapi2", "This description as OpenAPI 2.0", object),
        ("/docs", "docs", "This description as a page", text("text/html")),
    ];
    for (path, id, summary, content) in routes {
        let mut operation =
            json!({"tags": ["operations"], "summary": summary, "operationId": id, "responses": {"200": {"description": "It is as told", "content": content}}});
        if matches!(path, "/healthz" | "/readyz") {
            operation["security"] = json!([]);
            operation["responses"]["503"] = json!({"description": "It is not, or not yet", "content": status});
            operation["responses"]["421"] = json!({"$ref": "#/components/responses/Misdirected"});
        } else {
            for (status, name, _) in ERRORS {
                operation["responses"][status] = json!({"$ref": format!("#/components/responses/{name}")});
            }
        }
        document["paths"][path]["get"] = operation;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_is_as_published() {
        crate::golden("openapi.json", &DOCUMENT_TEXT);
        crate::golden("openapi-2.json", &pretty(&DOCUMENT_2));
    }

    /// Routes beside `/v1`; those of other surfaces are described elsewhere.
    const OPERATIONS: [&str; 6] = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi-2.json", "/docs"];

    #[test]
    fn every_native_route_is_described() {
        let mounted: BTreeSet<String> = crate::app::routes()
            .into_iter()
            .filter(|(_, path)| path.starts_with("/v1/") || OPERATIONS.contains(&path.as_str()))
            .map(|(method, path)| format!("{} {}", method.to_lowercase(), path.replace("{*", "{")))
            .collect();
        let described: BTreeSet<String> = DOCUMENT["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
            .collect();
        for route in &mounted {
            // Whatever can be read can be asked for without its body.
            let is_plain_head = route.starts_with("head ") && mounted.contains(&route.replacen("head", "get", 1));
            assert!(described.contains(route) || is_plain_head || route == "post /v1/sessions/{id}/tools/{tool}", "not described: {route}");
        }
        for route in &described {
            assert!(mounted.contains(route) || route.contains("/tools/"), "described, but not there: {route}");
        }
    }

    #[test]
    fn references_lead_somewhere_and_names_are_unique() {
        let mut ids = BTreeSet::new();
        for item in DOCUMENT["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{}", operation["operationId"]);
                assert!(!operation["summary"].as_str().unwrap().is_empty() && operation["tags"][0].is_string());
            }
        }
        for document in [&*DOCUMENT, &*DOCUMENT_2] {
            each_reference(document, &mut |reference| {
                assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
            });
        }
    }

    fn each_reference(value: &Json, see: &mut dyn FnMut(&str)) {
        match value {
            Json::Object(entries) => {
                if let Some(Json::String(reference)) = entries.get("$ref") {
                    see(reference);
                }
                entries.values().for_each(|value| each_reference(value, see));
            }
            Json::Array(items) => items.iter().for_each(|value| each_reference(value, see)),
            _ => {}
        }
    }

    #[test]
    fn schemas_are_those_of_the_engine() {
        let names = |value: &Json| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let properties = |name: &str| names(&DOCUMENT["components"]["schemas"][name]["properties"]);
        let execution = serde_json::to_value(crate::rest::tests::execution()).unwrap();
        assert_eq!(properties("Execution"), names(&execution));
        assert_eq!(properties("Limits"), names(&execution["limits"]));
        assert_eq!(properties("LastValue"), names(&execution["result"]));
        assert_eq!(properties("Output"), names(&execution["outputs"][0]));
        assert_eq!(properties("Artifact"), names(&execution["artifacts"][0]));
        let all: Map<String, Json> = properties("LimitsRequest").into_iter().map(|name| (name, json!(1))).collect();
        assert_eq!(all.len(), properties("Limits").len());
        serde_json::from_value::<engine::session::LimitsRequest>(Json::Object(all)).unwrap();
        let error = serde_json::to_value(engine::ExecutionError { name: String::new(), message: String::new(), traceback: String::new() }).unwrap();
        assert_eq!(properties("ExecutionError"), names(&error));
    }

    #[test]
    fn only_plain_hosts_are_repeated() {
        assert!(is_plain_host("belljar.example.com:8720") && is_plain_host("[::1]:8720"));
        assert!(!is_plain_host("") && !is_plain_host("a\"b") && !is_plain_host("a/b") && !is_plain_host("u@h"));
    }
}
