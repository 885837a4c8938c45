//! The form of transcripts. What is wrong with one is told with its line.

use std::fmt;

use serde_json::{Map, Value as Json};

/// A transcript.
#[derive(Debug)]
pub(crate) struct Transcript {
    pub(crate) name: String,
    /// Limits as configured, `name = value`; none for the defaults.
    pub(crate) limits: Vec<String>,
    pub(crate) needs: Vec<Need>,
    pub(crate) steps: Vec<Step>,
}

/// What a surface must have, to play a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// State that stays.
    Sessions,
    /// Values that code is given.
    Inputs,
    /// What the service keeps of a long output, rather than what a tool shows of it.
    LongOutput,
}

impl Need {
    pub(crate) const ALL: [Self; 3] = [Self::Sessions, Self::Inputs, Self::LongOutput];
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sessions => "sessions: needed",
            Self::Inputs => "inputs: needed",
            Self::LongOutput => "long output: needed",
        })
    }
}

/// What is done, and what is seen then.
#[derive(Debug)]
pub(crate) struct Step {
    /// Where it begins.
    pub(crate) line: usize,
    pub(crate) action: Action,
    expected: Vec<(Check, String)>,
}

impl Step {
    /// What this check expects.
    pub(crate) fn expected(&self, check: Check) -> Vec<&str> {
        self.expected.iter().filter(|(of, _)| *of == check).map(|(_, text)| text.as_str()).collect()
    }
}

/// What is done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Execute(Execute),
    Upload {
        path: String,
        content: String,
    },
    Download {
        path: String,
    },
    Delete {
        path: String,
    },
    List,
    /// The session ends.
    End,
    /// All that follows is done in this one.
    Session {
        name: String,
    },
}

/// Code.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Execute {
    pub(crate) is_shell: bool,
    pub(crate) code: String,
    pub(crate) timeout: Option<u64>,
    pub(crate) inputs: Map<String, Json>,
}

/// A kind of fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Outcome,
    Stdout,
    StdoutPart,
    Stderr,
    StderrPart,
    Result,
    ResultPart,
    Json,
    Output,
    Schema,
    Picture,
    Shown,
    Artifact,
    Limit,
    State,
    Error,
    Traceback,
    Exit,
    Truncated,
    Content,
    File,
    Folder,
    Other,
    Refused,
}

impl Check {
    /// Those of an execution, by their words.
    pub(crate) const OF_EXECUTION: &[(&str, Self)] = &[
        ("outcome", Self::Outcome),
        ("stdout", Self::Stdout),
        ("stdout~", Self::StdoutPart),
        ("stderr", Self::Stderr),
        ("stderr~", Self::StderrPart),
        ("result", Self::Result),
        ("result~", Self::ResultPart),
        ("json", Self::Json),
        ("output", Self::Output),
        ("schema", Self::Schema),
        ("picture", Self::Picture),
        ("shown", Self::Shown),
        ("artifact", Self::Artifact),
        ("limit", Self::Limit),
        ("state", Self::State),
        ("error", Self::Error),
        ("traceback", Self::Traceback),
        ("exit", Self::Exit),
        ("truncated", Self::Truncated),
    ];

    /// Those of this action, by their words.
    fn of(action: &Action) -> &'static [(&'static str, Self)] {
        match action {
            Action::Execute(_) => Self::OF_EXECUTION,
            Action::Download { .. } => &[("content", Self::Content), ("refused", Self::Refused)],
            Action::List => &[("file", Self::File), ("folder", Self::Folder), ("other", Self::Other), ("refused", Self::Refused)],
            Action::Upload { .. } | Action::Delete { .. } | Action::End => &[("refused", Self::Refused)],
            Action::Session { .. } => &[],
        }
    }

    /// Whether its text is JSON, which has escapes of its own.
    fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Output | Self::Schema)
    }
}

/// What is wrong with a transcript.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    line: usize,
    what: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.what)
    }
}

impl Transcript {
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Bad> {
        let mut transcript = Self { name: name.to_owned(), limits: Vec::new(), needs: Vec::new(), steps: Vec::new() };
        let mut lines = text.lines().zip(1..).peekable();
        match lines.next() {
            Some((title, _)) if title.starts_with("# ") => {}
            _ => return Err(Bad { line: 1, what: "a transcript begins with `# ` and what it shows".to_owned() }),
        }
        while let Some((text, line)) = lines.next() {
            let bad = |what: String| Bad { line, what };
            if let Some(words) = text.strip_prefix("> ") {
                let body: Vec<&str> = std::iter::from_fn(|| lines.next_if(|(text, _)| !is_marked(text)).map(|(text, _)| text)).collect();
                transcript.step(line, words, &body).map_err(bad)?;
            } else if let Some(fact) = text.strip_prefix("< ") {
                transcript.expect(fact).map_err(bad)?;
            } else if !text.is_empty() && !text.starts_with("# ") {
                transcript.declare(text).map_err(bad)?;
            }
        }
        let last = text.lines().count();
        transcript.whole().map_err(|what| Bad { line: last, what })?;
        Ok(transcript)
    }

    fn declare(&mut self, text: &str) -> Result<(), String> {
        if !self.steps.is_empty() {
            return Err(format!("`{text}` belongs to no step: after what is seen come only `> `, `< ` and `# `"));
        }
        if let Some(need) = Need::ALL.into_iter().find(|need| need.to_string() == text) {
            self.needs.push(need);
        } else if let Some(limits) = text.strip_prefix("limits: ") {
            self.limits = limits.split(", ").map(str::to_owned).collect();
        } else {
            return Err(format!("nobody knows the declaration `{text}`"));
        }
        Ok(())
    }

    fn step(&mut self, line: usize, words: &str, body: &[&str]) -> Result<(), String> {
        let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
        let path = rest.to_owned();
        let action = match (word, rest.is_empty()) {
            ("execute", false) => Action::Execute(execute(rest, body)?),
            ("upload", false) => Action::Upload { path, content: content(body).iter().map(|line| format!("{line}\n")).collect() },
            ("download", false) => Action::Download { path },
            ("delete", false) => Action::Delete { path },
            ("list", true) => Action::List,
            ("end", true) => Action::End,
            ("session", false) => Action::Session { name: path },
            _ => return Err(format!("nobody knows how to `{words}`")),
        };
        if !matches!(action, Action::Execute(_) | Action::Upload { .. }) && !content(body).is_empty() {
            return Err(format!("`{word}` takes no text"));
        }
        self.check_needs(&action)?;
        self.steps.push(Step { line, action, expected: Vec::new() });
        Ok(())
    }

    /// What an action needs is declared.
    fn check_needs(&self, action: &Action) -> Result<(), String> {
        let has_run = self.steps.iter().any(|step| matches!(step.action, Action::Execute(_)));
        let sessions = match action {
            Action::Execute(_) => false,
            // The command line takes files by name alone, and gives those that code made.
            Action::Upload { path, .. } => path.contains('/'),
            Action::Download { .. } => !has_run,
            Action::Delete { .. } | Action::List | Action::End | Action::Session { .. } => true,
        };
        let inputs = matches!(action, Action::Execute(Execute { inputs, .. }) if !inputs.is_empty());
        for (need, is_needed) in [(Need::Sessions, sessions), (Need::Inputs, inputs)] {
            if is_needed && !self.needs.contains(&need) {
                return Err(format!("without `{need}` at the top this cannot be done everywhere"));
            }
        }
        Ok(())
    }

    fn expect(&mut self, fact: &str) -> Result<(), String> {
        let step = self.steps.last_mut().ok_or("nothing is done yet")?;
        let (word, text) = fact.split_once(' ').unwrap_or((fact, ""));
        let known = Check::of(&step.action).iter().find(|(known, _)| *known == word);
        let (_, check) = known.ok_or_else(|| format!("`{word}` is nothing that is seen of this"))?;
        let text = if check.is_json() { text.to_owned() } else { unescape(text)? };
        if check.is_json() {
            serde_json::from_str::<Json>(&text).map_err(|error| format!("`{word}` is no JSON: {error}"))?;
        }
        step.expected.push((*check, text));
        Ok(())
    }

    fn whole(&self) -> Result<(), String> {
        if self.steps.is_empty() {
            return Err("nothing is done".to_owned());
        }
        let gives_inputs = |step: &Step| matches!(&step.action, Action::Execute(execute) if !execute.inputs.is_empty());
        if self.needs.contains(&Need::Inputs) && !self.steps.iter().any(gives_inputs) {
            return Err("inputs are declared, and none are given".to_owned());
        }
        Ok(())
    }
}

fn is_marked(text: &str) -> bool {
    text.starts_with("> ") || text.starts_with("< ")
}

/// Empty lines at the end are there for the reader.
fn content<'a>(body: &'a [&'a str]) -> &'a [&'a str] {
    let end = body.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    &body[..end]
}

fn execute(words: &str, body: &[&str]) -> Result<Execute, String> {
    let mut execute = Execute { code: content(body).join("\n"), ..Execute::default() };
    let (language, mut rest) = words.split_once(' ').unwrap_or((words, ""));
    execute.is_shell = match language {
        "python" => false,
        "shell" => true,
        _ => return Err(format!("nobody knows the language `{language}`")),
    };
    while !rest.is_empty() {
        if let Some(inputs) = rest.strip_prefix("inputs=") {
            execute.inputs = serde_json::from_str(inputs).map_err(|error| format!("the inputs are no JSON object: {error}"))?;
            break;
        }
        let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let seconds = word.strip_prefix("timeout=").and_then(|seconds| seconds.parse().ok());
        execute.timeout = Some(seconds.ok_or_else(|| format!("`{word}` is neither `timeout=SECONDS` nor `inputs=JSON`"))?);
        rest = more;
    }
    if execute.code.is_empty() { Err("there is no code".to_owned()) } else { Ok(execute) }
}

/// `\0`, `\n`, `\t`, `\\`, and at the end `\c` for a line that does not end.
fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let escaped = if character == '\\' { characters.next() } else { None };
        match (character, escaped) {
            ('\\', Some('0')) => plain.push('\0'),
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some('t')) => plain.push('\t'),
            ('\\', Some('\\')) => plain.push('\\'),
            ('\\', Some('c')) if characters.as_str().is_empty() => plain.push_str(NO_END),
            ('\\', other) => return Err(format!("nobody knows the escape `\\{}`", other.map(String::from).unwrap_or_default())),
            _ => plain.push(character),
        }
    }
    Ok(plain)
}

/// Stands for `\c` in a text. Nothing that is seen can hold it: it is no character of any text.
const NO_END: &str = "\u{10ffff}";

/// Lines as one text.
pub(crate) fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.strip_suffix(NO_END).map_or_else(|| format!("{line}\n"), str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> String {
        Transcript::parse("x", text).unwrap_err().to_string()
    }

    #[test]
    fn a_transcript_is_read() {
        let text = "# what it shows\n\nsessions: needed\ninputs: needed\nlong output: needed\nlimits: processes = 40, cpus = 0.5\n> upload a b.txt\n1,2\n\n# 3\n\n\
            > execute python timeout=3 inputs={\"n\": [1, 2]}\nif True:\n\n    print('\\n')\n< stdout a\\0\\\\\n< stdout\n< stdout end\\c\n< json {\"a\": \"\\n\"}\n\n# then\n> list\n< file a b.txt\n";
        let transcript = Transcript::parse("x", text).unwrap();
        assert_eq!((transcript.needs.as_slice(), transcript.limits.join("|").as_str()), (Need::ALL.as_slice(), "processes = 40|cpus = 0.5"));
        let [upload, execute, list] = transcript.steps.as_slice() else { panic!("{transcript:?}") };
        assert_eq!((upload.line, &upload.action), (7, &Action::Upload { path: "a b.txt".to_owned(), content: "1,2\n\n# 3\n".to_owned() }));
        let inputs = serde_json::from_str("{\"n\": [1, 2]}").unwrap();
        let expected = Execute { is_shell: false, code: "if True:\n\n    print('\\n')".to_owned(), timeout: Some(3), inputs };
        assert_eq!((execute.line, &execute.action), (12, &Action::Execute(expected)));
        assert_eq!(joined(&execute.expected(Check::Stdout)), "a\0\\\n\nend");
        assert_eq!((execute.expected(Check::Json), list.expected(Check::File)), (vec!["{\"a\": \"\\n\"}"], vec!["a b.txt"]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("", "line 1: a transcript begins with `# `"),
            ("> list", "line 1: a transcript begins with `# `"),
            ("# x\n", "line 1: nothing is done"),
            ("# x\nsession: needed\n", "line 2: nobody knows the declaration `session: needed`"),
            ("# x\n< stdout 1", "line 2: nothing is done yet"),
            ("# x\n> dance", "line 2: nobody knows how to `dance`"),
            ("# x\n> upload", "line 2: nobody knows how to `upload`"),
            ("# x\n> execute ruby\n1", "line 2: nobody knows the language `ruby`"),
            ("# x\n> execute python\n\n", "line 2: there is no code"),
            ("# x\n> execute python timeout=x\n1", "line 2: `timeout=x` is neither"),
            ("# x\ninputs: needed\n> execute python inputs=[1]\n1", "line 3: the inputs are no JSON object"),
            ("# x\n> execute python\n1\n< output {", "line 4: `output` is no JSON"),
            ("# x\n> execute python\n1\n< stdin 1", "line 4: `stdin` is nothing that is seen of this"),
            ("# x\n> execute python\n1\n< content 1", "line 4: `content` is nothing that is seen of this"),
            ("# x\n> execute python\n1\n< stdout \\x", "line 4: nobody knows the escape `\\x`"),
            ("# x\n> execute python\n1\n< stdout \\cx", "line 4: nobody knows the escape `\\c`"),
            ("# x\n> execute python\n1\n< stdout 1\nprint(2)", "line 5: `print(2)` belongs to no step"),
            ("# x\nsessions: needed\n> list\na.txt", "line 3: `list` takes no text"),
            ("# x\n> list", "line 2: without `sessions: needed`"),
            ("# x\n> upload a/b.txt\n1", "line 2: without `sessions: needed`"),
            ("# x\n> download b.txt\n", "line 2: without `sessions: needed`"),
            ("# x\n> execute python inputs={\"a\": 1}\n1", "line 2: without `inputs: needed`"),
            ("# x\ninputs: needed\n> execute python\n1", "line 4: inputs are declared, and none are given"),
        ] {
            assert!(bad(text).starts_with(expected), "{text:?}: {}", bad(text));
        }
    }
}
