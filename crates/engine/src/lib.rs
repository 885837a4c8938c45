//! What the product does: environments, executions, artifacts.
//!
//! Knows no HTTP, no MCP, no SQL and no system call; isolation is behind [`sandbox::Backend`]. Everything a caller can ask for is a
//! [`Command`], and [`Engine::dispatch`] is the one way in.
#![forbid(unsafe_code)]

pub mod dispatch;
pub mod environment;
pub mod error;
pub mod execution;
pub mod out;
pub mod pool;
pub mod record;
pub mod run;
pub mod session;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

mod artifact;
mod outcome;
mod output;
mod runtime;
mod schema;

pub use dispatch::{Command, Engine, Reply, Settings};
pub use error::{Error, ErrorKind};
pub use execution::{Artifact, Execution, ExecutionError, Language, Outcome, Output, Value};
pub use pool::{Imports, Pool, PoolSettings, PoolStatus, Taken};
pub use run::{Control, Observer, RunRequest};
pub use runtime::Report;
pub use sandbox::{Controls, Limits, Stream};
