//! What a request to execute says: in either form, wrapped or not, with words in any case, and with fields that nobody knows.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::ErrorKind;
use serde_json::{Map, Value as Json};

use super::error::Refusal;
use super::shell;
use crate::json;

/// The longest time on this surface, in seconds.
pub(super) const MAX_SECONDS: u64 = 220;
/// Base64 as it comes, with padding or without.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A request to execute.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Requested {
    pub(super) work: Work,
    pub(super) asynchronous: bool,
    pub(super) seconds: Option<u64>,
    pub(super) identifier: Option<String>,
    /// Characters of each stream that the answer has at most.
    pub(super) max_length: Option<usize>,
    /// Run as if nothing had run before.
    pub(super) empty_kernel: bool,
    /// The value as a notebook shows it.
    pub(super) jupyter: bool,
}

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    Python(Vec<u8>),
    Shell(String),
}

impl Requested {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        // Bounded as everywhere: 16 MiB of small values would take hundreds of megabytes.
        let whole: Map<String, Json> = json::parse(body).map_err(|error| match error.kind {
            ErrorKind::InvalidRequest => Refusal::bad(format!("the body must be a JSON object: {}", error.message)),
            _ => Refusal::from(error),
        })?;
        let fields = Fields { inner: member(&whole, "properties").and_then(Json::as_object), whole: &whole };
        let shell = shell_work(&fields)?;
        let code = fields.text("code")?.map_or_else(|| fields.text("pythonCode"), |code| Ok(Some(code)))?;
        let work = match (shell, code) {
            (Some(_), Some(_)) => return Err(Refusal::bad("`code` excludes `shellCommand` and `execCommandAndArgs`")),
            (Some(shell), None) => shell,
            (None, Some(code)) => Work::Python(some_code(decode(&fields, code)?)),
            (None, None) => return Err(Refusal::bad("the body needs `code`, `shellCommand` or `execCommandAndArgs`")),
        };
        Ok(Self {
            work,
            asynchronous: is_asynchronous(&fields)?,
            seconds: seconds(&fields)?,
            identifier: fields.text("identifier")?.map(str::to_owned),
            max_length: max_length(&fields)?,
            empty_kernel: fields.flag("useEmptyKernel")?,
            jupyter: fields.flag("returnJupyterFormatExecutionResult")?,
        })
    }
}

/// The fields of a body: within `properties`, or beside it.
struct Fields<'a> {
    inner: Option<&'a Map<String, Json>>,
    whole: &'a Map<String, Json>,
}

impl<'a> Fields<'a> {
    /// A field that is there, and not null.
    fn get(&self, name: &str) -> Option<&'a Json> {
        self.inner.and_then(|inner| member(inner, name)).or_else(|| member(self.whole, name))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.get(name).map(|value| value.as_str().ok_or_else(|| Refusal::bad(format!("`{name}` must be text")))).transpose()
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        let value = self.get(name).map(|value| value.as_bool().ok_or_else(|| Refusal::bad(format!("`{name}` must be true or false"))));
        value.unwrap_or(Ok(false))
    }

    /// A whole number, or its text.
    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        number.map(Some).ok_or_else(|| Refusal::bad(format!("`{name}` must be a whole number")))
    }
}

fn member<'a>(fields: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    let found = fields.get(name).or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

fn shell_work(fields: &Fields<'_>) -> Result<Option<Work>, Refusal> {
    let command = match (fields.text("shellCommand")?, fields.get("execCommandAndArgs")) {
        (Some(_), Some(_)) => return Err(Refusal::bad("`shellCommand` and `execCommandAndArgs` exclude each other")),
        (Some(command), None) => command.to_owned(),
        (None, Some(words)) => {
            let words: Option<Vec<String>> = words.as_array().and_then(|words| words.iter().map(|word| word.as_str().map(str::to_owned)).collect());
            shell::command_line(&words.ok_or_else(|| Refusal::bad("`execCommandAndArgs` must be a list of texts"))?).map_err(Refusal::bad)?
        }
        (None, None) => return Ok(None),
    };
    let command = match fields.text("stdin")? {
        Some(input) => shell::with_input(&command, input),
        None => command,
    };
    if command.contains('\0') {
        return Err(Refusal::bad("a command cannot contain a NUL character"));
    }
    Ok(Some(Work::Shell(command)))
}

/// AutoGen sends the file of its functions where there are none, too. Nothing is done, and that is a success.
fn some_code(code: Vec<u8>) -> Vec<u8> {
    if code.trim_ascii().is_empty() { b"pass".to_vec() } else { code }
}

fn decode(fields: &Fields<'_>, code: &str) -> Result<Vec<u8>, Refusal> {
    match fields.text("codeInputType")?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("inline" | "inlinetext") => Ok(code.as_bytes().to_vec()),
        Some("inlinebase64") => {
            let text: Vec<u8> = code.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            BASE64.decode(text).map_err(|_| Refusal::bad("`code` is not base64, which `codeInputType` says it is"))
        }
        Some(_) => Err(Refusal::bad("`codeInputType` must be `Inline`, `InlineText` or `InlineBase64`")),
    }
}

fn is_asynchronous(fields: &Fields<'_>) -> Result<bool, Refusal> {
    match fields.text("executionType")?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("synchronous") => Ok(false),
        Some("asynchronous") => Ok(true),
        Some(_) => Err(Refusal::bad("`executionType` must be `Synchronous` or `Asynchronous`")),
    }
}

fn seconds(fields: &Fields<'_>) -> Result<Option<u64>, Refusal> {
    let Some(seconds) = fields.number("timeoutInSeconds")? else { return Ok(None) };
    let seconds = u64::try_from(seconds).ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    seconds.map(Some).ok_or_else(|| Refusal::bad(format!("`timeoutInSeconds` must be between 1 and {MAX_SECONDS}")))
}

fn max_length(fields: &Fields<'_>) -> Result<Option<usize>, Refusal> {
    let Some(length) = fields.number("outputStreamsMaxLength")? else { return Ok(None) };
    usize::try_from(length).map(Some).map_err(|_| Refusal::bad("`outputStreamsMaxLength` must not be negative"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(body: &Json) -> Result<Requested, String> {
        Requested::parse(body.to_string().as_bytes()).map_err(|refusal| format!("{refusal:?}"))
    }

    fn code(body: &Json) -> String {
        match parse(body).unwrap().work {
            Work::Python(code) => String::from_utf8(code).unwrap(),
            Work::Shell(command) => panic!("{command}"),
        }
    }

    #[test]
    fn bodies_of_both_forms_are_read_on_both_routes() {
        let wrapped = json!({"properties": {"codeInputType": "inline", "executionType": "synchronous", "code": "1+1"}});
        let flat = json!({"codeInputType": "Inline", "executionType": "Synchronous", "code": "1+1", "timeoutInSeconds": 100});
        let dotnet = json!({"identifier": "abcd", "codeInputType": "Inline", "executionType": "Synchronous", "timeoutInSeconds": 100, "pythonCode": "1+1"});
        let cased =
            json!({"Properties": {"CodeInputType": "INLINE", "ExecutionType": "SYNCHRONOUS", "Code": "1+1", "sanitizeInput": true, "x": [1]}, "y": null});
        let nulls = json!({"properties": {"code": "1+1", "timeoutInSeconds": null, "identifier": null, "codeInputType": null}});
        for body in [wrapped, flat, dotnet, cased, nulls] {
            assert_eq!(code(&body), "1+1", "{body}");
        }
        assert_eq!(code(&json!({"codeInputType": "InlineText", "code": "é"})), "é");
    }

    #[test]
    fn everything_that_can_be_said_is_understood() {
        let body = json!({
            "properties": {"code": "x", "executionType": "asynchronous", "timeoutInSeconds": 220, "outputStreamsMaxLength": 10},
            "identifier": "abcd", "useEmptyKernel": false, "returnJupyterFormatExecutionResult": true,
        });
        let expected = Requested {
            work: Work::Python(b"x".to_vec()),
            asynchronous: true,
            seconds: Some(220),
            identifier: Some("abcd".to_owned()),
            max_length: Some(10),
            empty_kernel: false,
            jupyter: true,
        };
        assert_eq!(parse(&body).unwrap(), expected);
    }

    #[test]
    fn no_code_does_nothing() {
        for text in ["", " \n\t"] {
            assert_eq!(code(&json!({"properties": {"code": text}})), "pass");
        }
    }

    #[test]
    fn base64_is_decoded_with_and_without_padding() {
        for text in ["cHJpbnQoMSk=", "cHJpbnQoMSk", "cHJp\nbnQo\r\nMSk=\n"] {
            assert_eq!(code(&json!({"code": text, "codeInputType": "InlineBase64"})), "print(1)");
        }
    }

    #[test]
    fn shell_commands_tolerate_what_the_tutorial_sends() {
        let shell = |body: Json| parse(&body).map(|requested| requested.work);
        let command = |text: &str| Ok(Work::Shell(text.to_owned()));
        assert_eq!(shell(json!({"shellCommand": "ls -a"})), command("ls -a"));
        assert_eq!(shell(json!({"codeInputType": "inline", "executionType": "synchronous", "shellCommand": "ls"})), command("ls"));
        assert_eq!(shell(json!({"properties": {"shellCommand": "ls", "timeoutInSeconds": 5}})), command("ls"));
        assert_eq!(shell(json!({"execCommandAndArgs": ["ls", "a b", "it's"]})), command(r"exec -- 'ls' 'a b' 'it'\''s'"));
        assert_eq!(shell(json!({"shellCommand": "cat", "stdin": "x"})), command("printf %s 'x' | bash -c 'cat'"));
    }

    #[test]
    fn wrong_bodies_are_refused() {
        for body in [
            json!([]),
            json!(null),
            json!({}),
            json!({"properties": []}),
            json!({"code": 1}),
            json!({"code": "x", "codeInputType": "File"}),
            json!({"code": "x", "codeInputType": 1}),
            json!({"code": "???", "codeInputType": "InlineBase64"}),
            json!({"code": "x", "executionType": "later"}),
            json!({"code": "x", "timeoutInSeconds": 0}),
            json!({"code": "x", "timeoutInSeconds": -1}),
            json!({"code": "x", "timeoutInSeconds": 221}),
            json!({"code": "x", "timeoutInSeconds": 1.5}),
            json!({"code": "x", "timeoutInSeconds": "soon"}),
            json!({"code": "x", "outputStreamsMaxLength": -1}),
            json!({"code": "x", "useEmptyKernel": "yes"}),
            json!({"code": "x", "identifier": 1}),
            json!({"code": "x", "shellCommand": "ls"}),
            json!({"shellCommand": "ls", "execCommandAndArgs": ["ls"]}),
            json!({"execCommandAndArgs": []}),
            json!({"execCommandAndArgs": "ls"}),
            json!({"execCommandAndArgs": ["ls", 1]}),
            json!({"shellCommand": "a\u{0}b"}),
        ] {
            assert!(parse(&body).is_err(), "{body}");
        }
        for text in ["", "{", "\"x\"", "{\"code\":\"\\ud800\"}"] {
            assert!(Requested::parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{{\"code\":\"x\",\"y\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Requested::parse(deep.as_bytes()).is_err());
    }
}
