//! JSON from callers, read strictly: one document, no key twice, bounded depth and count, and errors that name the field.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use engine::{Error, ErrorKind};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

/// Values and keys of one document; each takes many times its text in memory.
const MAX_VALUES: usize = 250_000;
/// An error tells at most so much, in bytes: it may quote what the caller sent.
const MAX_MESSAGE: usize = 300;

/// Reads one document.
///
/// # Errors
/// `invalid_request`, with the field and the offset in bytes; `too_large` for too many values.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    check(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut reader).map(|Object(value)| value).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        let offset = offset(bytes, &cause);
        invalid(Some(&path), &cause, offset)
    })
}

/// Reads what has been parsed already.
///
/// # Errors
/// `invalid_request`, with the field.
pub(crate) fn from_value<T: DeserializeOwned>(value: Json) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map(|Object(value)| value).map_err(|error| {
        let path = error.path().to_string();
        invalid(Some(&path), &error.into_inner(), None)
    })
}

/// Whether this is one document without a key twice and without too many values.
///
/// # Errors
/// `invalid_request`, with the offset in bytes; `too_large` for too many values.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut left = MAX_VALUES;
    let result = Unique { left: &mut left }.deserialize(&mut reader).and_then(|()| reader.end());
    match result {
        Ok(()) => Ok(()),
        Err(_) if left == 0 => Err(Error::new(ErrorKind::TooLarge, format!("the body has more than {MAX_VALUES} values")).hint("upload large data as a file")),
        Err(error) => Err(invalid(None, &error, offset(bytes, &error))),
    }
}

fn invalid(path: Option<&str>, cause: &serde_json::Error, offset: Option<usize>) -> Error {
    let mut cause = cause.to_string();
    // The position is told as an offset, which holds for bodies of one line too.
    if let Some(at) = cause.rfind(" at line ") {
        cause.truncate(at);
    }
    if cause.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| cause.is_char_boundary(*end)).unwrap_or_default();
        cause.truncate(end);
        cause.push('…');
    }
    let place = match path {
        Some(path) if path != "." && path != "?" => {
            let path: String = path.chars().take(MAX_MESSAGE).collect();
            format!("`{path}`: ")
        }
        Some(_) => String::new(),
        None => "the body is not valid JSON: ".to_owned(),
    };
    let offset = offset.map_or_else(String::new, |offset| format!(" (at byte {offset})"));
    Error::new(ErrorKind::InvalidRequest, format!("{place}{cause}{offset}"))
}

/// The offset of an error in bytes.
fn offset(bytes: &[u8], error: &serde_json::Error) -> Option<usize> {
    let lines_before = error.line().checked_sub(1)?;
    let start: usize = bytes.split_inclusive(|byte| *byte == b'\n').take(lines_before).map(<[u8]>::len).sum();
    Some(start.saturating_add(error.column()))
}

/// Visits everything, keeps nothing.
struct Unique<'a> {
    left: &'a mut usize,
}

impl Unique<'_> {
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        *self.left = self.left.saturating_sub(1);
        if *self.left == 0 { Err(E::custom("too many values")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Unique { left: &mut *self.left })?.is_some() {
            self.count()?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.count::<A::Error>()?;
            if keys.contains(&key) {
                // Read on before failing: the error then names a place behind the key.
                let _ = entries.next_value::<IgnoredAny>();
                return Err(serde::de::Error::custom(format!("the key `{key}` stands there twice")));
            }
            entries.next_value_seed(Unique { left: &mut *self.left })?;
            keys.insert(key);
        }
        Ok(())
    }
}

/// A struct that is written as an object; derived readers would take an array too.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(entries)).map(Object)
    }
}

/// A whole number of seconds; `5.0` is one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Whole, E> {
        Ok(Whole(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Whole, E> {
        u64::try_from(value).map(Whole).map_err(|_| E::custom("a negative number makes no sense here"))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Whole, E> {
        // Beyond 2^53 a float is not exact, and no number here is that large.
        if value.fract() == 0.0 && (0.0..9.0e15).contains(&value) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked in the line above")]
            return Ok(Whole(value as u64));
        }
        Err(E::invalid_value(serde::de::Unexpected::Float(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Thing {
        #[expect(dead_code, reason = "only read by serde")]
        code: String,
        #[serde(default)]
        timeout_seconds: Option<Whole>,
        #[serde(default)]
        #[expect(dead_code, reason = "only read by serde")]
        inputs: serde_json::Map<String, Json>,
    }

    fn refusal(body: &str) -> String {
        let error = parse::<Thing>(body.as_bytes()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidRequest, "{body}: {error}");
        error.message
    }

    #[test]
    fn refusals_name_field_and_place() {
        let cases = [
            (r#"{"code": 5}"#, "`code`: invalid type: integer `5`, expected a string (at byte 10)"),
            ("{\n\"code\": \"x\",\n \"timeoutSeconds\": -1}", "`timeoutSeconds`: a negative number makes no sense here (at byte 36)"),
            (r#"{"code":"x","timeoutSeconds":1.5}"#, "`timeoutSeconds`: invalid value: floating point `1.5`, expected a whole number"),
            (r#"{"code":"x","oops":1}"#, "`oops`: unknown field `oops`"),
            (r"{}", "missing field `code`"),
            (r#"{"code":"x","code":"y"}"#, "the body is not valid JSON: the key `code` stands there twice"),
            (r#"{"code":"x","inputs":{"a":{"b":1,"b":2}}}"#, "the body is not valid JSON: the key `b` stands there twice"),
            (r#"{"code":"x"} {}"#, "the body is not valid JSON: trailing characters (at byte 14)"),
            (r#"{"code":NaN}"#, "the body is not valid JSON: expected value (at byte 9)"),
            (r#"{"code":"x","inputs":{"a":1e999}}"#, "the body is not valid JSON: number out of range"),
            (r#"{"code":"\ud800"}"#, "the body is not valid JSON: "),
            ("\u{feff}{\"code\":\"x\"}", "the body is not valid JSON: expected value"),
            ("", "the body is not valid JSON: EOF while parsing a value"),
            (r#"["x"]"#, "invalid type: sequence, expected an object"),
        ];
        for (body, expected) in cases {
            let message = refusal(body);
            assert!(message.starts_with(expected), "{body}: {message}");
        }
    }

    #[test]
    fn bombs_are_refused_and_not_quoted() {
        let deep = format!(r#"{{"code":"x","inputs":{{"a":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(refusal(&deep).contains("recursion limit"));
        let wide = format!(r#"{{"code":"x","inputs":{{"a":[{}0]}}}}"#, "0,".repeat(MAX_VALUES));
        assert_eq!(parse::<Thing>(wide.as_bytes()).unwrap_err().kind, ErrorKind::TooLarge);
        let long = format!(r#"{{"code":"x","timeoutSeconds":"{}"}}"#, "ö".repeat(10_000));
        assert!(refusal(&long).len() < 2 * MAX_MESSAGE);
        let mut invalid = br#"{"code":"x"}"#.to_vec();
        invalid[9] = 0xff;
        assert_eq!(parse::<Thing>(&invalid).unwrap_err().kind, ErrorKind::InvalidRequest);
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        assert_eq!(parse::<Thing>(br#"{"code":"x","timeoutSeconds":5.0}"#).unwrap().timeout_seconds, Some(Whole(5)));
        assert_eq!(from_value::<Thing>(serde_json::json!({"code": "x", "timeoutSeconds": 7})).unwrap().timeout_seconds, Some(Whole(7)));
        assert_eq!(from_value::<Thing>(serde_json::json!({"code": 1})).unwrap_err().message, "`code`: invalid type: integer `1`, expected a string");
    }
}
