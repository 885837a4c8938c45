//! Exit codes, and the one place that prints an error: 0 done, 1 the execution failed, 2 usage or configuration, 3 denied by policy,
//! 4 our fault.

use std::process::ExitCode;

use engine::{ErrorKind, Outcome};

use crate::terminal;

pub(crate) const DONE: u8 = 0;
pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const DENIED: u8 = 3;
pub(crate) const OURS: u8 = 4;

/// A mistake in how belljar was called or configured, with what to do about it.
#[derive(Debug)]
pub(crate) struct UsageError {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// A [`UsageError`] with its remedy.
pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    UsageError { message: message.into(), hint: Some(hint.into()) }.into()
}

/// An error of the store: what is wrong with it can be mended by whoever called, but for a database that fails.
pub(crate) fn store(error: store::StoreError) -> anyhow::Error {
    let hint = error.hint();
    let ours = matches!(error, store::StoreError::Database { .. } | store::StoreError::RevokedForNow { .. } | store::StoreError::Closed);
    let message = format!("{:#}", anyhow::Error::from(error));
    if ours {
        return engine::Error { hint, ..engine::Error::new(ErrorKind::Unavailable, message) }.into();
    }
    UsageError { message, hint }.into()
}

/// The code for an execution that ended like this.
pub(crate) fn of(outcome: Outcome) -> ExitCode {
    ExitCode::from(match outcome {
        Outcome::Completed => DONE,
        Outcome::Denied => DENIED,
        _ => FAILED,
    })
}

/// Prints an error in one line, with its remedy in a second, and gives its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let (hint, code) = if let Some(error) = error.downcast_ref::<engine::Error>() {
        let code = match error.kind {
            ErrorKind::InvalidRequest | ErrorKind::NotFound | ErrorKind::TooLarge => USAGE,
            ErrorKind::Denied | ErrorKind::Unauthenticated => DENIED,
            ErrorKind::Conflict | ErrorKind::Limit | ErrorKind::Unavailable | ErrorKind::Internal => OURS,
        };
        (error.hint.clone(), code)
    } else if let Some(error) = error.downcast_ref::<UsageError>() {
        (error.hint.clone(), USAGE)
    } else {
        (None, OURS)
    };
    terminal::note(&format!("error: {error:#}"));
    if let Some(hint) = hint {
        terminal::note(&format!("hint: {hint}"));
    }
    ExitCode::from(code)
}
