//! The tool that searches files. Patterns come from anywhere: matching takes time in proportion to what is read, and that is bounded.

use std::fmt::Write;
use std::io::{self, BufReader};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::session::{FileEntry, Kind, Session};
use engine::{Error, ErrorKind};
use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::lines::LineReader;
use super::workspace::{Positioned, folder};
use super::{Match, Scope, ToolResult, cut, grouped, params};
use crate::json::Whole;

/// Matches where no number is asked for, and at most.
const RESULTS: u64 = 100;
const MAX_RESULTS: u64 = 500;
/// Of a file, so many bytes are searched.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Of all files together, so many bytes are searched.
const TOTAL_BYTES: u64 = 256 * 1024 * 1024;
/// A search takes no longer.
const TIME: Duration = Duration::from_secs(10);
/// Of a line, so many bytes are searched, and so many characters shown.
const LINE_BYTES: usize = 64 * 1024;
const SHOW_CHARACTERS: usize = 300;
/// A pattern may have this many bytes, and take this much memory.
const PATTERN_BYTES: usize = 4096;
const PATTERN_MEMORY: usize = 2 * 1024 * 1024;

/// Parameters of `SearchSessionFiles`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SearchSessionFilesParams, example = json!({"pattern": "def \\w+", "include": "*.py"}))]
pub(crate) struct Params {
    /// A regular expression that is looked for in each line.
    #[schema(min_length = 1, max_length = 4096)]
    pattern: String,
    /// A folder or file to search, relative to /mnt/data; everything where none is named.
    path: Option<String>,
    /// Only files whose name matches this glob, such as *.csv; with a slash it is matched against the whole path.
    include: Option<String>,
    /// At most so many matches.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 500, default = 100)]
    max_results: Option<Whole>,
}

/// `SearchSessionFiles`
pub(super) async fn run(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: Params = params("SearchSessionFiles", asked)?;
    let pattern = pattern(&asked.pattern)?;
    let include = asked.include.as_deref().map(Include::new).transpose()?;
    let place = folder(asked.path.as_deref())?;
    let most = asked.max_results.map_or(RESULTS, |Whole(number)| number);
    if !(1..=MAX_RESULTS).contains(&most) {
        return Err(Error::new(ErrorKind::InvalidRequest, format!("`maxResults` is {most}, not within 1 to {MAX_RESULTS}")).hint("leave it out for 100"));
    }
    let session = scope.find()?;
    session.begin_search(&place).await?;
    let mut incomplete = false;
    let entries = match session.file(&place).await {
        Ok(entry) if entry.kind == Kind::File && !place.as_os_str().is_empty() => vec![entry],
        _ => {
            let listing = session.files(&place, true).await?;
            incomplete |= listing.incomplete;
            listing.entries
        }
    };
    let files = entries.into_iter().filter(|entry| entry.kind == Kind::File && include.as_ref().is_none_or(|include| include.fits(entry)));
    let search = Search { pattern, most: usize::try_from(most).unwrap_or(usize::MAX), until: Instant::now() + TIME };
    let found = search.all(&session, files).await?;
    incomplete |= found.incomplete;
    let mut text = match found.matches.len() {
        0 => format!("no match in {} files\n", grouped(found.files)),
        count => format!("{} match{} in {} files searched:\n", grouped(count), if count == 1 { "" } else { "es" }, grouped(found.files)),
    };
    for one in &found.matches {
        let _ = writeln!(text, "{}:{}: {}", one.file, one.line, one.text);
    }
    if incomplete {
        text.push_str("[not everything was searched or shown: narrow it with `path`, `include` or `pattern`]\n");
    }
    Ok(ToolResult { matches: Some(found.matches), incomplete, ..ToolResult::new("SearchSessionFiles", scope.links(), text) })
}

fn pattern(text: &str) -> Result<Regex, Error> {
    let hint = "use the syntax of Rust's regex crate: like Perl's, without look-around and back references; escape special characters with a backslash";
    let refuse = |reason: String| Error::new(ErrorKind::InvalidRequest, format!("`pattern` {reason}")).hint(hint);
    if text.is_empty() || text.len() > PATTERN_BYTES {
        return Err(refuse(format!("has {} bytes, not within 1 to {PATTERN_BYTES}", text.len())));
    }
    RegexBuilder::new(text).size_limit(PATTERN_MEMORY).dfa_size_limit(PATTERN_MEMORY).build().map_err(|error| {
        // The reason is the last line; the lines before draw the pattern.
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        refuse(format!("is not a regular expression: {reason}"))
    })
}

/// Which files are searched.
#[derive(Debug)]
struct Include {
    glob: GlobMatcher,
    by_name: bool,
}

impl Include {
    fn new(text: &str) -> Result<Self, Error> {
        let refuse = |reason: String| {
            Error::new(ErrorKind::InvalidRequest, format!("`include` is not a glob: {reason}")).hint("use a glob such as *.csv or data/**/*.json")
        };
        if text.is_empty() || text.len() > PATTERN_BYTES {
            return Err(refuse(format!("it has {} bytes", text.len())));
        }
        let text = text.strip_prefix("/mnt/data/").unwrap_or(text);
        let glob = GlobBuilder::new(text).literal_separator(true).build().map_err(|error| refuse(error.kind().to_string()))?;
        Ok(Self { glob: glob.compile_matcher(), by_name: !text.contains('/') })
    }

    fn fits(&self, entry: &FileEntry) -> bool {
        match entry.path.file_name() {
            Some(name) if self.by_name => self.glob.is_match(name),
            _ => self.glob.is_match(&entry.path),
        }
    }
}

#[derive(Debug)]
struct Search {
    pattern: Regex,
    most: usize,
    until: Instant,
}

#[derive(Debug, Default)]
struct Found {
    matches: Vec<Match>,
    files: usize,
    incomplete: bool,
}

impl Search {
    async fn all(&self, session: &Arc<Session>, files: impl Iterator<Item = FileEntry>) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut left = TOTAL_BYTES;
        for entry in files {
            let room = self.most.saturating_sub(found.matches.len());
            if room == 0 || left == 0 || Instant::now() >= self.until {
                found.incomplete = true;
                break;
            }
            // Gone or changed in between: nothing to search.
            let Ok((file, now)) = session.open_searched(&entry.path).await else { continue };
            let size = now.size.min(FILE_BYTES).min(left);
            left = left.saturating_sub(size);
            found.files = found.files.saturating_add(1);
            found.incomplete |= size < now.size;
            let (pattern, until) = (self.pattern.clone(), self.until);
            let reader = Positioned::new(file, size);
            let searched = tokio::task::spawn_blocking(move || one(reader, &pattern, room, until)).await;
            let searched = searched.map_err(|_| Error::new(ErrorKind::Internal, "the search failed"))?;
            // What cannot be read is left out, and that is said.
            let Ok((lines, is_whole)) = searched else {
                found.incomplete = true;
                continue;
            };
            let name = entry.path.to_string_lossy();
            found.matches.extend(lines.into_iter().map(|(line, text)| Match { file: name.clone().into_owned(), line, text }));
            found.incomplete |= !is_whole;
        }
        Ok(found)
    }
}

/// The lines of a file that match, with their numbers, and whether all of it was searched.
fn one(file: Positioned, pattern: &Regex, room: usize, until: Instant) -> io::Result<(Vec<(u64, String)>, bool)> {
    let mut reader = LineReader::new(BufReader::with_capacity(64 * 1024, file), LINE_BYTES);
    let mut matches = Vec::new();
    if reader.is_binary()? {
        return Ok((matches, true));
    }
    let (mut number, mut is_whole) = (0_u64, true);
    while reader.advance()? {
        number = number.saturating_add(1);
        is_whole &= !reader.is_cut();
        if number.is_multiple_of(64) && Instant::now() >= until {
            return Ok((matches, false));
        }
        if !pattern.is_match(reader.line()) {
            continue;
        }
        if matches.len() >= room {
            return Ok((matches, false));
        }
        let line = String::from_utf8_lossy(reader.line());
        let (shown, more) = cut(&line, SHOW_CHARACTERS);
        let text = if more.is_some() { format!("{shown}…") } else { shown.to_owned() };
        matches.push((number, text));
    }
    Ok((matches, is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::time::SystemTime;

    fn search(text: &[u8], regex: &str, room: usize) -> (Vec<(u64, String)>, bool) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        one(Positioned::new(file, text.len() as u64), &pattern(regex).unwrap(), room, Instant::now() + TIME).unwrap()
    }

    #[test]
    fn lines_are_found_with_their_numbers() {
        assert_eq!(search(b"a\nbb\r\nab\n", "^b+$", 9), (vec![(2, "bb".to_owned())], true));
        assert_eq!(search(b"x\nx\nx\n", "x", 2), (vec![(1, "x".to_owned()), (2, "x".to_owned())], false));
        assert_eq!(search(b"a\0b", "a", 9), (vec![], true), "binary files are skipped");
        assert_eq!(search(b"\xffa", "a", 9).0, [(1, "\u{fffd}a".to_owned())]);
        let long = search(&vec![b'x'; 1_000_000], "x", 9);
        assert!(long.0[0].1.chars().count() == SHOW_CHARACTERS + 1 && !long.1);
    }

    #[test]
    fn a_search_ends_in_time() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&b"a\n".repeat(1000)).unwrap();
        let (matches, whole) = one(Positioned::new(file, 2000), &pattern("b").unwrap(), 9, Instant::now()).unwrap();
        assert!(matches.is_empty() && !whole);
    }

    #[test]
    fn bad_patterns_are_refused_with_the_reason() {
        for bad in ["(", "", "(?=x)", "\\1", "a{1000}{1000}", &"x".repeat(5000)] {
            let error = pattern(bad).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidRequest && error.hint.is_some() && error.message.len() < 200, "{bad}: {error}");
        }
        assert!(Include::new("[").is_err() && Include::new("").is_err());
    }

    #[test]
    fn globs_by_name_or_by_path() {
        let entry = |path: &str| FileEntry { path: path.into(), kind: Kind::File, size: 0, modified: SystemTime::UNIX_EPOCH, media_type: String::new() };
        let fits = |glob: &str, path: &str| Include::new(glob).unwrap().fits(&entry(path));
        assert!(fits("*.py", "a/b/c.py") && !fits("*.py", "a.pyc"));
        assert!(fits("a/*.py", "a/c.py") && !fits("a/*.py", "a/b/c.py") && fits("a/**/*.py", "a/b/c.py"));
        assert!(fits("/mnt/data/a/*", "a/c"));
    }
}
