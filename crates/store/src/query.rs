//! Reading the record, on a connection of its own: it never blocks writing.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rusqlite::{Connection, Row, ToSql};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::StoreError;
use crate::event::EventKind;
use crate::place::Place;
use crate::{schema, time};

/// One query gives so many events at most; the next begins after the last of them.
pub const MAX_LIMIT: usize = 10_000;

/// Which events. Every condition that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// At this time or later.
    pub since: Option<SystemTime>,
    /// Before this time.
    pub until: Option<SystemTime>,
    /// Of this kind.
    pub kind: Option<EventKind>,
    /// By this principal.
    pub principal: Option<String>,
    /// In one of these pools.
    pub pools: Option<Vec<String>>,
    /// In the session with this id, be it its caller's or its own.
    pub session: Option<String>,
    /// Of this execution.
    pub execution: Option<String>,
    /// After this event.
    pub after_seq: Option<i64>,
    /// So many at most; 0 and more than [`MAX_LIMIT`] mean that.
    pub limit: usize,
    /// The last ones, not the first ones, where there are more than that.
    pub latest: bool,
}

/// An event as it stands on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of `Event`")]
pub struct Recorded {
    /// Its place: dense, from 1.
    pub seq: i64,
    pub at: String,
    pub kind: String,
    pub principal: Option<String>,
    pub pool: Option<String>,
    pub session: Option<String>,
    pub session_guid: Option<String>,
    pub execution: Option<String>,
    pub detail: Json,
}

/// Reads the record, also while a server writes it.
#[derive(Debug)]
pub struct Reader {
    connection: Mutex<Connection>,
}

impl Reader {
    pub(crate) fn open(data: &Path) -> Result<Self, StoreError> {
        Self::on(&Place::find(data)?.find_database()?)
    }

    pub(crate) fn on(database: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: Mutex::new(schema::open_reader(database)?) })
    }

    /// Events that match, in their order.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn query(&self, filter: &Filter) -> Result<Vec<Recorded>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        select(&connection, filter).map_err(StoreError::database("read the record"))
    }
}

fn select(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Recorded>> {
    let (since, until) = (filter.since.map(time::format), filter.until.map(time::format));
    let kind = filter.kind.map(EventKind::name);
    let pools = filter.pools.as_ref().map(|pools| serde_json::json!(pools).to_string());
    let limit = if filter.limit == 0 { MAX_LIMIT } else { filter.limit.min(MAX_LIMIT) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let conditions: [(&str, Option<&dyn ToSql>); 8] = [
        ("at >= ?", since.as_ref().map(|value| value as _)),
        ("at < ?", until.as_ref().map(|value| value as _)),
        ("kind = ?", kind.as_ref().map(|value| value as _)),
        ("principal = ?", filter.principal.as_ref().map(|value| value as _)),
        ("pool IN (SELECT value FROM json_each(?))", pools.as_ref().map(|value| value as _)),
        ("? IN (session, session_guid)", filter.session.as_ref().map(|value| value as _)),
        ("execution = ?", filter.execution.as_ref().map(|value| value as _)),
        ("seq > ?", filter.after_seq.as_ref().map(|value| value as _)),
    ];
    let given: Vec<_> = conditions.into_iter().filter_map(|(condition, value)| Some((condition, value?))).collect();
    let mut sql = "SELECT seq, at, kind, principal, pool, session, session_guid, execution, detail FROM events".to_owned();
    for (index, (condition, _)) in given.iter().enumerate() {
        sql.push_str(if index == 0 { " WHERE " } else { " AND " });
        sql.push_str(condition);
    }
    sql.push_str(if filter.latest { " ORDER BY seq DESC LIMIT ?" } else { " ORDER BY seq LIMIT ?" });
    let mut values: Vec<&dyn ToSql> = given.into_iter().map(|(_, value)| value).collect();
    values.push(&limit);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query_map(values.as_slice(), recorded)?.collect::<rusqlite::Result<Vec<_>>>()?;
    if filter.latest {
        found.reverse();
    }
    Ok(found)
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let detail: String = row.get(8)?;
    Ok(Recorded {
        seq: row.get(0)?,
        at: row.get(1)?,
        kind: row.get(2)?,
        principal: row.get(3)?,
        pool: row.get(4)?,
        session: row.get(5)?,
        session_guid: row.get(6)?,
        execution: row.get(7)?,
        detail: serde_json::from_str(&detail).unwrap_or(Json::String(detail)),
    })
}
