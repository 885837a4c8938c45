//! How much of everything is one principal's: counted where it is taken, so that no two callers get the last piece.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Caller;
use crate::error::{Error, ErrorKind};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Session,
    Execution,
}

/// What principals have.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<(Arc<str>, Kind), usize>>);

/// One piece, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    key: (Arc<str>, Kind),
}

impl Shares {
    /// Takes a piece for a caller.
    ///
    /// # Errors
    /// `limit` where it has its share already.
    pub(super) fn take(self: &Arc<Self>, caller: &Caller, kind: Kind) -> Result<Share, Error> {
        let (most, what, remedy) = match kind {
            Kind::Session => (caller.max_sessions, "sessions", "end one that is not needed any more, or wait until one times out"),
            Kind::Execution => (caller.max_executions, "executions at once", "wait until one of them is over"),
        };
        let key = (Arc::clone(&caller.principal), kind);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if let Some(most) = most.filter(|most| *count >= *most) {
            let error = Error::new(ErrorKind::Limit, format!("this caller may have {most} {what}, and has them")).hint(remedy);
            return Err(Error { retry_after: Some(Duration::from_secs(1)), ..error });
        }
        *count += 1;
        Ok(Share { shares: Arc::clone(self), key })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_share_is_given_however_many_ask() {
        let shares = Arc::new(Shares::default());
        let caller = Caller { principal: "a".into(), max_sessions: Some(5), max_executions: None };
        let taken: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| (0..10).map(|_| shares.take(&caller, Kind::Session)).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().filter(|share| share.is_ok()).count(), 5);
        assert!(taken.iter().flat_map(|share| share.as_ref().err()).all(|error| error.kind == ErrorKind::Limit && error.retry_after.is_some()));
        assert!(shares.take(&caller, Kind::Execution).is_ok(), "what is not limited is not");
        let other = Caller { principal: "b".into(), ..caller.clone() };
        assert!(shares.take(&other, Kind::Session).is_ok());
        drop(taken);
        assert!(shares.take(&caller, Kind::Session).is_ok());
        assert!(shares.0.lock().unwrap().is_empty(), "nothing is kept of who has nothing");
    }
}
