//! The Model Context Protocol: the eight tools, and the files of sessions as resources, for whatever agent speaks it.
//!
//! [`server`] answers the protocol's requests by calling [`crate::tools`], and knows nothing of how they came; [`http`] and [`stdio`] bring them; and
//! [`pool`] is the server of a pool as Azure Container Apps has it. The protocol itself is `rmcp`'s.

mod answer;
mod catalog;
mod connection;
mod follow;
mod http;
mod lines;
mod metadata;
mod pool;
mod resources;
mod room;
mod server;
mod stdio;
mod stream;

pub use stdio::{Begin, Local, serve};

pub(crate) use http::{Transport, is_path, refusal, router};
pub(crate) use metadata::{challenge, is_open};
pub(crate) use pool::answer as answer_pool;
pub(crate) use resources::Address;
#[cfg(feature = "fuzzing")]
pub(crate) use resources::What;
