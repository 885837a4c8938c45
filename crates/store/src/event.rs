//! What can be put on record: a closed vocabulary, and text that is bounded and cannot break out of its place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

use serde_json::Value as Json;

use crate::time;

/// A text may be this long in bytes, mark included.
const TEXT_BYTES: usize = 4096;
/// All details of an event may be this long in bytes.
const DETAIL_BYTES: usize = 16 * 1024;
/// A list or an object may have so many entries.
const ENTRIES: usize = 100;
/// Lists and objects may stand so deep in each other.
const DEPTH: usize = 8;
/// Stands where something was left out.
const MARK: &str = "…[cut]";

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// What happened. Nothing else can be put on record.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum EventKind { $($(#[$doc])* $variant),* }

        impl EventKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name on record.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

kinds! {
    /// A server began to serve.
    ServerStarted = "server_started",
    /// A server ended in good order.
    ServerStopped = "server_stopped",
    /// An execution is about to start.
    ExecutionIntended = "execution_intended",
    /// An execution has ended.
    ExecutionConcluded = "execution_concluded",
    /// A session was made.
    SessionCreated = "session_created",
    /// A session has ended.
    SessionEnded = "session_ended",
    /// A caller wrote a file.
    FileWritten = "file_written",
    /// A caller read a file.
    FileRead = "file_read",
    /// A caller removed a file.
    FileRemoved = "file_removed",
    /// An API key was made.
    KeyCreated = "key_created",
    /// An API key was revoked.
    KeyRevoked = "key_revoked",
    /// A call was refused.
    CallRefused = "call_refused",
}

impl EventKind {
    /// The kind of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// Something that happened. Texts over 4 KiB are cut, with a mark.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// What.
    pub kind: EventKind,
    /// Who.
    pub principal: Option<String>,
    /// In which pool.
    pub pool: Option<String>,
    /// In which session, by the id that its caller gave it.
    pub session: Option<String>,
    /// The session's own id.
    pub session_guid: Option<String>,
    /// Which execution.
    pub execution: Option<String>,
    /// What else there is to know. Never code or output: the record may be read by people who may not read those.
    pub detail: BTreeMap<&'static str, Json>,
}

impl Event {
    /// An event that happens now.
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        let at = SystemTime::now();
        Self { at, kind, principal: None, pool: None, session: None, session_guid: None, execution: None, detail: BTreeMap::new() }
    }

    /// By this principal.
    #[must_use]
    pub fn by(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// With one more detail.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Json>) -> Self {
        self.detail.insert(name, value.into());
        self
    }
}

/// An event as it will stand in its row: every text bounded.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) at: String,
    pub(crate) kind: EventKind,
    pub(crate) principal: Option<String>,
    pub(crate) pool: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) session_guid: Option<String>,
    pub(crate) execution: Option<String>,
    pub(crate) detail: String,
}

impl From<Event> for Row {
    fn from(event: Event) -> Self {
        let own = |text: Option<String>| text.map(|text| if text.len() > TEXT_BYTES { bounded(&text).into_owned() } else { text });
        Self {
            at: time::format(event.at),
            kind: event.kind,
            principal: own(event.principal),
            pool: own(event.pool),
            session: own(event.session),
            session_guid: own(event.session_guid),
            execution: own(event.execution),
            detail: canonical(&event.detail),
        }
    }
}

/// Cuts between two characters, and says so.
fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let mut end = TEXT_BYTES.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{MARK}", text.get(..end).unwrap_or_default()))
}

/// JSON with its keys in order and no space, so that equal details are equal text; and in one line of characters that only show, so that
/// it can be looked at with anything.
fn canonical(detail: &BTreeMap<&'static str, Json>) -> String {
    let mut text = String::from("{");
    for (index, (name, value)) in detail.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_text(&mut text, name);
        text.push(':');
        push(&mut text, value, DEPTH);
    }
    text.push('}');
    if text.len() > DETAIL_BYTES { "{\"cut\":true}".to_owned() } else { text }
}

fn push(text: &mut String, value: &Json, depth: usize) {
    // Too much already: the rest would be thrown away with it.
    if text.len() > DETAIL_BYTES {
        return;
    }
    match value {
        Json::String(string) => push_text(text, string),
        Json::Array(_) | Json::Object(_) if depth == 0 => push_text(text, MARK),
        Json::Array(list) => {
            text.push('[');
            for (index, entry) in list.iter().take(ENTRIES).enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push(text, entry, depth - 1);
            }
            if list.len() > ENTRIES {
                text.push(',');
                push_text(text, MARK);
            }
            text.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().take(ENTRIES).collect();
            members.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, entry)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push_text(text, name);
                text.push(':');
                push(text, entry, depth - 1);
            }
            text.push('}');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => text.push_str(&value.to_string()),
    }
}

fn push_text(text: &mut String, from: &str) {
    text.push('"');
    for character in bounded(from).chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            acts if acts.is_control() || matches!(acts, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}') => {
                let _ = write!(text, "\\u{:04x}", u32::from(acts));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_vocabulary_is_as_published() {
        let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.join("\n"), include_str!("event.golden.txt").trim_end(), "if this is meant, write it into event.golden.txt");
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of(kind.name()), Some(*kind));
        }
        assert_eq!(EventKind::of("execution"), None);
    }

    #[test]
    fn details_are_in_order_and_in_one_line() {
        let event = Event::new(EventKind::CallRefused).with("b", json!({"z": 1, "a": [true, null, 1.5]})).with("a", "x\"\\\n\u{1b}[2J\u{9b}m\u{202e}\u{7f}ü");
        assert_eq!(Row::from(event).detail, r#"{"a":"x\"\\\u000a\u001b[2J\u009bm\u202e\u007fü","b":{"a":[true,null,1.5],"z":1}}"#);
    }

    #[test]
    fn what_is_too_much_is_cut_with_a_mark() {
        let long = "€".repeat(50_000_000 / 3);
        let row = Row::from(Event { session: Some(long.clone()), ..Event::new(EventKind::FileRead) }.with("path", long));
        let session = row.session.unwrap();
        assert!(session.len() <= TEXT_BYTES && session.len() > TEXT_BYTES - 10 && session.ends_with("€…[cut]"), "{} bytes", session.len());
        let detail: Json = serde_json::from_str(&row.detail).unwrap();
        assert_eq!(detail["path"].as_str().unwrap(), session);
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        let wide = json!(vec![1; 1000]);
        let detail = Row::from(Event::new(EventKind::FileRead).with("deep", deep).with("wide", wide)).detail;
        assert!(detail.contains("[[[[[[[[\"…[cut]\"]]]]]]]]") && detail.contains(",1,\"…[cut]\"]"), "{detail}");
        let much = json!(vec!["x".repeat(4000); 50]);
        assert_eq!(Row::from(Event::new(EventKind::FileRead).with("much", much)).detail, r#"{"cut":true}"#);
    }

    proptest! {
        #[test]
        fn no_text_breaks_out(text in ".{0,200}|\\PC{0,50}[\\x00-\\x1f\\x7f-\\u{9f}\"\\\\]{0,50}", key in ".{0,20}") {
            let detail = json!({key.clone(): text.clone()});
            let row = Row::from(Event::new(EventKind::FileRead).with("path", text.clone()).with("more", detail.clone()));
            prop_assert!(!row.detail.chars().any(char::is_control), "{}", row.detail);
            let parsed: Json = serde_json::from_str(&row.detail).unwrap();
            prop_assert_eq!(parsed, json!({"more": detail, "path": text}));
        }
    }
}
