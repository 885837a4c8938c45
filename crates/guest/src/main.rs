//! The guest program: `launcher` is started by belljar, `init STAGE` by the launcher. Not for use by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    // As process 1, abort would not end this one: its signal is ignored there.
    std::panic::set_hook(Box::new(|_| guest::leave()));
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("launcher"), None) => guest::launcher::main(),
        (Some("init"), Some(stage)) => guest::init::main(&stage),
        _ => ExitCode::from(2),
    }
}
