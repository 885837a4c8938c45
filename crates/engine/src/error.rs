//! The one error that leaves the engine. Untrusted code failing is not one: that is an [`Outcome`](crate::Outcome).

use std::time::Duration;

use crate::environment::EnvironmentError;

/// What kind of failure it is, for exit codes and status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request or the configuration is wrong.
    InvalidRequest,
    /// The caller is unknown.
    Unauthenticated,
    /// The caller may not.
    Denied,
    /// Something named does not exist, or is not the caller's.
    NotFound,
    /// It cannot be done as things stand.
    Conflict,
    /// It is larger than is allowed.
    TooLarge,
    /// Too many at once, or too often: later it may be granted.
    Limit,
    /// This host cannot do it now.
    Unavailable,
    /// Our fault.
    Internal,
}

/// An error with what to say to the caller, what to do about it, and what only the operator should see.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind.
    pub kind: ErrorKind,
    /// What failed, on what object. Lower case, without a full stop.
    pub message: String,
    /// What the caller can do, as an imperative line.
    pub hint: Option<String>,
    /// For the operator's log: steps, error numbers.
    pub detail: Option<String>,
    /// When to try again, where that makes sense.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error without a remedy.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, detail: None, retry_after: None }
    }

    /// With what the caller can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<sandbox::Error> for Error {
    fn from(error: sandbox::Error) -> Self {
        if matches!(error, sandbox::Error::Gone) {
            let detail = Some(error.to_string());
            return Self { detail, ..Self::new(ErrorKind::Unavailable, "the sandbox was lost while it was made").hint("try again") };
        }
        let step = matches!(error, sandbox::Error::Step(_));
        let kind = if step { ErrorKind::Unavailable } else { ErrorKind::Internal };
        let detail = Some(error.to_string());
        let message = if step { format!("no sandbox could be started on this host: {error}") } else { "the sandbox failed".to_owned() };
        Self { detail, ..Self::new(kind, message).hint("run `belljar doctor`: it tells what this host lacks") }
    }
}

impl From<EnvironmentError> for Error {
    fn from(error: EnvironmentError) -> Self {
        let kind = match error {
            EnvironmentError::Unknown { .. } => ErrorKind::NotFound,
            EnvironmentError::InvalidName { .. } | EnvironmentError::BuiltIn { .. } => ErrorKind::InvalidRequest,
            _ => ErrorKind::Unavailable,
        };
        Self { hint: error.hint(), ..Self::new(kind, error.to_string()) }
    }
}
