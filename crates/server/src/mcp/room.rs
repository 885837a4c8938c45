//! Room for answers that are large: resources are read whole, and each takes many times its size until its caller has taken it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Resources that are read at once, by one principal and by all.
const MAX_OF_ONE: usize = 4;
const MAX_READS: usize = 32;
/// How long a read waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who reads.
#[derive(Debug)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    patience: Duration,
}

/// One's turn, given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_READS)), each: Mutex::default(), patience: PATIENCE }
    }
}

impl Room {
    /// Waits for a principal's turn; `None` where it does not come in time.
    pub(super) async fn turn(&self, principal: &Arc<str>) -> Option<Turn> {
        let own = {
            let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing is kept of who reads nothing.
            each.retain(|_, own| own.available_permits() < MAX_OF_ONE || Arc::strong_count(own) > 1);
            Arc::clone(each.entry(Arc::clone(principal)).or_insert_with(|| Arc::new(Semaphore::new(MAX_OF_ONE))))
        };
        // First among one's own: who waits there takes nobody else's place.
        let turn = async {
            let own = own.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { _all: all, _own: own })
        };
        tokio::time::timeout(self.patience, turn).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_principal_takes_its_part_and_leaves_that_of_others() {
        let room = Room { patience: Duration::from_millis(20), ..Room::default() };
        let (one, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut turns = Vec::new();
        for _ in 0..MAX_OF_ONE {
            turns.push(room.turn(&one).await.unwrap());
        }
        assert!(room.turn(&one).await.is_none(), "it waits for itself");
        assert!(room.turn(&other).await.is_some());
        turns.pop();
        assert!(room.turn(&one).await.is_some());
        drop(turns);
        room.turn(&other).await.unwrap();
        assert_eq!(room.each.lock().unwrap().len(), 1, "nothing is kept of who reads nothing");
    }
}
