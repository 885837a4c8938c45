//! The only place that knows SQL: the append-only record of what ran, and API keys, in one SQLite file below the data folder.
//!
//! ```text
//! <data>/belljar.db     events and keys; WAL, so that reading never blocks writing
//! <data>/belljar.lock   held by the one process that writes; its pid stands in it
//! ```
//!
//! Everything that is written goes through one thread ([`Store::append`] waits for it, [`Store::enqueue`] does not), which takes all that waits
//! into one transaction. It stores types of its own only: no session, no request, and never code or output of users.
#![forbid(unsafe_code)]

mod error;
mod event;
mod keys;
mod place;
mod query;
mod queue;
mod schema;
mod store;
mod time;
mod writer;

pub use error::StoreError;
pub use event::{Event, EventKind};
pub use keys::{CreatedKey, KeyInfo, KeyLimits, NewKey, Role};
pub use query::{Filter, MAX_LIMIT, Reader, Recorded};
pub use store::{Durability, Options, Status, Store};
pub use time::{format as format_time, parse as parse_time};
