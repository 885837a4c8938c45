//! Tools that list, read, get and write files.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use engine::session::{Kind, Session};
use engine::{Error, ErrorKind, Output, Stream};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::lines::LineReader;
use super::{Lines, Scope, ToolResult, grouped, params, path};
use crate::files::{copy, decode, put};
use crate::json::Whole;
use crate::mcp::Address;
use crate::rest::{FileKind, FileView, RESOURCES, unreadable};

/// Lines of one call.
const MAX_LINES: u64 = 2000;
/// Of a line, so many bytes are shown.
const LINE_BYTES: usize = 4000;
/// One call shows so many bytes at most.
const SHOW_BYTES: usize = 256 * 1024;
/// Of a file, so many bytes are read to count its lines: a sparse one may claim any size, and would be read for hours.
const READ_BYTES: u64 = 256 * 1024 * 1024;
/// Entries of one listing.
const MAX_ENTRIES: usize = 1000;
/// A picture up to this size comes along, in bytes: as base64 within what clients take in one message.
const PICTURE_BYTES: u64 = 480 * 1024;
/// Types of pictures that models can see.
pub(crate) const PICTURES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// Parameters of `ReadSessionFile`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ReadSessionFileParams, example = json!({"filePath": "sales.csv", "startLine": 1, "endLine": 50}))]
pub(crate) struct ReadParams {
    /// The file, relative to /mnt/data.
    #[schema(min_length = 1)]
    file_path: String,
    /// The first line, counted from 1.
    #[schema(value_type = Option<u64>, minimum = 1, default = 1)]
    start_line: Option<Whole>,
    /// The last line; at most 2,000 lines come in one call.
    #[schema(value_type = Option<u64>, minimum = 1)]
    end_line: Option<Whole>,
}

/// Parameters of `ListSessionFiles`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ListSessionFilesParams, example = json!({"recursive": true}))]
pub(crate) struct ListParams {
    /// A folder, relative to /mnt/data; the whole of /mnt/data where none is named.
    path: Option<String>,
    /// With everything in its folders.
    #[schema(default = false)]
    recursive: Option<bool>,
}

/// Parameters of `GetSessionFile`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = GetSessionFileParams, example = json!({"filePath": "chart.png"}))]
pub(crate) struct GetParams {
    /// The file, relative to /mnt/data.
    #[schema(min_length = 1)]
    file_path: String,
}

/// Parameters of `UploadFileToSession`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = UploadFileToSessionParams, example = json!({"fileName": "a.txt", "contentBase64": "aGVsbG8="}))]
pub(crate) struct UploadParams {
    /// The file's name, or its path relative to /mnt/data.
    #[schema(min_length = 1)]
    file_name: String,
    /// The bytes, as base64; or the address of a resource (belljar://…), to copy a file of another session.
    content_base64: String,
}

/// The folder that a model names; none, `.` and `/mnt/data` are the whole.
pub(super) fn folder(text: Option<&str>) -> Result<PathBuf, Error> {
    match text.map(|text| text.strip_suffix('/').unwrap_or(text)) {
        None | Some("" | "." | "/mnt/data") => Ok(PathBuf::new()),
        Some(text) => path("path", text),
    }
}

/// A file to be read: of the workspace, or what an execution wrote.
struct Source {
    file: File,
    size: u64,
    view: FileView,
}

async fn open(scope: Scope<'_>, session: &Arc<Session>, path: &Path) -> Result<Source, Error> {
    let (file, entry) = match session.open_file(path).await {
        Ok(opened) => opened,
        Err(error) => {
            // A file of the workspace comes first: nothing of it can be hidden by what is only said to be there.
            let written = if error.kind == ErrorKind::NotFound { written(scope, session, path)? } else { None };
            return written.ok_or_else(|| if error.kind == ErrorKind::NotFound { error.hint("see ListSessionFiles for the files there are") } else { error });
        }
    };
    Ok(Source { file, size: entry.size, view: FileView::of(&entry, &scope.links()) })
}

/// What an execution wrote, as `outputs/<execution id>/stdout.txt`.
fn written(scope: Scope<'_>, session: &Session, path: &Path) -> Result<Option<Source>, Error> {
    let Some((execution, name)) = path.to_str().and_then(|text| text.strip_prefix("outputs/")?.split_once('/')) else { return Ok(None) };
    let (stream, link) = match name {
        "stdout.txt" => (Stream::Stdout, "stdout"),
        "stderr.txt" => (Stream::Stderr, "stderr"),
        _ => return Ok(None),
    };
    let Ok(file) = session.written(execution, stream) else { return Ok(None) };
    let facts = file.metadata().map_err(|error| unreadable(&error))?;
    let view = FileView {
        path: path.to_string_lossy().into_owned(),
        kind: FileKind::File,
        size_bytes: facts.len(),
        modified_at: crate::rest::time(facts.modified().unwrap_or(std::time::SystemTime::UNIX_EPOCH)),
        media_type: "text/plain".to_owned(),
        url: Some(scope.links().written(execution, link)),
    };
    Ok(Some(Source { file, size: facts.len(), view }))
}

/// Reads at places of its own, since the descriptor may be shared, and never more than a size that was told.
pub(crate) struct Positioned {
    file: File,
    at: u64,
    end: u64,
}

impl Positioned {
    pub(crate) fn new(file: File, size: u64) -> Self {
        Self { file, at: 0, end: size }
    }
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..left).unwrap_or_default(), self.at)?;
        self.at = self.at.saturating_add(u64::try_from(count).unwrap_or_default());
        Ok(count)
    }
}

/// `ReadSessionFile`
pub(super) async fn read(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: ReadParams = params("ReadSessionFile", asked)?;
    let file_path = path("filePath", &asked.file_path)?;
    let start = asked.start_line.map_or(1, |Whole(line)| line);
    let end = asked.end_line.map(|Whole(line)| line);
    if start == 0 || end.is_some_and(|end| end < start) {
        let error = Error::new(ErrorKind::InvalidRequest, "`startLine` and `endLine` name no lines");
        return Err(error.hint("count lines from 1, and give an `endLine` that is not before `startLine`"));
    }
    let session = scope.find()?;
    let source = open(scope, &session, &file_path).await?;
    let view = source.view;
    let name = view.path.clone();
    let read = tokio::task::spawn_blocking(move || read_lines(source.file, source.size.min(READ_BYTES), start, end.unwrap_or(u64::MAX))).await;
    let read = read.map_err(|_| Error::new(ErrorKind::Internal, "the file could not be read"))?;
    let Some((mut lines, is_whole)) = read.map_err(|error| unreadable(&error))? else {
        let error = Error::new(ErrorKind::InvalidRequest, format!("`{name}` is not a text file"));
        return Err(error.hint("use GetSessionFile to hand it to the user, or read it with ExecutePythonCode"));
    };
    lines.path.clone_from(&name);
    let mut text = if lines.end_line < lines.start_line {
        format!("{name}: no lines from {start} on, of {} in all\n", grouped(lines.total_lines))
    } else {
        format!("{name}: lines {} to {} of {}\n{}", grouped(lines.start_line), grouped(lines.end_line), grouped(lines.total_lines), lines.text)
    };
    let is_read = source.size <= READ_BYTES;
    if !is_whole {
        let _ = writeln!(text, "[cut here: go on with startLine {}]", lines.end_line.saturating_add(1));
    } else if !is_read {
        let _ = writeln!(text, "[only the first {} bytes were read, so there may be more lines: read the others with ExecutePythonCode]", grouped(READ_BYTES));
    }
    Ok(ToolResult {
        files: vec![view],
        incomplete: !is_whole || !is_read || lines.lines_cut,
        lines: Some(lines),
        ..ToolResult::new("ReadSessionFile", scope.links(), text)
    })
}

/// The lines, and whether all that were asked for are there; `None` for what is no text.
fn read_lines(file: File, size: u64, start: u64, end: u64) -> std::io::Result<Option<(Lines, bool)>> {
    let mut reader = LineReader::new(BufReader::with_capacity(64 * 1024, Positioned::new(file, size)), LINE_BYTES);
    if reader.is_binary()? {
        return Ok(None);
    }
    let mut lines = Lines { path: String::new(), start_line: start, end_line: start.saturating_sub(1), total_lines: 0, text: String::new(), lines_cut: false };
    let last = end.min(start.saturating_add(MAX_LINES - 1));
    let mut is_full = false;
    while reader.advance()? {
        lines.total_lines = lines.total_lines.saturating_add(1);
        let number = lines.total_lines;
        if number < start || number > last || is_full {
            continue;
        }
        let line = String::from_utf8_lossy(reader.line());
        // The first line is shown in any case: there is always progress.
        is_full = number > start && lines.text.len().saturating_add(line.len()) > SHOW_BYTES;
        if is_full {
            continue;
        }
        lines.text.push_str(&line);
        lines.text.push_str(if reader.is_cut() { "[… line cut]\n" } else { "\n" });
        lines.lines_cut |= reader.is_cut();
        lines.end_line = number;
    }
    let is_whole = lines.end_line >= end.min(lines.total_lines) || start > lines.total_lines;
    Ok(Some((lines, is_whole)))
}

/// `ListSessionFiles`
pub(super) async fn list(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: ListParams = params("ListSessionFiles", asked)?;
    let folder = folder(asked.path.as_deref())?;
    let session = scope.find()?;
    let listing = session.files(&folder, asked.recursive.unwrap_or(false)).await?;
    let links = scope.links();
    let shown = listing.entries.get(..MAX_ENTRIES).unwrap_or(&listing.entries);
    let files: Vec<FileView> = shown.iter().map(|entry| FileView::of(entry, &links)).collect();
    let place = Path::new("/mnt/data").join(&folder);
    let count = listing.entries.len();
    let mut text = format!("{} entr{} in {}:\n", grouped(count), if count == 1 { "y" } else { "ies" }, place.display());
    for file in &files {
        let _ = match file.kind {
            FileKind::File => writeln!(text, "{}  {} bytes  {}  {}", file.path, grouped(file.size_bytes), file.modified_at, file.media_type),
            FileKind::Folder => writeln!(text, "{}/  folder", file.path),
            FileKind::Other => writeln!(text, "{}  link, pipe or socket: cannot be opened", file.path),
        };
    }
    let incomplete = listing.incomplete || files.len() < count;
    if incomplete {
        text.push_str("[not everything is shown: name a folder in `path`]\n");
    }
    Ok(ToolResult { files, incomplete, ..ToolResult::new("ListSessionFiles", links, text) })
}

/// `GetSessionFile`
pub(super) async fn get(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: GetParams = params("GetSessionFile", asked)?;
    let file_path = path("filePath", &asked.file_path)?;
    let session = scope.find()?;
    let source = open(scope, &session, &file_path).await?;
    let view = source.view;
    let text = format!("{}: {}, {} bytes\n", view.path, view.media_type, grouped(view.size_bytes));
    let is_shown = PICTURES.contains(&view.media_type.as_str()) && source.size <= PICTURE_BYTES;
    let picture = if is_shown { Some(picture(source.file, source.size, &view).await?) } else { None };
    Ok(ToolResult { files: vec![view], picture, ..ToolResult::new("GetSessionFile", scope.links(), text) })
}

/// The bytes as they are: nothing of them is looked at.
async fn picture(file: File, size: u64, view: &FileView) -> Result<Output, Error> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        Positioned::new(file, size).read_to_end(&mut bytes).map(|_| base64::engine::general_purpose::STANDARD.encode(bytes))
    });
    let data = read.await.map_err(|_| Error::new(ErrorKind::Internal, "the file could not be read"))?.map_err(|error| unreadable(&error))?;
    let name = Path::new(&view.path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Output { media_type: view.media_type.clone(), name, data })
}

/// `UploadFileToSession`
pub(super) async fn upload(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: UploadParams = params("UploadFileToSession", asked)?;
    let file_path = path("fileName", &asked.file_name)?;
    let named = |error: Error| {
        let message = format!("`contentBase64`: {}", error.message);
        Error { message, ..error }
    };
    let entry = if asked.content_base64.starts_with(RESOURCES) {
        let (file, size, _) = Address::parse(&asked.content_base64).map_err(named)?.open(scope.app, scope.identity, scope.pool).await.map_err(named)?;
        let most = scope.app.settings().limits.upload_bytes;
        if size > most {
            return Err(
                Error::new(ErrorKind::TooLarge, format!("the file has {} bytes, {} are allowed", grouped(size), grouped(most))).hint("copy a part of it")
            );
        }
        copy(&scope.open().await?, file, size, &file_path).await?
    } else {
        let bytes = decode(&asked.content_base64).map_err(|error| named(error).hint("encode the file's bytes with standard base64"))?;
        put(&scope.open().await?, &file_path, &bytes).await?
    };
    debug_assert_eq!(entry.kind, Kind::File, "what was written is a file");
    let view = FileView::of(&entry, &scope.links());
    let text = format!("wrote /mnt/data/{} ({} bytes)\n", view.path, grouped(view.size_bytes));
    Ok(ToolResult { files: vec![view], ..ToolResult::new("UploadFileToSession", scope.links(), text) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn lines(text: &[u8], start: u64, end: u64) -> Option<(Lines, bool)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let size = file.metadata().unwrap().len();
        read_lines(file, size, start, end).unwrap()
    }

    #[test]
    fn lines_with_their_total() {
        let text: String = (1..=5000).map(|n| format!("{n}\n")).collect();
        let (read, whole) = lines(text.as_bytes(), 1, u64::MAX).unwrap();
        assert_eq!((read.start_line, read.end_line, read.total_lines, whole), (1, 2000, 5000, false));
        let (read, whole) = lines(text.as_bytes(), 4999, u64::MAX).unwrap();
        assert_eq!((read.text.as_str(), read.end_line, whole), ("4999\n5000\n", 5000, true));
        let (read, whole) = lines(text.as_bytes(), 2, 3).unwrap();
        assert_eq!((read.text.as_str(), whole), ("2\n3\n", true));
        let (read, whole) = lines(text.as_bytes(), 6000, 6001).unwrap();
        assert_eq!((read.text.as_str(), read.end_line, whole), ("", 5999, true));
        assert_eq!(lines(b"", 1, 5).unwrap().0.total_lines, 0);
        assert!(lines(b"\0", 1, 5).is_none());
    }

    #[test]
    fn huge_lines_are_cut_and_huge_answers_too() {
        let (read, _) = lines(&vec![b'x'; 10_000_000], 1, 1).unwrap();
        assert!(read.lines_cut && read.text.len() < LINE_BYTES + 100);
        let text = [vec![b'y'; 3000], b"\n".to_vec()].concat().repeat(500);
        let (read, whole) = lines(&text, 1, 500).unwrap();
        assert!(read.text.len() <= SHOW_BYTES + 500 && !whole && read.end_line < 500 && read.total_lines == 500);
        let (next, _) = lines(&text, read.end_line + 1, 500).unwrap();
        assert_eq!(next.start_line, read.end_line + 1);
    }

    #[test]
    fn more_than_was_told_is_not_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"a\nb\n").unwrap();
        let shared = file.try_clone().unwrap();
        assert_eq!(read_lines(file, 2, 1, 9).unwrap().unwrap().0.text, "a\n");
        assert_eq!(read_lines(shared, 4, 1, 9).unwrap().unwrap().0.text, "a\nb\n", "a shared descriptor is read from its start");
    }

    #[test]
    fn the_whole_has_many_names() {
        for text in [None, Some(""), Some("."), Some("./"), Some("/mnt/data"), Some("/mnt/data/")] {
            assert_eq!(folder(text).unwrap(), PathBuf::new(), "{text:?}");
        }
    }
}
