//! `belljar audit`: the record. Read straight from its file, whether or not a server runs.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use store::{EventKind, Filter, Recorded, Store, parse_time};

use crate::args::{Audit, Query};
use crate::config::Configuration;
use crate::exit::{self, usage};
use crate::terminal;

/// Does what was asked.
pub(crate) fn run(command: Audit, configuration: &Configuration) -> anyhow::Result<ExitCode> {
    match command {
        Audit::Query(query) => print(query, configuration)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(query: Query, configuration: &Configuration) -> anyhow::Result<()> {
    let json = query.json;
    let filter = filter(query)?;
    let reader = Store::open_reader(&configuration.data.value).map_err(exit::store)?;
    for event in reader.query(&filter).map_err(exit::store)? {
        if json {
            terminal::json(&event)?;
        } else {
            terminal::line(&shown(&event))?;
        }
    }
    Ok(())
}

fn filter(query: Query) -> anyhow::Result<Filter> {
    Ok(Filter {
        since: query.since.as_deref().map(time).transpose()?,
        until: query.until.as_deref().map(time).transpose()?,
        kind: query.kind.as_deref().and_then(EventKind::of),
        principal: query.principal,
        pools: query.pool.map(|pool| vec![pool]),
        session: query.session,
        execution: query.execution,
        latest: query.after.is_none(),
        after_seq: query.after,
        limit: usize::try_from(query.limit).unwrap_or(usize::MAX),
    })
}

/// A time, or how long ago.
fn time(text: &str) -> anyhow::Result<SystemTime> {
    let ago = || humantime::parse_duration(text).ok().and_then(|ago: Duration| SystemTime::now().checked_sub(ago));
    parse_time(text).or_else(ago).ok_or_else(|| usage(format!("`{text}` is not a time"), "write 2026-01-31T12:00:00Z, or how long ago: 90m, 7d"))
}

/// One line for a person.
fn shown(event: &Recorded) -> String {
    let mut line = format!("{}  {}  {}", event.seq, event.at, event.kind);
    let fields = [("principal", &event.principal), ("pool", &event.pool), ("session", &event.session), ("execution", &event.execution)];
    for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        line.push_str(&format!("  {name}={value}"));
    }
    format!("{line}  {}", event.detail)
}
