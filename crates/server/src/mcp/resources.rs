//! Files of sessions, and what executions wrote, as resources: `belljar://sessions/{id}/files/{path}` and
//! `belljar://sessions/{id}/executions/{id}/stdout`. Percent-encoded as in any address, decoded once.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use engine::session::{Kind, Progressed, Session, parse_path};
use engine::{Error, ErrorKind, Stream};
use percent_encoding::percent_decode_str;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};

use crate::app::App;
use crate::identity::Identity;
use crate::rest::{FileView, Links, RESOURCES, unreadable};
use crate::tools::Positioned;

/// A resource that is read whole, in bytes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// A file that comes along with the answer of a tool, in bytes.
pub(super) const EMBEDDED_BYTES: u64 = 256 * 1024;
/// Resources of one page.
const PAGE: usize = 200;
/// How the place of a page begins; the last path of the page before follows.
const CURSOR: &str = "after:";

/// What an address names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) session: String,
    pub(crate) pool: Option<String>,
    pub(crate) what: What,
}

/// A thing of a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A file of the workspace.
    File(PathBuf),
    /// What an execution wrote.
    Written(String, Stream),
    /// What an execution showed, counted from 0.
    Shown(String, usize),
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// `not_found` for what is none of ours; `invalid_request` for a path that cannot be.
    pub(crate) fn parse(uri: &str) -> Result<Self, Error> {
        let shown: String = uri.chars().take(200).collect();
        let unknown = || {
            let error = Error::new(ErrorKind::NotFound, format!("there is no resource `{shown}`"));
            error.hint(format!("use an address of a tool's result, or one like {RESOURCES}<sessionId>/files/<path>"))
        };
        let rest = uri.strip_prefix(RESOURCES).ok_or_else(unknown)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let text = |part: &str| String::from_utf8(percent_decode_str(part).collect()).map_err(|_| unknown());
        let (session, below) = path.split_once('/').ok_or_else(unknown)?;
        let what = match below.split_once('/').ok_or_else(unknown)? {
            ("files", path) => What::File(parse_path(&percent_decode_str(path).collect::<Vec<u8>>())?),
            ("executions", written) => match written.split_once('/') {
                Some((execution, "stdout")) => What::Written(text(execution)?, Stream::Stdout),
                Some((execution, "stderr")) => What::Written(text(execution)?, Stream::Stderr),
                Some((execution, shown)) if shown.starts_with("outputs/") => {
                    let number = shown.strip_prefix("outputs/").and_then(|number| number.parse().ok()).ok_or_else(unknown)?;
                    What::Shown(text(execution)?, number)
                }
                _ => return Err(unknown()),
            },
            _ => return Err(unknown()),
        };
        let pool = query.strip_prefix("pool=").map(text).transpose()?;
        Ok(Self { session: text(session)?, pool, what })
    }

    /// The session, which has to be the caller's and there.
    fn session(&self, app: &App, identity: &Identity, pool: &str) -> Result<Arc<Session>, Error> {
        let pool = self.pool.as_deref().unwrap_or(pool);
        identity.may_use(pool)?;
        app.sessions.find(&identity.caller, Some(pool), &self.session)
    }

    /// Opens what it names, where that is a file: its size and its media type with it.
    ///
    /// # Errors
    /// `not_found` for what is not there or not the caller's; `conflict` for what is no file.
    pub(crate) async fn open(&self, app: &App, identity: &Identity, pool: &str) -> Result<(File, u64, String), Error> {
        let session = self.session(app, identity, pool)?;
        match &self.what {
            What::File(path) => session.open_file(path).await.map(|(file, entry)| (file, entry.size, entry.media_type)),
            What::Written(execution, stream) => {
                let file = session.written(execution, *stream)?;
                let size = file.metadata().map_err(|error| unreadable(&error))?.len();
                Ok((file, size, "text/plain".to_owned()))
            }
            What::Shown(..) => Err(Error::new(ErrorKind::Conflict, "what an execution showed is no file").hint("have the code save it into a file")),
        }
    }
}

/// Reads a resource whole.
///
/// # Errors
/// As of [`Address::open`]; `too_large`.
pub(super) async fn read(app: &App, identity: &Identity, pool: &str, uri: &str) -> Result<ResourceContents, Error> {
    let address = Address::parse(uri)?;
    if let What::Shown(execution, number) = &address.what {
        return shown(&*address.session(app, identity, pool)?, (execution, *number), uri);
    }
    let (file, size, media_type) = address.open(app, identity, pool).await?;
    if size > MAX_BYTES {
        let message = format!("the resource has {size} bytes, and up to {MAX_BYTES} are read in one piece");
        return Err(Error::new(ErrorKind::TooLarge, message).hint("read text in parts with ReadSessionFile, or have code write a smaller file"));
    }
    contents(file, size, media_type, uri).await
}

/// What an execution showed, as long as its session remembers it.
fn shown(session: &Session, (execution, number): (&str, usize), uri: &str) -> Result<ResourceContents, Error> {
    let Progressed::Finished(finished) = session.execution(execution)?.progress else {
        return Err(Error::new(ErrorKind::NotFound, format!("the execution `{execution}` is not over")).hint("ask again when it is"));
    };
    let missing = || Error::new(ErrorKind::NotFound, format!("the execution `{execution}` showed no output {number}"));
    let output = finished.execution.outputs.get(number).ok_or_else(missing)?;
    let contents = if output.is_binary() { ResourceContents::blob(&output.data, uri) } else { ResourceContents::text(&output.data, uri) };
    Ok(contents.with_mime_type(&output.media_type))
}

/// The bytes as text where they are text, else as base64.
pub(super) async fn contents(file: File, size: u64, media_type: String, uri: &str) -> Result<ResourceContents, Error> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        Positioned::new(file, size).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = read.await.map_err(|_| Error::new(ErrorKind::Internal, "the file could not be read"))?.map_err(|error| unreadable(&error))?;
    let contents = match String::from_utf8(bytes) {
        Ok(text) if is_text(&media_type, &text) => ResourceContents::text(text, uri),
        Ok(text) => ResourceContents::blob(base64::engine::general_purpose::STANDARD.encode(text), uri),
        Err(error) => ResourceContents::blob(base64::engine::general_purpose::STANDARD.encode(error.as_bytes()), uri),
    };
    Ok(contents.with_mime_type(media_type))
}

/// Media types lie: what has a NUL is no text, whatever its name says, and a picture made of characters is a picture.
fn is_text(media_type: &str, text: &str) -> bool {
    !text.contains('\0') && !["image/", "audio/", "video/", "font/"].iter().any(|kind| media_type.starts_with(kind) && media_type != "image/svg+xml")
}

/// A page of the files of a session, and where the next one begins. Of a session that is not there yet there are none.
///
/// # Errors
/// Where the files cannot be listed.
pub(super) async fn list(app: &App, identity: &Identity, (pool, id): (&str, &str), cursor: Option<&str>) -> Result<(Vec<Resource>, Option<String>), Error> {
    let unknown = || Error::new(ErrorKind::InvalidRequest, "the cursor is none of ours").hint("leave it out to begin with the first page");
    let after = cursor.map(|cursor| cursor.strip_prefix(CURSOR).ok_or_else(unknown)).transpose()?;
    let after: Option<Vec<u8>> = after.map(|after| percent_decode_str(after).collect());
    let session = match app.sessions.find(&identity.caller, Some(pool), id) {
        Ok(session) => session,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok((Vec::new(), None)),
        Err(error) => return Err(error),
    };
    let links = Links::resources(app, pool, id);
    let files = session.files(Path::new(""), true).await?;
    let after = |path: &Path| after.as_ref().is_none_or(|after| path.as_os_str().as_bytes() > after.as_slice());
    let mut entries: Vec<_> = files.entries.iter().filter(|entry| entry.kind == Kind::File && after(&entry.path)).collect();
    entries.sort_by(|one, other| one.path.as_os_str().as_bytes().cmp(other.path.as_os_str().as_bytes()));
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let next = entries.last().filter(|_| more).map(|entry| format!("{CURSOR}{}", crate::rest::encode(entry.path.as_os_str().as_bytes())));
    Ok((entries.iter().filter_map(|entry| super::answer::link(&FileView::of(entry, &links))).collect(), next))
}

/// How addresses are made.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let file = ResourceTemplate::new(format!("{RESOURCES}{{sessionId}}/files/{{+path}}"), "session file");
    let written = ResourceTemplate::new(format!("{RESOURCES}{{sessionId}}/executions/{{executionId}}/{{stream}}"), "execution output");
    vec![
        file.with_title("File of a session").with_description("A file of a session's folder /mnt/data, by its path in it."),
        written.with_title("Output of an execution").with_description("All that an execution wrote to `stdout` or `stderr`.").with_mime_type("text/plain"),
    ]
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn file(uri: &str) -> Option<(String, Option<String>, PathBuf)> {
        match Address::parse(uri).ok()? {
            Address { session, pool, what: What::File(path) } => Some((session, pool, path)),
            Address { .. } => None,
        }
    }

    #[test]
    fn addresses_are_decoded_once() {
        let of = |session: &str, pool: Option<&str>, path: &[u8]| Some((session.to_owned(), pool.map(str::to_owned), PathBuf::from(OsStr::from_bytes(path))));
        assert_eq!(file("belljar://sessions/ses_1/files/a%20b/c.txt"), of("ses_1", None, b"a b/c.txt"));
        assert_eq!(file("belljar://sessions/x%40y/files/%ff?pool=p%20p"), of("x@y", Some("p p"), b"\xff"));
        assert_eq!(file("belljar://sessions/x/files/%252e%252e"), of("x", None, b"%2e%2e"));
        let written = Address::parse("belljar://sessions/x/executions/exe_1/stderr").unwrap();
        assert_eq!(written.what, What::Written("exe_1".to_owned(), Stream::Stderr));
    }

    #[test]
    fn what_leads_out_is_refused() {
        for uri in [
            "",
            "file:///etc/passwd",
            "belljar://",
            "belljar://sessions/",
            "belljar://sessions/x",
            "belljar://sessions/x/files",
            "belljar://sessions/x/files/",
            "belljar://sessions/x/files/../y",
            "belljar://sessions/x/files/%2e%2e/y",
            "belljar://sessions/x/files//etc/passwd",
            "belljar://sessions/x/files/a%00b",
            "belljar://sessions/%ff/files/a",
            "belljar://sessions/x/executions/exe_1",
            "belljar://sessions/x/executions/exe_1/stdin",
            "belljar://other/x/files/a",
        ] {
            assert!(Address::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn text_is_what_can_be_read() {
        assert!(is_text("text/csv", "a,b") && is_text("application/octet-stream", "plain") && is_text("image/svg+xml", "<svg/>"));
        assert!(!is_text("text/plain", "a\0b") && !is_text("image/png", "text"));
    }
}
