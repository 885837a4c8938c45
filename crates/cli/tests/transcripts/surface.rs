//! What every surface can be asked for, and what none of them is asked because it cannot tell.

use std::fmt;

use crate::parse::{Check, Execute, Need, Transcript};
use crate::seen::Seen;

/// A surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A sandbox of its own for each run.
    Cli,
    /// A session of the server that runs for the same user.
    CliServed,
    Rest,
    Mcp,
    AcaOld,
    AcaNew,
}

/// What a surface cannot tell. Nothing else is left out.
const UNTOLD: &[(Check, &[Kind], &str)] = {
    const BOTH: &[Kind] = &[Kind::AcaOld, Kind::AcaNew];
    &[
        (Check::Json, BOTH, "a value stands in one form, typed"),
        (Check::Output, BOTH, "no `output`"),
        (Check::Schema, BOTH, "no `outputSchema`"),
        (Check::Shown, BOTH, "of what was shown only a picture is told"),
        (Check::Artifact, BOTH, "no `artifacts`"),
        (Check::Limit, BOTH, "no `limitsHit`"),
        (Check::Truncated, BOTH, "no `stdoutTruncated`"),
        (Check::Exit, &[Kind::AcaOld], "the new routes have the exit code as their status, the old ones only success and failure"),
        (Check::Folder, &[Kind::AcaOld], "its list has files only"),
        (Check::Other, &[Kind::AcaOld], "its list has files only"),
    ]
};

impl Kind {
    /// Whether this can be told here.
    pub(crate) fn tells(self, check: Check) -> bool {
        !UNTOLD.iter().any(|(of, kinds, _)| *of == check && kinds.contains(&self))
    }

    /// Whether a transcript that needs this can be played here.
    pub(crate) fn meets(self, need: Need) -> bool {
        match need {
            Need::Sessions => !matches!(self, Self::Cli | Self::CliServed),
            Need::LongOutput => self != Self::Mcp,
            Need::Inputs => !matches!(self, Self::Mcp | Self::AcaOld | Self::AcaNew),
        }
    }

    /// An outcome in the words of this surface.
    pub(crate) fn word(self, outcome: &str) -> &str {
        match (self, outcome) {
            (Self::Cli | Self::CliServed | Self::Rest | Self::Mcp, outcome) => outcome,
            (Self::AcaOld, "completed") => "Success",
            (Self::AcaOld, _) => "Failure",
            (Self::AcaNew, "completed") => "Succeeded",
            (Self::AcaNew, "interrupted") => "Canceled",
            (Self::AcaNew, _) => "Failed",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cli => "cli",
            Self::CliServed => "cli-served",
            Self::Rest => "rest",
            Self::Mcp => "mcp",
            Self::AcaOld => "aca-old",
            Self::AcaNew => "aca-new",
        })
    }
}

/// What stands in a list: the fact as a transcript words it.
pub(crate) fn entry(kind: &str, path: &str) -> String {
    let kind = match kind {
        "file" => "file",
        "folder" | "directory" => "folder",
        "other" => "other",
        unknown => panic!("`{unknown}` is no kind of entry"),
    };
    format!("{kind} {path}")
}

/// Why a request about files was not done, as the code of the native routes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

/// Where transcripts are played.
pub(crate) trait Surface {
    /// Before a transcript.
    fn begin(&mut self, transcript: &Transcript);
    fn execute(&mut self, session: &str, execute: &Execute) -> Seen;
    fn upload(&mut self, session: &str, path: &str, content: &[u8]) -> Result<(), Refused>;
    fn download(&mut self, session: &str, path: &str) -> Result<Vec<u8>, Refused>;
    /// Everything, with what is in folders, each as [`entry`] words it.
    fn list(&mut self, session: &str) -> Result<Vec<String>, Refused>;
    fn delete(&mut self, session: &str, path: &str) -> Result<(), Refused>;
    /// Ends the session.
    fn end(&mut self, session: &str) -> Result<(), Refused>;
}
