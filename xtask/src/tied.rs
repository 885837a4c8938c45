//! Programs that do not outlive the one that started them, however that ends: a killed soak leaves no server behind.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};

/// A program that the kernel kills when the thread that starts it ends. It has the process id of what is started here.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("tied").arg(std::process::id().to_string()).arg(program);
    command
}

/// The hidden command: ties this process to its parent, and becomes the program.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let [parent, program, arguments @ ..] = arguments else { bail!("tied wants its parent and a program") };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before it was asked for.
    let still = rustix::process::getppid().map(Pid::as_raw_nonzero).is_some_and(|now| now.to_string() == *parent);
    ensure!(still, "whoever started this has ended");
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("cannot start `{program}`"))
}
