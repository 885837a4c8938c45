//! Decides how an execution ended, from what the host saw and what init and the worker said.

use sandbox::{End, Exit};
use serde::Deserialize;

use crate::execution::{ExecutionError, Outcome};

/// Why the host stopped an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its time is over.
    Time,
    /// It wrote too much.
    Output,
    /// The caller asked.
    Caller,
}

/// What the worker said of an error. The code's own word: it decides nothing but its own outcome.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Raised {
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) traceback: String,
    pub(crate) errno: Option<i32>,
    pub(crate) is_memory_error: bool,
}

/// What the host knows when an execution is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) stop: Option<Stop>,
    pub(crate) raised: Option<Raised>,
    /// The kernel killed for memory meanwhile.
    pub(crate) memory_kills: bool,
    /// The kernel refused a process meanwhile.
    pub(crate) process_refusals: bool,
    /// The workspace has no room left.
    pub(crate) disk_full: bool,
    /// The worker of the executions before had died.
    pub(crate) worker_lost: bool,
    /// Another was ready since.
    pub(crate) worker_ready: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conclusion {
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<ExecutionError>,
    pub(crate) state_lost: bool,
    pub(crate) exit_code: Option<i32>,
    pub(crate) limits_hit: Vec<&'static str>,
}

/// Whether an end is one of the worker, too.
pub(crate) fn loses_state(end: Option<End>) -> bool {
    match end {
        Some(End::Completed | End::ShellExited(_)) => false,
        Some(End::MemoryLimit { state_lost } | End::CpuLimit { state_lost }) => state_lost,
        Some(End::WorkerExited(_) | End::WorkerBroken | End::WorkerFailed) | None => true,
    }
}

/// Concludes; `end` is `None` where the whole sandbox is gone.
pub(crate) fn conclude(end: Option<End>, facts: &Facts) -> Conclusion {
    let state_lost = loses_state(end) || facts.worker_lost;
    let exit_code = match end {
        Some(End::ShellExited(Exit::Code(code))) => Some(code),
        // As a shell tells it.
        Some(End::ShellExited(Exit::Signal(signal))) => Some(signal.saturating_add(128)),
        _ => None,
    };
    let outcome = outcome(end, facts);
    let mut limits_hit = Vec::new();
    let mut hit = |condition: bool, name: &'static str| {
        if condition {
            limits_hit.push(name);
        }
    };
    hit(facts.stop == Some(Stop::Time), "wallSeconds");
    hit(matches!(end, Some(End::CpuLimit { .. })), "cpuSeconds");
    hit(facts.memory_kills || outcome == Outcome::MemoryLimit, "memoryBytes");
    hit(facts.process_refusals || outcome == Outcome::ProcessLimit, "processes");
    hit(facts.disk_full || outcome == Outcome::DiskLimit, "workspaceBytes");
    hit(facts.stop == Some(Stop::Output), "outputBytes");
    Conclusion { outcome, error: error(end, facts, outcome, exit_code), state_lost, exit_code, limits_hit }
}

fn outcome(end: Option<End>, facts: &Facts) -> Outcome {
    match (facts.stop, end) {
        (Some(Stop::Time), _) | (None, Some(End::CpuLimit { .. })) => return Outcome::TimedOut,
        (Some(Stop::Output), _) => return Outcome::OutputLimit,
        // Whatever it did with the interrupt, unless it finished all the same.
        (Some(Stop::Caller), Some(End::Completed)) if facts.raised.is_none() => return Outcome::Completed,
        (Some(Stop::Caller), Some(End::ShellExited(Exit::Code(0)))) => return Outcome::Completed,
        (Some(Stop::Caller), _) => return Outcome::Interrupted,
        (None, _) => {}
    }
    match end {
        Some(End::MemoryLimit { .. }) => Outcome::MemoryLimit,
        Some(End::Completed) => facts.raised.as_ref().map_or(Outcome::Completed, |raised| raised_outcome(raised, facts)),
        Some(End::ShellExited(Exit::Code(0))) => Outcome::Completed,
        Some(End::ShellExited(_)) if facts.memory_kills => Outcome::MemoryLimit,
        Some(End::ShellExited(_)) if facts.process_refusals => Outcome::ProcessLimit,
        Some(End::ShellExited(_)) if facts.disk_full => Outcome::DiskLimit,
        Some(End::ShellExited(_)) => Outcome::Raised,
        _ if facts.memory_kills => Outcome::MemoryLimit,
        _ => Outcome::Killed,
    }
}

/// An error that a limit caused is the limit's, where the code let it end the execution.
fn raised_outcome(raised: &Raised, facts: &Facts) -> Outcome {
    const EAGAIN: i32 = 11;
    const ENOSPC: i32 = 28;
    const EDQUOT: i32 = 122;
    match raised.errno {
        _ if raised.is_memory_error => Outcome::MemoryLimit,
        Some(ENOSPC | EDQUOT) => Outcome::DiskLimit,
        Some(EAGAIN) if facts.process_refusals => Outcome::ProcessLimit,
        // Threads report no error number.
        None if facts.process_refusals && raised.message.contains("can't start new thread") => Outcome::ProcessLimit,
        _ => Outcome::Raised,
    }
}

fn error(end: Option<End>, facts: &Facts, outcome: Outcome, exit_code: Option<i32>) -> Option<ExecutionError> {
    if let Some(raised) = &facts.raised {
        return Some(ExecutionError { name: raised.name.clone(), message: raised.message.clone(), traceback: raised.traceback.clone() });
    }
    let (name, message) = match end {
        Some(End::Completed) => return None,
        // What brought the interpreter down says more than how it went.
        Some(End::WorkerExited(_) | End::WorkerBroken | End::WorkerFailed) | None if limit_message(outcome).is_some() => limit_message(outcome)?,
        Some(End::ShellExited(Exit::Signal(signal))) => ("ExitStatus", format!("the command was ended by signal {signal}")),
        Some(End::ShellExited(_)) if exit_code == Some(0) => return None,
        Some(End::ShellExited(_)) => ("ExitStatus", format!("the command ended with exit code {}", exit_code.unwrap_or_default())),
        Some(End::WorkerExited(Exit::Code(code))) => ("InterpreterExited", format!("the interpreter ended with exit code {code}")),
        Some(End::WorkerExited(Exit::Signal(signal))) => ("InterpreterExited", format!("the interpreter was ended by signal {signal}")),
        Some(End::MemoryLimit { .. }) => limit_message(Outcome::MemoryLimit)?,
        Some(End::CpuLimit { .. }) => ("TimeLimit", "the limit on CPU time was reached".to_owned()),
        Some(End::WorkerBroken) => ("InterpreterExited", "the interpreter's channel was closed or broken".to_owned()),
        Some(End::WorkerFailed) => ("InterpreterExited", "the interpreter could not be started".to_owned()),
        None => ("SandboxEnded", "the sandbox ended".to_owned()),
    };
    Some(ExecutionError { name: name.to_owned(), message, traceback: String::new() })
}

/// The error of code that a limit or its caller stopped by force.
fn limit_message(outcome: Outcome) -> Option<(&'static str, String)> {
    let (name, message) = match outcome {
        Outcome::TimedOut => ("TimeLimit", "the time limit was reached, and the code did not end when it was interrupted"),
        Outcome::MemoryLimit => ("MemoryLimit", "the memory limit was reached"),
        Outcome::OutputLimit => ("OutputLimit", "the output limit was reached"),
        Outcome::Interrupted => ("Interrupted", "the caller stopped the code by force"),
        _ => return None,
    };
    Some((name, message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(errno: Option<i32>, message: &str, memory: bool) -> Option<Raised> {
        Some(Raised { name: "E".to_owned(), message: message.to_owned(), errno, is_memory_error: memory, ..Raised::default() })
    }

    #[test]
    fn outcomes_follow_from_facts() {
        let none = Facts::default();
        let with = |change: fn(&mut Facts)| {
            let mut facts = Facts::default();
            change(&mut facts);
            facts
        };
        let shell = |exit| Some(End::ShellExited(exit));
        let cases = [
            (Some(End::Completed), none.clone(), Outcome::Completed),
            (Some(End::Completed), with(|facts| facts.raised = raised(None, "", false)), Outcome::Raised),
            (Some(End::Completed), with(|facts| facts.raised = raised(Some(28), "", false)), Outcome::DiskLimit),
            (Some(End::Completed), with(|facts| facts.raised = raised(None, "", true)), Outcome::MemoryLimit),
            // Without the kernel's counter a claim of EAGAIN proves nothing.
            (Some(End::Completed), with(|facts| facts.raised = raised(Some(11), "", false)), Outcome::Raised),
            (Some(End::Completed), with(|facts| (facts.raised, facts.process_refusals) = (raised(Some(11), "", false), true)), Outcome::ProcessLimit),
            (Some(End::Completed), with(|facts| (facts.raised, facts.stop) = (raised(None, "", false), Some(Stop::Time))), Outcome::TimedOut),
            (Some(End::Completed), with(|facts| (facts.raised, facts.stop) = (raised(None, "", false), Some(Stop::Caller))), Outcome::Interrupted),
            (Some(End::Completed), with(|facts| facts.stop = Some(Stop::Caller)), Outcome::Completed),
            (shell(Exit::Code(0)), none.clone(), Outcome::Completed),
            (shell(Exit::Code(3)), none.clone(), Outcome::Raised),
            (shell(Exit::Code(1)), with(|facts| facts.disk_full = true), Outcome::DiskLimit),
            (shell(Exit::Signal(9)), with(|facts| facts.memory_kills = true), Outcome::MemoryLimit),
            (Some(End::WorkerExited(Exit::Signal(9))), with(|facts| facts.memory_kills = true), Outcome::MemoryLimit),
            (Some(End::WorkerExited(Exit::Signal(9))), none.clone(), Outcome::Killed),
            (Some(End::WorkerExited(Exit::Signal(9))), with(|facts| facts.stop = Some(Stop::Output)), Outcome::OutputLimit),
            (Some(End::CpuLimit { state_lost: false }), none.clone(), Outcome::TimedOut),
            (None, none, Outcome::Killed),
            (None, with(|facts| facts.memory_kills = true), Outcome::MemoryLimit),
        ];
        for (end, facts, expected) in cases {
            assert_eq!(conclude(end, &facts).outcome, expected, "{end:?} {facts:?}");
        }
    }

    #[test]
    fn what_was_stopped_before_its_interpreter_was_ready_was_stopped() {
        let facts = Facts { stop: Some(Stop::Time), ..Facts::default() };
        let conclusion = conclude(Some(End::WorkerFailed), &facts);
        assert_eq!((conclusion.outcome, conclusion.error.unwrap().name.as_str()), (Outcome::TimedOut, "TimeLimit"));
        assert_eq!(conclusion.limits_hit, ["wallSeconds"]);
    }

    #[test]
    fn a_limit_that_the_code_survived_is_named_all_the_same() {
        let facts = Facts { process_refusals: true, disk_full: true, ..Facts::default() };
        let conclusion = conclude(Some(End::Completed), &facts);
        assert_eq!((conclusion.outcome, conclusion.limits_hit), (Outcome::Completed, vec!["processes", "workspaceBytes"]));
    }

    #[test]
    fn a_signal_becomes_the_exit_code_that_a_shell_would_show() {
        let conclusion = conclude(Some(End::ShellExited(Exit::Signal(15))), &Facts::default());
        assert_eq!((conclusion.exit_code, conclusion.state_lost), (Some(143), false));
    }
}
