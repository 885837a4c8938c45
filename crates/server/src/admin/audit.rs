//! The record, read in pages.

use axum::Json;
use axum::response::{IntoResponse, Response};
use engine::{Error, ErrorKind};
use serde::Serialize;
use serde_json::Value;
use store::{EventKind, Filter, MAX_LIMIT, Recorded, parse_time};
use utoipa::ToSchema;

use super::{may_observe, with_store};
use crate::error::ApiError;
use crate::rest::{Call, Query};

/// Events of a page that does not say how many.
const LIMIT: usize = 1000;
const NAMES: [&str; 10] = ["since", "until", "kind", "principal", "pool", "session", "execution", "after", "limit", "latest"];

/// An event on record.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordedEvent)]
struct EventView {
    /// Its place: from 1, without gaps.
    #[schema(minimum = 1)]
    seq: i64,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// What.
    kind: String,
    /// Who.
    principal: Option<String>,
    /// In which pool.
    pool: Option<String>,
    /// In which session, by the id that its caller gave it.
    session: Option<String>,
    /// The session's own id.
    session_guid: Option<String>,
    /// Which execution.
    execution: Option<String>,
    /// What else there is to know.
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<Recorded> for EventView {
    fn from(event: Recorded) -> Self {
        let Recorded { seq, at, kind, principal, pool, session, session_guid, execution, detail } = event;
        Self { seq, at, kind, principal, pool, session, session_guid, execution, detail }
    }
}

/// A page of the record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecordPage)]
pub(crate) struct Page {
    /// Events in their order.
    events: Vec<EventView>,
    /// `after` of the next page; null where this was the last one.
    next: Option<i64>,
}

/// Query the record
///
/// What ran and what else happened, in its order. Every condition that is given must hold.
#[utoipa::path(
    get,
    path = "/v1/admin/audit",
    operation_id = "queryRecord",
    tag = "admin",
    params(
        ("since" = Option<String>, Query, description = "At this time or later: RFC 3339, UTC"),
        ("until" = Option<String>, Query, description = "Before this time"),
        ("kind" = Option<String>, Query, description = "What happened, e.g. `execution_intended`"),
        ("principal" = Option<String>, Query, description = "By whom"),
        ("pool" = Option<String>, Query, description = "In which pool"),
        ("session" = Option<String>, Query, description = "In which session: its caller's id or its own"),
        ("execution" = Option<String>, Query, description = "Of which execution"),
        ("after" = Option<u64>, Query, description = "After the event at this place"),
        ("limit" = Option<u64>, Query, description = "So many at most: 1 to 10,000 [default: 1000]"),
        ("latest" = Option<bool>, Query, description = "The last ones, not the first ones, where there are more than that")
    ),
    responses((status = 200, description = "Events", body = Page))
)]
pub(crate) async fn query(call: Call) -> Result<Response, ApiError> {
    let filter = filter(&call.query(&NAMES)?, call.identity.pools.as_deref())?;
    may_observe(&call.identity)?;
    let (limit, latest) = (filter.limit, filter.latest);
    let found = with_store(&call.app, move |store| store.query(&filter)).await?;
    let next = found.last().filter(|_| !latest && found.len() == limit).map(|event| event.seq);
    Ok(Json(Page { events: found.into_iter().map(EventView::from).collect(), next }).into_response())
}

/// What the query asks for; a caller bound to some pools sees what happened there, and nothing else.
fn filter(query: &Query, bound: Option<&[String]>) -> Result<Filter, Error> {
    let time = |name: &str| {
        let Some(text) = query.text(name)? else { return Ok(None) };
        let wrong = || Error::new(ErrorKind::InvalidRequest, format!("the query parameter `{name}` is not a time")).hint("write `2026-01-31T12:00:00Z`");
        parse_time(&text).ok_or_else(wrong).map(Some)
    };
    let kind = |name: String| {
        let known = || EventKind::ALL.iter().map(|kind| format!("`{}`", kind.name())).collect::<Vec<_>>().join(", ");
        EventKind::of(&name)
            .ok_or_else(|| Error::new(ErrorKind::InvalidRequest, "the query parameter `kind` names no kind of event").hint(format!("there are {}", known())))
    };
    let pools = match (query.text("pool")?, bound) {
        (Some(pool), Some(bound)) => Some(bound.iter().filter(|name| **name == pool).cloned().collect()),
        (Some(pool), None) => Some(vec![pool]),
        (None, bound) => bound.map(<[String]>::to_vec),
    };
    Ok(Filter {
        since: time("since")?,
        until: time("until")?,
        kind: query.text("kind")?.map(kind).transpose()?,
        principal: query.text("principal")?,
        pools,
        session: query.text("session")?,
        execution: query.text("execution")?,
        after_seq: query.number("after", 0..=usize::MAX)?.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX)),
        limit: query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(LIMIT),
        latest: query.flag("latest")?,
    })
}
