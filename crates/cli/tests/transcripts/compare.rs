//! What a transcript says against what was seen. What it does not say was not seen: no output, no value, no file, no limit.

use serde_json::Value as Json;

use crate::parse::{Check, Step, joined};
use crate::seen::{Seen, Value};
use crate::surface::{Kind, Refused, entry};

/// What came of one step.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Facts that were checked.
    pub(crate) checked: usize,
    /// Facts that the surface cannot tell.
    pub(crate) untold: usize,
    pub(crate) problems: Vec<String>,
}

impl Compared {
    fn of(checked: usize, problem: Option<String>) -> Self {
        Self { checked, untold: 0, problems: problem.into_iter().collect() }
    }
}

pub(crate) fn execution(kind: Kind, step: &Step, seen: &Seen) -> Compared {
    let mut compared = Compared::default();
    for (word, check) in Check::OF_EXECUTION {
        let expected = step.expected(*check);
        if !kind.tells(*check) {
            compared.untold += expected.len();
            continue;
        }
        compared.checked += expected.len();
        if let Some(seen) = differs(kind, step, *check, &expected, seen) {
            compared.problems.push(format!("`{word}` should be {expected:?}, but is {seen}"));
        }
    }
    if !compared.problems.is_empty() {
        compared.problems.push(format!("all that was seen: {}", short(&format!("{seen:?}"))));
    }
    compared
}

/// What was seen, where that is not what was expected.
fn differs(kind: Kind, step: &Step, check: Check, expected: &[&str], seen: &Seen) -> Option<String> {
    let failed = outcome(step) != "completed";
    let (is_right, shown) = match check {
        Check::Outcome => (outcome(step).split('|').any(|outcome| kind.word(outcome) == seen.outcome), seen.outcome.clone()),
        Check::Stdout => (is_stream(expected, step.expected(Check::StdoutPart).is_empty(), &seen.stdout, false), short(&seen.stdout)),
        Check::Stderr => {
            let more = seen.error_in_stderr && failed;
            (is_stream(expected, step.expected(Check::StderrPart).is_empty(), &seen.stderr, more), short(&seen.stderr))
        }
        Check::StdoutPart => (has_all(&seen.stdout, expected), short(&seen.stdout)),
        Check::StderrPart => (has_all(&seen.stderr, expected), short(&seen.stderr)),
        Check::Result if expected.is_empty() => (seen.result.is_none() || !step.expected(Check::ResultPart).is_empty(), format!("{:?}", seen.result)),
        Check::Result => (seen.result.as_ref().is_some_and(|value| value.is(&expected.join("\n"))), format!("{:?}", seen.result)),
        Check::ResultPart => {
            (expected.is_empty() || has_all(&seen.result.as_ref().map(Value::text).unwrap_or_default(), expected), format!("{:?}", seen.result))
        }
        Check::Json => (expected.is_empty() || seen.json == json(expected), seen.json.to_string()),
        Check::Output => (expected.is_empty() || seen.output == Some(json(expected)), format!("{:?}", seen.output)),
        Check::Schema => (expected.is_empty() || seen.schema == Some(json(expected)), format!("{:?}", seen.schema)),
        Check::Picture => (sorted(expected) == sorted(&seen.pictures), format!("{:?}", seen.pictures)),
        Check::Shown => (sorted(expected) == sorted(&seen.shown), format!("{:?}", seen.shown)),
        Check::Artifact => (sorted(expected) == sorted(&seen.artifacts), format!("{:?}", seen.artifacts)),
        Check::Truncated => (sorted(expected) == sorted(&seen.truncated), format!("{:?}", seen.truncated)),
        Check::Limit => (is_among(expected, &seen.limits), format!("{:?}", seen.limits)),
        Check::State => (expected == ["lost?"] || (expected == ["lost"]) == seen.state_lost, format!("lost: {}", seen.state_lost)),
        Check::Error => (expected.is_empty() || is_error(&expected.join("\n"), seen), format!("{:?}", seen.error)),
        Check::Traceback => {
            let traceback = if seen.error_in_stderr { &seen.stderr } else { &seen.traceback };
            (has_all(traceback, expected), short(traceback))
        }
        Check::Exit => (expected.is_empty() || seen.exit.is_some_and(|code| expected == [code.to_string()]), format!("{:?}", seen.exit)),
        Check::Content | Check::File | Check::Folder | Check::Other | Check::Refused => (false, "no fact of an execution".to_owned()),
    };
    (!is_right).then_some(shown)
}

fn outcome(step: &Step) -> &str {
    step.expected(Check::Outcome).first().copied().unwrap_or("completed")
}

/// Whether a stream is this as a whole. `more`: what the execution failed of may follow, and nothing else.
fn is_stream(expected: &[&str], as_a_whole: bool, seen: &str, more: bool) -> bool {
    if expected.is_empty() && !as_a_whole {
        return true;
    }
    let expected = joined(expected);
    seen.strip_prefix(&expected).is_some_and(|rest| rest.is_empty() || (more && is_failure(rest)))
}

/// A traceback, or one line.
fn is_failure(text: &str) -> bool {
    let text = text.trim_matches('\n');
    text.starts_with("Traceback (most recent call last):\n") || text.starts_with("  File \"") || (text.contains(": ") && !text.contains('\n'))
}

fn has_all(text: &str, parts: &[&str]) -> bool {
    parts.iter().all(|part| text.contains(part))
}

/// All of the expected ones, and none else; those with a question mark may be missing.
fn is_among(expected: &[&str], seen: &[String]) -> bool {
    let must = expected.iter().filter(|name| !name.ends_with('?')).all(|name| seen.iter().any(|seen| seen == name));
    must && seen.iter().all(|seen| expected.iter().any(|name| name.trim_end_matches('?') == seen))
}

/// An error is told by itself, or at the end of stderr, or both.
fn is_error(expected: &str, seen: &Seen) -> bool {
    let in_stderr = seen.stderr.lines().any(|line| line == expected);
    let by_itself = seen.error.as_ref().is_some_and(|error| error == expected);
    (by_itself || (seen.error.is_none() && seen.error_in_stderr)) && (in_stderr || !seen.error_in_stderr)
}

fn json(expected: &[&str]) -> Json {
    serde_json::from_str(&expected.join("\n")).unwrap()
}

fn sorted<T: ToString>(names: &[T]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

fn short(text: &str) -> String {
    let cut: String = text.chars().take(2000).collect();
    format!("{cut:?}{}", if cut.len() < text.len() { " …" } else { "" })
}

pub(crate) fn done(step: &Step, done: Result<(), Refused>) -> Compared {
    let expected = step.expected(Check::Refused);
    Compared::of(expected.len(), is_refused(&expected, done.err()).err())
}

pub(crate) fn download(step: &Step, downloaded: Result<Vec<u8>, Refused>) -> Compared {
    let (content, refused) = (step.expected(Check::Content), step.expected(Check::Refused));
    let checked = content.len() + refused.len();
    let problem = match downloaded {
        Ok(bytes) if refused.is_empty() => {
            let (expected, seen) = (joined(&content), String::from_utf8_lossy(&bytes).into_owned());
            (expected != seen).then(|| format!("the content should be {expected:?}, but is {}", short(&seen)))
        }
        downloaded => is_refused(&refused, downloaded.err()).err(),
    };
    Compared::of(checked, problem)
}

pub(crate) fn list(kind: Kind, step: &Step, listed: Result<Vec<String>, Refused>) -> Compared {
    let (mut compared, mut expected) = (Compared::default(), Vec::new());
    for (word, check) in [("file", Check::File), ("folder", Check::Folder), ("other", Check::Other)] {
        let paths = step.expected(check);
        if kind.tells(check) {
            compared.checked += paths.len();
            expected.extend(paths.iter().map(|path| entry(word, path)));
        } else {
            compared.untold += paths.len();
        }
    }
    let refused = step.expected(Check::Refused);
    compared.checked += refused.len();
    compared.problems.extend(match listed {
        Ok(seen) if refused.is_empty() => (sorted(&expected) != sorted(&seen)).then(|| format!("there should be {expected:?}, but there is {seen:?}")),
        listed => is_refused(&refused, listed.err()).err(),
    });
    compared
}

fn is_refused(expected: &[&str], refused: Option<Refused>) -> Result<(), String> {
    let is_right = refused.as_ref().map_or(expected.is_empty(), |Refused(code)| expected == [code]);
    if is_right { Ok(()) } else { Err(format!("it should be refused with {expected:?}, but is with {refused:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Transcript;

    fn step(facts: &str) -> Step {
        Transcript::parse("x", &format!("# x\n> execute python\n1\n{facts}")).unwrap().steps.remove(0)
    }

    fn seen() -> Seen {
        Seen { outcome: "completed".to_owned(), ..Seen::default() }
    }

    fn differ(facts: &str, seen: &Seen) -> bool {
        !execution(Kind::Rest, &step(facts), seen).problems.is_empty()
    }

    #[test]
    fn what_is_not_said_must_not_be_seen() {
        assert!(!differ("", &seen()));
        let text = || "x".to_owned();
        for more in [
            Seen { stdout: text(), ..seen() },
            Seen { stderr: text(), ..seen() },
            Seen { result: Some(Value::Text(text())), ..seen() },
            Seen { pictures: vec![text()], ..seen() },
            Seen { shown: vec![text()], ..seen() },
            Seen { artifacts: vec![text()], ..seen() },
            Seen { limits: vec![text()], ..seen() },
            Seen { truncated: vec![text()], ..seen() },
            Seen { state_lost: true, ..seen() },
            Seen { outcome: "raised".to_owned(), ..seen() },
        ] {
            assert!(differ("", &more), "{more:?}");
        }
    }

    #[test]
    fn what_is_said_must_be_seen() {
        for fact in Check::OF_EXECUTION.iter().filter(|(_, check)| !matches!(check, Check::Outcome | Check::State)) {
            assert!(differ(&format!("< {} 1", fact.0), &seen()), "{fact:?}");
        }
        assert!(differ("< outcome raised|killed", &seen()) && differ("< state lost", &seen()) && !differ("< state lost?", &seen()));
        let limited = |names: &[&str]| Seen { limits: names.iter().map(|name| (*name).to_owned()).collect(), ..seen() };
        assert!(!differ("< limit a?", &seen()) && !differ("< limit a?\n< limit b", &limited(&["b"])) && differ("< limit a?", &limited(&["b"])));
        let printed = Seen { stdout: "one\ntwo\n".to_owned(), ..seen() };
        assert!(!differ("< stdout one\n< stdout two", &printed) && !differ("< stdout~ tw", &printed) && differ("< stdout one", &printed));
        assert!(differ("< stdout one\n< stdout two\\c", &printed));
    }

    #[test]
    fn an_error_at_the_end_of_stderr_is_looked_for_there() {
        let failed = "< outcome raised\n< stderr said\n< error E: m\n< traceback line 1";
        let stderr = |text: &str| Seen { outcome: "Failure".to_owned(), stderr: text.to_owned(), error_in_stderr: true, ..Seen::default() };
        let differ = |seen: &Seen| !execution(Kind::AcaOld, &step(failed), seen).problems.is_empty();
        let traceback = "Traceback (most recent call last):\n  line 1\n";
        assert!(!differ(&stderr(&format!("said\n{traceback}E: m\n"))));
        for wrong in
            [format!("{traceback}E: m\n"), "said\nE: m\n".to_owned(), format!("said\n{traceback}E: more\n"), format!("said\nand this\n{traceback}E: m\n")]
        {
            assert!(differ(&stderr(&wrong)), "{wrong}");
        }
        assert!(!execution(Kind::AcaOld, &step("< stderr said"), &Seen { outcome: "Success".to_owned(), ..stderr("said\nmore") }).problems.is_empty());
        let untold = execution(
            Kind::AcaOld,
            &step("< artifact a text/plain\n< exit 0\n< stdout 1"),
            &Seen { stdout: "1\n".to_owned(), outcome: "Success".to_owned(), ..seen() },
        );
        assert_eq!((untold.checked, untold.untold, untold.problems.len()), (1, 2, 0), "{untold:?}");
    }

    #[test]
    fn files_and_refusals_are_compared() {
        let of = |text: &str| Transcript::parse("x", &format!("# x\nsessions: needed\n{text}")).unwrap().steps.remove(0);
        let refused = || Refused("not_found".to_owned());
        let fine = |compared: Compared| compared.problems.is_empty();
        assert!(fine(done(&of("> end"), Ok(()))) && !fine(done(&of("> end"), Err(refused()))));
        assert!(fine(done(&of("> end\n< refused not_found"), Err(refused()))) && !fine(done(&of("> end\n< refused not_found"), Ok(()))));
        let content = of("> download a\n< content 1");
        assert!(fine(download(&content, Ok(b"1\n".to_vec()))) && !fine(download(&content, Ok(b"1".to_vec()))) && !fine(download(&content, Err(refused()))));
        assert!(!fine(download(&of("> download a\n< refused not_found"), Ok(Vec::new()))));
        let listed = of("> list\n< file a\n< folder b");
        let entries = ["file a", "folder b"].map(str::to_owned);
        assert!(fine(list(Kind::Rest, &listed, Ok(entries.to_vec()))) && !fine(list(Kind::Rest, &listed, Ok(entries[..1].to_vec()))));
        let old = list(Kind::AcaOld, &listed, Ok(entries[..1].to_vec()));
        assert_eq!((old.checked, old.untold, old.problems.len()), (1, 1, 0));
        assert!(!fine(list(Kind::Rest, &listed, Err(refused()))));
    }
}
