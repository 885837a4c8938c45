//! What a request says besides its body: who calls, the parts of its path and its query, each decoded once.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use engine::session::{Create, LimitsRequest, Opened, Session};
use engine::{Error, ErrorKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::app::App;
use crate::body::BodyLimit;
use crate::error::ApiError;
use crate::identity::Identity;

/// A request's caller and address.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) identity: Identity,
    path: String,
    query: String,
    limit: Option<BodyLimit>,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        // Authentication puts it there; without it nobody is known, and nothing may be done.
        let identity = parts.extensions.get::<Identity>().cloned().ok_or_else(|| Error::new(ErrorKind::Unauthenticated, "no key was given"))?;
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        Ok(Self { app: Arc::clone(app), identity, path, query, limit: parts.extensions.get::<BodyLimit>().cloned() })
    }
}

impl Call {
    /// The body is a file, which may be as large as any upload.
    pub(crate) fn takes_upload(&self, size: Option<u64>) -> Result<(), Error> {
        let most = self.app.settings().limits.upload_bytes;
        if let Some(limit) = &self.limit {
            limit.raise(most);
        }
        if size.is_some_and(|size| size > most) {
            return Err(Error::new(ErrorKind::TooLarge, format!("the file is larger than {most} bytes")).hint("split it, or have code make it"));
        }
        Ok(())
    }

    /// A part of the path, `/v1` being the first, numbered 0.
    pub(crate) fn part(&self, number: usize) -> Result<String, Error> {
        part(&self.path, number)
    }

    /// The path from a part on, as bytes.
    pub(crate) fn rest(&self, number: usize) -> Vec<u8> {
        rest(&self.path, number)
    }

    /// The query, in which only these names may stand.
    pub(crate) fn query(&self, names: &[&str]) -> Result<Query, Error> {
        Query::parse(&self.query, names)
    }

    /// The pool that query or body name, else the default one; checked against what the caller may use.
    pub(crate) fn pool(&self, query: &Query, body: Option<&str>) -> Result<String, Error> {
        let named = query.text("pool")?;
        let name = match (&named, body) {
            (Some(one), Some(other)) if one != other => {
                return Err(Error::new(ErrorKind::InvalidRequest, "query and body name different pools").hint("name the pool once"));
            }
            (Some(name), _) => name,
            (None, Some(name)) => name,
            (None, None) => &self.app.default_pool,
        };
        self.identity.may_use(name)?;
        Ok(name.to_owned())
    }

    /// The session that path and query name, in `/v1/sessions/{id}/…`.
    pub(crate) fn session(&self, query: &Query) -> Result<Place, Error> {
        let id = self.part(2)?;
        let pool = self.pool(query, None)?;
        let session = self.app.sessions.find(&self.identity.caller, Some(&pool), &id)?;
        Ok(Place { session, links: Links::new(&self.app, &pool, &id) })
    }
}

/// A session, and how its things are addressed.
pub(crate) struct Place {
    pub(crate) session: Arc<Session>,
    pub(crate) links: Links,
}

/// Finds the session of an id, or makes it where that is allowed.
pub(crate) async fn open(app: &App, identity: &Identity, pool: &str, id: &str) -> Result<Opened, Error> {
    if !is_plain_id(id) {
        // Ids of other surfaces can be addressed here, but not made.
        let found = app.sessions.find(&identity.caller, Some(pool), id);
        let session = found.map_err(|error| if error.kind == ErrorKind::NotFound { bad_id() } else { error })?;
        return Ok(Opened { session, created: false, allocation: Duration::ZERO });
    }
    app.sessions.open(&identity.caller, pool, Some(id), Create::IfMissing, &LimitsRequest::default()).await
}

/// Whether a session of this id may be made here.
pub(crate) fn is_plain_id(id: &str) -> bool {
    (4..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte))
}

/// What to say of an id that is none.
pub(crate) fn bad_id() -> Error {
    Error::new(ErrorKind::InvalidRequest, "the session id is not valid").hint("use 4 to 128 characters of `A-Z a-z 0-9 . _ : @ -`")
}

fn part(path: &str, number: usize) -> Result<String, Error> {
    let raw = path.split('/').nth(number.saturating_add(1)).unwrap_or_default();
    let bytes: Vec<u8> = percent_decode_str(raw).collect();
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidRequest, format!("part {} of the path is not UTF-8", number.saturating_add(1))))
}

pub(super) fn rest(path: &str, number: usize) -> Vec<u8> {
    percent_decode_str(path.splitn(number.saturating_add(2), '/').nth(number.saturating_add(1)).unwrap_or_default()).collect()
}

/// A query, decoded.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    fn parse(query: &str, names: &[&str]) -> Result<Self, Error> {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>();
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(decode(name)).unwrap_or_default();
            if !names.contains(&name.as_str()) {
                let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let hint = if known.is_empty() { "send no query".to_owned() } else { format!("the query takes {known}") };
                let name: String = name.chars().take(100).collect();
                return Err(Error::new(ErrorKind::InvalidRequest, format!("unknown query parameter `{name}`")).hint(hint));
            }
            if pairs.iter().any(|(there, _)| *there == name) {
                return Err(Error::new(ErrorKind::InvalidRequest, format!("the query parameter `{name}` stands there twice")));
            }
            pairs.push((name, decode(value)));
        }
        Ok(Self(pairs))
    }

    /// The bytes of a parameter.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_slice())
    }

    /// The text of a parameter.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let text = self.bytes(name).map(|bytes| String::from_utf8(bytes.to_vec())).transpose();
        text.map_err(|_| Error::new(ErrorKind::InvalidRequest, format!("the query parameter `{name}` is not UTF-8")))
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.bytes(name) {
            None | Some(b"false" | b"0") => Ok(false),
            Some(b"true" | b"1") => Ok(true),
            Some(_) => Err(Error::new(ErrorKind::InvalidRequest, format!("the query parameter `{name}` is neither `true` nor `false`"))),
        }
    }

    /// A number of this range.
    pub(crate) fn number(&self, name: &str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        // No sign, as `parse` would take one.
        let number = text.parse().ok().filter(|number| range.contains(number) && text.bytes().all(|byte| byte.is_ascii_digit()));
        number.map(Some).ok_or_else(|| {
            Error::new(ErrorKind::InvalidRequest, format!("the query parameter `{name}` is not a number from {} to {}", range.start(), range.end()))
        })
    }
}

/// What stays as it is in a link: the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a part of a path or query.
pub(crate) fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, ENCODED).to_string()
}

/// Percent-encodes a path, whose slashes stay.
pub(crate) fn encode_path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().split(|byte| *byte == b'/').map(encode).collect::<Vec<_>>().join("/")
}

/// How resources of MCP begin. A word where other schemes have a host: that part is not kept as it is by all who read addresses.
pub(crate) const RESOURCES: &str = "belljar://sessions/";

/// Where the things of a session are read: as links relative to the server, or as resources of MCP.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// The id by which the caller addresses the session.
    pub(crate) id: String,
    base: String,
    /// `pool=…`, where it is not the default one.
    pool: Option<String>,
}

impl Links {
    pub(crate) fn new(app: &App, pool: &str, id: &str) -> Self {
        Self::of(id, Some(pool).filter(|pool| *pool != app.default_pool))
    }

    pub(crate) fn of(id: &str, pool: Option<&str>) -> Self {
        Self { id: id.to_owned(), base: format!("/v1/sessions/{}", encode(id.as_bytes())), pool: pool.map(|pool| format!("pool={}", encode(pool.as_bytes()))) }
    }

    /// As resources of MCP.
    pub(crate) fn resources(app: &App, pool: &str, id: &str) -> Self {
        let links = Self::new(app, pool, id);
        Self { base: format!("{RESOURCES}{}", encode(id.as_bytes())), ..links }
    }

    fn link(&self, below: &str) -> String {
        match &self.pool {
            Some(pool) => format!("{}{below}?{pool}", self.base),
            None => format!("{}{below}", self.base),
        }
    }

    /// The session itself.
    pub(crate) fn session(&self) -> String {
        self.link("")
    }

    /// A file.
    pub(crate) fn file(&self, path: &std::path::Path) -> String {
        self.link(&format!("/files/{}", encode_path(path)))
    }

    /// A stream of an execution.
    pub(crate) fn written(&self, execution: &str, stream: &str) -> String {
        self.link(&format!("/executions/{}/{stream}", encode(execution.as_bytes())))
    }

    /// What an execution showed, counted from 0. A resource only.
    pub(crate) fn shown(&self, execution: &str, number: usize) -> String {
        self.link(&format!("/executions/{}/outputs/{number}", encode(execution.as_bytes())))
    }

    /// A list of files, with this query.
    pub(crate) fn files(&self, query: &str) -> String {
        let pool = self.pool.as_ref().map_or_else(String::new, |pool| format!("&{pool}"));
        format!("{}/files?{query}{pool}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[test]
    fn hostile_names_come_back_as_they_were() {
        let names: [&[u8]; 16] = [
            b"a\nb",
            b"\r\t\x1b[31m",
            b"\"",
            b";",
            b"...",
            b"-rf",
            b" x",
            b".x",
            &[b'n'; 255],
            b"\xff\xfe",
            "e\u{301}".as_bytes(),
            "é".as_bytes(),
            "\u{202e}gpj".as_bytes(),
            "\u{200b}".as_bytes(),
            b"%2e%2e",
            "😀?#&=+".as_bytes(),
        ];
        for name in names {
            let path = [b"folder/", name].concat();
            let link = Links::of("ab/cd", Some("p p")).file(Path::new(OsStr::from_bytes(&path)));
            let uri: axum::http::Uri = link.parse().unwrap();
            assert_eq!(rest(uri.path(), 4), path, "{link}");
            assert_eq!(part(uri.path(), 2).unwrap(), "ab/cd");
            assert_eq!(Query::parse(uri.query().unwrap(), &["pool"]).unwrap().text("pool").unwrap().unwrap(), "p p");
        }
    }

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(rest("/v1/sessions/x/files/%252e%252e%252fa", 4), b"%2e%2e%2fa");
        assert_eq!(rest("/v1/sessions/x/files//etc/passwd", 4), b"/etc/passwd");
        assert_eq!(rest("/v1/sessions/x/files/a/", 4), b"a/");
        assert!(part("/v1/sessions/%ff", 2).is_err());
    }

    #[test]
    fn queries_are_strict() {
        let query = Query::parse("path=a%20b+c%ff&recursive=true&limit=5", &["path", "recursive", "limit"]).unwrap();
        assert_eq!(query.bytes("path"), Some(&b"a b c\xff"[..]));
        assert!(query.text("path").is_err());
        assert!(query.flag("recursive").unwrap());
        assert_eq!(query.number("limit", 1..=10).unwrap(), Some(5));
        assert!(query.number("limit", 1..=4).is_err());
        assert!(query.flag("limit").is_err());
        assert!(Query::parse("limit=%2b5", &["limit"]).unwrap().number("limit", 1..=10).is_err());
        assert_eq!(Query::parse("x=1", &["pool"]).unwrap_err().hint.unwrap(), "the query takes `pool`");
        assert!(Query::parse("pool=a&pool=b", &["pool"]).is_err());
    }

    #[test]
    fn ids_that_may_be_made() {
        for id in ["abcd", "a.b_c:d@e-f", &"x".repeat(128)] {
            assert!(is_plain_id(id), "{id}");
        }
        for id in ["abc", "", "a b c", "abc/", "abcé", "ab\0cd", &"x".repeat(129)] {
            assert!(!is_plain_id(id), "{id}");
        }
    }
}
