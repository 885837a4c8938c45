//! What a query says. Clients differ in what they encode: some encode nothing.

use std::borrow::Cow;
use std::path::PathBuf;

use engine::session::parse_path;
use percent_encoding::{percent_decode, percent_decode_str};

use super::error::Refusal;

/// The first version of the new form.
const NEW_FORM: &str = "2024-10";
/// Where files of a session are, inside.
const DATA: &str = "/mnt/data";

/// A query.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect())
    }

    /// The first value of this name, as it stands there. A name without a value is as good as none.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty()).map(|(_, value)| *value)
    }

    /// The same, decoded as forms are.
    fn decoded(&self, name: &str) -> Option<Vec<u8>> {
        self.raw(name).map(|value| percent_decode(value.replace('+', " ").as_bytes()).collect())
    }

    /// The same, as text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.decoded(name).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// `api-version`: any, but there must be one.
    pub(super) fn version(&self) -> Result<&'a str, Refusal> {
        self.raw("api-version").ok_or_else(|| Refusal::bad("the query needs `api-version`"))
    }

    /// Whether files are shown in the old form.
    pub(super) fn is_old(&self) -> bool {
        self.raw("api-version").is_some_and(|version| version < NEW_FORM)
    }

    /// `identifier`, or the one that stands in the body.
    pub(super) fn identifier(&self, body: Option<&str>) -> Result<String, Refusal> {
        let of_query = self.raw("identifier").map(|raw| percent_decode_str(raw).decode_utf8());
        let text = match (of_query, body) {
            (Some(decoded), _) => decoded.map_err(|_| wrong_identifier())?,
            (None, Some(body)) => Cow::Borrowed(body),
            (None, None) => return Err(Refusal::bad("the query needs `identifier`")),
        };
        if is_identifier(&text) { Ok(text.into_owned()) } else { Err(wrong_identifier()) }
    }

    /// Whether this is set.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A number; none where it is none.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.raw(name)?.parse().ok()
    }

    /// `path`: a folder of the workspace, empty for the workspace itself.
    pub(super) fn folder(&self) -> Result<PathBuf, Refusal> {
        let folder = self.decoded("path").unwrap_or_default();
        let below = folder.strip_prefix(DATA.as_bytes()).filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
        let text = below.map_or(folder.as_slice(), |rest| rest.get(rest.iter().take_while(|byte| **byte == b'/').count()..).unwrap_or_default());
        let end = text.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last.saturating_add(1));
        let text = text.get(..end).unwrap_or_default();
        if text.is_empty() || text == b"." { Ok(PathBuf::new()) } else { Ok(parse_path(text)?) }
    }

    /// A file of the workspace: its name, in the folder that the query says.
    pub(super) fn file(&self, name: &[u8]) -> Result<PathBuf, Refusal> {
        let path = parse_path(name)?;
        // With its whole path in the name there is no folder to look into.
        if name.starts_with(DATA.as_bytes()) && name.get(DATA.len()) == Some(&b'/') { Ok(path) } else { Ok(self.folder()?.join(path)) }
    }

    /// The same, of a name that stands in a path or a query.
    pub(super) fn encoded_file(&self, name: &str) -> Result<PathBuf, Refusal> {
        self.file(&percent_decode_str(name).collect::<Vec<u8>>())
    }
}

fn wrong_identifier() -> Refusal {
    Refusal::bad("`identifier` must have 4 to 128 characters: letters, digits and ASCII punctuation but the backslash")
}

/// The class that the service publishes.
fn is_identifier(text: &str) -> bool {
    (4..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[test]
    fn identifiers_are_of_the_published_class() {
        let of = |query: &str| Query::new(query).identifier(None).map_err(|refusal| refusal.status());
        assert_eq!(of("api-version=1&identifier=abcd"), Ok("abcd".to_owned()));
        assert_eq!(of("identifier=user%2Fa%3Ab%25"), Ok("user/a:b%".to_owned()));
        // Clients that encode nothing.
        assert_eq!(of("identifier=a+b/c|d{e}[f]<g>^h`i~!@$*()_-=;:'\",.?100%"), Ok("a+b/c|d{e}[f]<g>^h`i~!@$*()_-=;:'\",.?100%".to_owned()));
        assert_eq!(of(&format!("identifier={}", "x".repeat(128))), Ok("x".repeat(128)));
        for bad in [
            "identifier=abc",
            "identifier=",
            "",
            "identifier=ab%20cd",
            "identifier=ab%5Ccd",
            "identifier=%C3%A9%C3%A9%C3%A9",
            "identifier=%ff%ff%ff%ff",
            "identifier=abc%00",
        ] {
            assert_eq!(of(bad), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
        assert_eq!(of(&format!("identifier={}", "x".repeat(129))), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn the_body_names_the_session_where_the_query_does_not() {
        assert_eq!(Query::new("identifier=query").identifier(Some("body1")).unwrap(), "query");
        assert_eq!(Query::new("api-version=1").identifier(Some("body1")).unwrap(), "body1");
        assert_eq!(Query::new("identifier=").identifier(Some("body1")).unwrap(), "body1");
        assert_eq!(Query::new("").identifier(Some("no\n")).unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn the_form_follows_the_version() {
        for (version, old) in
            [("2024-02-02-preview", true), ("2024-08-02-preview", true), ("2024-10-02-preview", false), ("2025-10-02-preview", false), ("2026-01-01", false)]
        {
            assert_eq!(Query::new(&format!("api-version={version}")).is_old(), old, "{version}");
        }
        assert_eq!(Query::new("identifier=abcd").version().unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
