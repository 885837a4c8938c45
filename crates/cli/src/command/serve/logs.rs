//! The log: on standard error, as text or one JSON object a line. No code, no output, no key and no query is ever in it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::exit::usage;

/// Whose lines are wanted at the level that is asked for; others' only from `warn` on.
const OWN: [&str; 5] = ["belljar", "server", "engine", "sandbox", "store"];

/// Begins to log.
pub(crate) fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = if matches!(level, "off" | "error" | "warn" | "info" | "debug" | "trace") {
        // What hyper warns of is what any stranger can do; rmcp's warnings quote what callers sent.
        OWN.iter().fold("warn,hyper=error,rmcp=off".to_owned(), |text, own| format!("{text},{own}={level}"))
    } else {
        level.to_owned()
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| usage(format!("`--log-level {level}` is no level: {error}"), "give error, warn, info or debug"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("cannot log: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        // Not what it says: that may be a caller's.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a thread panicked");
    }));
    Ok(())
}
