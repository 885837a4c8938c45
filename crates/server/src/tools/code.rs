//! Tools that run code.

use std::fmt::Write;
use std::sync::Arc;

use engine::session::{ExecuteRequest, Session};
use engine::{Error, ErrorKind, Language, Outcome};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use super::{CODE_CHARACTERS, Following, Ran, STDERR_CHARACTERS, STDOUT_CHARACTERS, Scope, ToolResult, cut, grouped, params, seconds};
use crate::json::Whole;
use crate::rest::FileView;

/// Parameters of `ExecutePythonCode`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ExecutePythonCodeParams, example = json!({"pythonCode": "import pandas as pd\npd.read_csv('sales.csv').describe()"}))]
pub(crate) struct PythonParams {
    /// The Python code, at most 20,000 characters.
    #[schema(min_length = 1, max_length = 20_000)]
    python_code: String,
    /// How many seconds it may run.
    #[schema(value_type = Option<u64>, minimum = 5, maximum = 900, default = 120)]
    timeout_seconds: Option<Whole>,
}

/// Parameters of `RunShellCommand`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RunShellCommandParams, example = json!({"command": "wc -l *.csv", "explanation": "count the lines"}))]
pub(crate) struct ShellParams {
    /// The command line for bash, at most 20,000 characters.
    #[schema(min_length = 1, max_length = 20_000)]
    command: String,
    /// Why it is run, in a sentence for the user.
    #[expect(dead_code, reason = "for who reads the conversation, not for us")]
    explanation: Option<String>,
    /// Must be false: commands run in the foreground.
    #[schema(default = false)]
    is_background: Option<bool>,
    /// How many seconds it may run.
    #[schema(value_type = Option<u64>, minimum = 5, maximum = 240, default = 120)]
    timeout_seconds: Option<Whole>,
}

/// `ExecutePythonCode`
pub(super) async fn python(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: PythonParams = params("ExecutePythonCode", asked)?;
    let timeout = seconds(asked.timeout_seconds, 120, 5..=900)?;
    check("pythonCode", &asked.python_code)?;
    let session = scope.open().await?;
    execute(scope, &session, "ExecutePythonCode", request(scope, Language::Python, asked.python_code, timeout)).await
}

/// `RunShellCommand`
pub(super) async fn shell(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: ShellParams = params("RunShellCommand", asked)?;
    if asked.is_background == Some(true) {
        let hint = "leave `isBackground` out; for long work raise `timeoutSeconds`, or split it into several calls";
        return Err(Error::new(ErrorKind::InvalidRequest, "`isBackground` is true, and commands run in the foreground only").hint(hint));
    }
    let timeout = seconds(asked.timeout_seconds, 120, 5..=240)?;
    check("command", &asked.command)?;
    let session = scope.open().await?;
    execute(scope, &session, "RunShellCommand", request(scope, Language::Shell, asked.command, timeout)).await
}

/// Whether code is there and not too long.
pub(super) fn check(parameter: &str, code: &str) -> Result<(), Error> {
    if code.is_empty() {
        return Err(Error::new(ErrorKind::InvalidRequest, format!("`{parameter}` is empty")).hint(format!("put what is to run into `{parameter}`")));
    }
    if let (_, Some(count)) = cut(code, CODE_CHARACTERS) {
        let message = format!("`{parameter}` has {} characters, {} are allowed", grouped(count), grouped(CODE_CHARACTERS));
        let hint = "split it into several calls, since variables and files are kept, or put data and helper modules into files with UploadFileToSession";
        return Err(Error::new(ErrorKind::InvalidRequest, message).hint(hint));
    }
    Ok(())
}

/// What to run.
pub(super) fn request(scope: Scope<'_>, language: Language, code: String, timeout: std::time::Duration) -> ExecuteRequest {
    ExecuteRequest { language, code: code.into_bytes(), filename: None, inputs: Map::new(), fresh: false, timeout: Some(timeout), surface: scope.surface }
}

/// Runs it, and says in words what it came to.
pub(super) async fn execute(scope: Scope<'_>, session: &Arc<Session>, tool: &'static str, request: ExecuteRequest) -> Result<ToolResult, Error> {
    let started = session.start(&scope.identity.caller, request, scope.following.and_then(Following::observer))?;
    if let Some(following) = scope.following {
        following.started(session, &started.id);
    }
    let finished = started.finished().await.map_err(|error| crate::error::ApiError::from(error).0)?;
    let execution = &finished.execution;
    let links = scope.links();
    let mut files = Vec::new();
    for artifact in &execution.artifacts {
        // Gone again already: nothing to offer.
        if let Ok(entry) = session.file(&artifact.raw_path).await {
            files.push(FileView::of(&entry, &links));
        }
    }
    let text = words(execution, &files);
    let (stdout, stderr) = (cut(&execution.stdout, STDOUT_CHARACTERS).0.to_owned(), cut(&execution.stderr, STDERR_CHARACTERS).0.to_owned());
    let failed = execution.outcome != Outcome::Completed;
    Ok(ToolResult { failed, files, ran: Some(Ran { finished, stdout, stderr }), ..ToolResult::new(tool, links, text) })
}

/// An execution in words.
fn words(execution: &engine::Execution, files: &[FileView]) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = match execution.exit_code {
        Some(code) => writeln!(text, "The command {} (exit status {code}, {} ms).", execution.outcome, execution.execution_time_ms),
        None => writeln!(text, "The code {} ({} ms).", execution.outcome, execution.execution_time_ms),
    };
    if execution.state_lost {
        text.push_str("The interpreter was started anew: variables and imports of earlier calls are gone, files are still there.\n");
    }
    section(&mut text, execution, "stdout", &execution.stdout, STDOUT_CHARACTERS);
    section(&mut text, execution, "stderr", &execution.stderr, STDERR_CHARACTERS);
    if let Some(result) = &execution.result {
        let (shown, more) = cut(&result.text, STDOUT_CHARACTERS);
        let _ = writeln!(text, "\nresult:\n{shown}");
        if more.is_some() {
            text.push_str("[the result is longer: print the parts you need]\n");
        }
    }
    if let Some(error) = &execution.error {
        let _ = writeln!(text, "\nerror: {}: {}", error.name, cut(&error.message, STDERR_CHARACTERS).0);
        // Its end says where it happened.
        let skip = error.traceback.chars().count().saturating_sub(STDERR_CHARACTERS);
        let traceback: String = error.traceback.chars().skip(skip).collect();
        if !traceback.is_empty() {
            let _ = writeln!(text, "{}{traceback}", if skip > 0 { "[…] " } else { "" });
        }
    }
    if !execution.limits_hit.is_empty() {
        let _ = writeln!(text, "\nlimits reached: {}", execution.limits_hit.join(", "));
    }
    let pictures = execution.outputs.iter().filter(|output| output.is_picture()).count();
    if pictures > 0 {
        let _ = writeln!(text, "\n{pictures} picture{} shown", if pictures == 1 { "" } else { "s" });
    }
    if !files.is_empty() {
        text.push_str("\nfiles written:\n");
        for file in files.iter().take(50) {
            let _ = writeln!(text, "{}  {} bytes  {}", file.path, grouped(file.size_bytes), file.media_type);
        }
        if files.len() > 50 {
            let _ = writeln!(text, "[and {} more: see ListSessionFiles]", files.len() - 50);
        }
    }
    text
}

fn section(text: &mut String, execution: &engine::Execution, name: &str, written: &str, characters: usize) {
    if written.is_empty() {
        return;
    }
    let (shown, total) = cut(written, characters);
    let _ = writeln!(text, "\n{name}:\n{}", shown.strip_suffix('\n').unwrap_or(shown));
    let is_cut_before = if name == "stdout" { execution.stdout_truncated } else { execution.stderr_truncated };
    if total.is_some() || is_cut_before {
        let total = total.filter(|_| !is_cut_before).map_or_else(|| "more".to_owned(), grouped);
        let (shown, id) = (grouped(shown.chars().count()), &execution.id);
        let _ = writeln!(text, "[{name} is cut: {shown} of {total} characters shown; read the rest with ReadSessionFile, filePath outputs/{id}/{name}.txt]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::tests::execution;

    #[test]
    fn long_code_is_refused_with_a_way_out() {
        assert!(check("pythonCode", &"ö".repeat(CODE_CHARACTERS)).is_ok());
        let error = check("pythonCode", &"ö".repeat(CODE_CHARACTERS + 1)).unwrap_err();
        assert_eq!(error.message, "`pythonCode` has 20,001 characters, 20,000 are allowed");
        assert!(error.hint.unwrap().contains("UploadFileToSession"));
        assert!(check("command", "").is_err());
    }

    #[test]
    fn words_tell_everything_and_what_was_cut() {
        let mut execution = execution();
        execution.outcome = Outcome::Raised;
        execution.stdout = "é".repeat(5000);
        execution.stderr = "e".repeat(1999);
        execution.state_lost = true;
        execution.limits_hit = vec!["wallSeconds"];
        execution.error = Some(engine::ExecutionError { name: "ValueError".to_owned(), message: "bad".to_owned(), traceback: "t".repeat(3000) });
        let text = words(&execution, &[]);
        assert!(text.contains(&format!("\n{}\n[stdout is cut: 4,000 of 5,000 characters shown", "é".repeat(4000))), "{text}");
        assert!(text.contains(&format!("outputs/{}/stdout.txt", execution.id)));
        assert!(!text.contains("stderr is cut"));
        assert!(text.contains("error: ValueError: bad") && text.contains("limits reached: wallSeconds") && text.contains("started anew"));
        assert_eq!(text.chars().filter(|one| *one == 't').count() / 1000, 2, "the traceback's end is shown");
        let mut shell = super::tests::execution();
        shell.exit_code = Some(3);
        assert!(words(&shell, &[]).contains("exit status 3"));
    }
}
