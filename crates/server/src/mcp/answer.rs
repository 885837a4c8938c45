//! What a tool came to, as the protocol says it: words and pictures for the model, links to files, and everything as data for programs.

use engine::{Error, ErrorKind, Output};
use rmcp::model::{CallToolResult, ContentBlock, EmbeddedResource, Resource, ResourceContents};
use serde_json::{Map, Value as Json, json};

use crate::rest::{FileKind, FileView};
use crate::tools::{PICTURES, STDOUT_CHARACTERS, ToolResult, cut};

/// Fields of the data of a tool that runs nothing.
pub(super) const FILE_FIELDS: [&str; 5] = ["sessionId", "files", "lines", "matches", "incomplete"];
/// So many files are linked in one result; all stand in its data.
const MAX_LINKS: usize = 50;
/// Pictures of one result take so many characters of base64 together, the others are linked: clients refuse an event of more than 1 MiB.
const PICTURE_CHARACTERS: usize = 640 * 1024;
/// The value of the last expression, and stdout as JSON: what is longer is left out of the data.
const VALUE_CHARACTERS: usize = 64 * 1024;

/// A result. `note` is said to the model after everything else; `resource` is the file that was asked for.
pub(super) fn result(result: &ToolResult, note: Option<&str>, resource: Option<ResourceContents>) -> CallToolResult {
    let mut text = result.text.clone();
    let (mut pictures, links) = pictures(result);
    if !links.is_empty() {
        text.push_str(&format!("[{} of the pictures are too large to be shown here and come as links: draw them smaller to see them]\n", links.len()));
    }
    text.extend(note);
    let mut content = vec![ContentBlock::text(text)];
    content.append(&mut pictures);
    content.extend(resource.map(|contents| ContentBlock::Resource(EmbeddedResource::new(contents))));
    // A listing is read, and then a file asked for.
    let most = if result.tool == "ListSessionFiles" { 0 } else { MAX_LINKS };
    let files = result.files.iter().filter(|file| file.kind == FileKind::File).take(most).filter_map(link);
    content.extend(links.into_iter().chain(files).map(ContentBlock::ResourceLink));
    let mut answer = if result.failed { CallToolResult::error(content) } else { CallToolResult::success(content) };
    answer.structured_content = Some(data(result));
    answer
}

/// The pictures, and links to those that are too large.
fn pictures(result: &ToolResult) -> (Vec<ContentBlock>, Vec<Resource>) {
    let mut left = PICTURE_CHARACTERS;
    let (mut shown, mut linked) = (Vec::new(), Vec::new());
    let mut take = |picture: &Output, place: Option<(&str, usize)>| {
        if !PICTURES.contains(&picture.media_type.as_str()) {
            return;
        }
        if let Some(rest) = left.checked_sub(picture.data.len()) {
            left = rest;
            shown.push(ContentBlock::image(picture.data.clone(), picture.media_type.clone()));
        } else if let Some((execution, number)) = place {
            linked.push(Resource::new(result.links.shown(execution, number), &picture.name).with_mime_type(&picture.media_type));
        }
    };
    if let Some(ran) = &result.ran {
        let execution = &ran.finished.execution;
        execution.outputs.iter().enumerate().for_each(|(number, output)| take(output, Some((&execution.id, number))));
    }
    // Its file is linked anyway.
    result.picture.iter().for_each(|picture| take(picture, None));
    (shown, linked)
}

/// A file as a resource that can be read.
pub(super) fn link(file: &FileView) -> Option<Resource> {
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    let resource = Resource::new(file.url.clone()?, name).with_mime_type(&file.media_type).with_size(file.size_bytes);
    Some(if name == file.path { resource } else { resource.with_description(format!("/mnt/data/{}", file.path)) })
}

/// The execution object, or what else there is as data. What is null is left out, and so is what stands in the content as it is.
fn data(result: &ToolResult) -> Json {
    let mut answer = serde_json::to_value(result.answer()).unwrap_or_default();
    let Some(answer) = answer.as_object_mut() else { return Json::Null };
    let mut data = match answer.shift_remove("execution") {
        Some(Json::Object(execution)) => execution,
        _ => {
            answer.retain(|name, _| FILE_FIELDS.contains(&name.as_str()));
            std::mem::take(answer)
        }
    };
    let is_long = |value: &Json| serde_json::to_string(value).map_or(0, |text| text.len()) > VALUE_CHARACTERS;
    if data.get("output").is_some_and(is_long) {
        data.shift_remove("output");
        data.shift_remove("outputSchema");
    }
    if let Some(value) = data.get_mut("result").and_then(Json::as_object_mut) {
        if value.get("json").is_some_and(is_long) {
            value.insert("json".to_owned(), Json::Null);
        }
        if let Some(Json::String(text)) = value.get_mut("text") {
            *text = cut(text, STDOUT_CHARACTERS).0.to_owned();
        }
    }
    for output in entries(&mut data, "outputs") {
        if output.get("type").and_then(Json::as_str).is_some_and(|kind| PICTURES.contains(&kind)) || output.get("data").is_some_and(is_long) {
            output.shift_remove("data");
        }
    }
    data.retain(|name, value| name == "output" || !value.is_null());
    for list in ["artifacts", "files"] {
        entries(&mut data, list).for_each(|entry| entry.retain(|_, value| !value.is_null()));
    }
    Json::Object(data)
}

fn entries<'a>(data: &'a mut Map<String, Json>, name: &str) -> impl Iterator<Item = &'a mut Map<String, Json>> {
    data.get_mut(name).and_then(Json::as_array_mut).into_iter().flatten().filter_map(Json::as_object_mut)
}

/// What a tool would not or could not do, so that the model can do better.
pub(super) fn refusal(error: &Error) -> CallToolResult {
    note(error);
    let mut result = CallToolResult::error(vec![ContentBlock::text(words(error))]);
    // For programs.
    let facts = json!({"code": crate::error::status(error.kind).0, "message": error.message, "hint": error.hint});
    result.meta = serde_json::from_value(json!({"belljar/error": facts})).ok();
    result
}

/// Tells the operator of what is ours: what callers do wrong would fill the log.
fn note(error: &Error) {
    if let (Some(detail), ErrorKind::Internal | ErrorKind::Unavailable) = (&error.detail, error.kind) {
        tracing::warn!(code = crate::error::status(error.kind).0, detail, "a request failed");
    }
}

/// An error in words, with what to do about it.
pub(super) fn words(error: &Error) -> String {
    let mut text = format!("error: {}", error.message);
    if let Some(hint) = &error.hint {
        text.push_str("\nwhat to do: ");
        text.push_str(hint);
    }
    if let Some(after) = error.retry_after {
        text.push_str(&format!("\ntry again in {} s", after.as_secs().max(1)));
    }
    text
}

/// As an error of the protocol, for requests that are no calls of tools.
pub(super) fn protocol_error(error: &Error, uri: Option<&str>) -> rmcp::ErrorData {
    note(error);
    let mut data = json!({"code": crate::error::status(error.kind).0});
    if let (Some(uri), Some(data)) = (uri, data.as_object_mut()) {
        data.insert("uri".to_owned(), json!(uri));
    }
    let (message, data) = (words(error), Some(data));
    match error.kind {
        ErrorKind::NotFound => rmcp::ErrorData::resource_not_found(message, data),
        ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::Limit => rmcp::ErrorData::internal_error(message, data),
        _ => rmcp::ErrorData::invalid_params(message, data),
    }
}
