//! Who calls, as authentication found it.

use engine::session::Caller;
use engine::{Error, ErrorKind};

/// What a caller may do. A set, not a ladder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    /// Sessions, executions and files in the pools of its scope.
    pub execute: bool,
    /// Metrics and the record.
    pub observe: bool,
    /// Keys.
    pub admin: bool,
}

/// An authenticated caller: stands in the extensions of every request but those of the open routes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// For the engine.
    pub caller: Caller,
    /// Pools it may use; `None`: all.
    pub pools: Option<Vec<String>>,
    /// What it may do.
    pub roles: Roles,
}

impl Identity {
    /// Whether it may use this pool.
    ///
    /// # Errors
    /// `denied` without the role; else what a pool that does not exist answers.
    pub fn may_use(&self, pool: &str) -> Result<(), Error> {
        if !self.roles.execute {
            return Err(Error::new(ErrorKind::Denied, "this key may not run code").hint("use a key with the role `execute`"));
        }
        match &self.pools {
            Some(pools) if !pools.iter().any(|name| name == pool) => Err(Error::new(ErrorKind::NotFound, format!("there is no pool `{pool}`"))),
            _ => Ok(()),
        }
    }
}
