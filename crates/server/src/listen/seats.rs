//! How many connections there are, in all and from one address; who has been idle for long makes room for who comes now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::metrics;

/// Who has not been idle for so long keeps its seat.
const YOUNG: Duration = Duration::from_secs(1);

/// A connection, as far as the choice matters of who has to go.
#[derive(Debug)]
pub(crate) struct Seat {
    address: Option<IpAddr>,
    /// Requests that are being answered.
    asking: AtomicUsize,
    /// A good credential has been seen on it.
    known: AtomicBool,
    since: Mutex<Instant>,
    leave: Notify,
}

impl Seat {
    /// A request has come; while what is given back lives, it is being answered.
    pub(crate) fn ask(self: &Arc<Self>) -> Asking {
        self.asking.fetch_add(1, Ordering::Relaxed);
        Asking(Arc::clone(self))
    }

    /// A good credential came with a request.
    pub(crate) fn know(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Waits until its place is needed.
    pub(super) async fn called_away(&self) {
        self.leave.notified().await;
    }

    fn idle_since(&self) -> Option<Instant> {
        (self.asking.load(Ordering::Relaxed) == 0).then(|| *self.since.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Asking(Arc<Seat>);

impl Drop for Asking {
    fn drop(&mut self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.asking.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
    addresses: HashMap<IpAddr, usize>,
}

/// All connections.
#[derive(Default)]
pub(super) struct Seats {
    state: Mutex<State>,
}

/// A seat while it is taken.
pub(super) struct Taken {
    seats: Arc<Seats>,
    number: u64,
    pub(super) seat: Arc<Seat>,
}

impl Seats {
    /// Takes a seat. `address` `None`: the user of this machine, who always gets one.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>, most: usize, most_per_address: usize) -> Option<Taken> {
        let address = address.map(network);
        let mut state = self.lock();
        if let Some(address) = address {
            let short = if state.addresses.get(&address).is_some_and(|count| *count >= most_per_address) {
                Some(("address", Some(address)))
            } else {
                (state.seats.len() >= most).then_some(("total", None))
            };
            if let Some((short, of)) = short
                && !state.make_room(of)
            {
                metrics::connection_refused(short);
                return None;
            }
            *state.addresses.entry(address).or_default() += 1;
        }
        let seat =
            Arc::new(Seat { address, asking: AtomicUsize::new(0), known: AtomicBool::new(false), since: Mutex::new(Instant::now()), leave: Notify::new() });
        let number = state.next;
        state.next += 1;
        state.seats.insert(number, Arc::clone(&seat));
        metrics::connections(state.seats.len());
        drop(state);
        Some(Taken { seats: Arc::clone(self), number, seat })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends away who has been idle longest, strangers first; false where nobody has been idle long enough. Whoever is sent away counts no
    /// more: its connection ends at once.
    fn make_room(&mut self, of: Option<IpAddr>) -> bool {
        let idle = self.seats.iter().filter(|(_, seat)| of.is_none() || seat.address == of).filter_map(|(number, seat)| {
            let since = seat.idle_since().filter(|since| since.elapsed() >= YOUNG)?;
            Some((seat.known.load(Ordering::Relaxed), since, *number))
        });
        let Some((_, _, number)) = idle.min() else { return false };
        if let Some(seat) = self.remove(number) {
            seat.leave.notify_one();
        }
        true
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Seat>> {
        let seat = self.seats.remove(&number)?;
        if let Some(address) = seat.address
            && let Some(count) = self.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
        Some(seat)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.seats.lock();
        let _ = state.remove(self.number);
        metrics::connections(state.seats.len());
    }
}

/// What one caller has of addresses: one of version 4, a /64 of version 6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn age(taken: &Taken) {
        *taken.seat.since.lock().unwrap() -= YOUNG;
    }

    #[test]
    fn seats_are_counted_in_all_and_by_address() {
        let seats = Arc::new(Seats::default());
        let first = seats.take(address(1), 3, 2).unwrap();
        let _second = seats.take(address(1), 3, 2).unwrap();
        assert!(seats.take(address(1), 3, 2).is_none(), "two of one address");
        let _third = seats.take(address(2), 3, 2).unwrap();
        assert!(seats.take(address(3), 3, 2).is_none(), "three in all");
        let _local = seats.take(None, 3, 2).unwrap();
        drop(first);
        assert!(seats.take(address(3), 3, 2).is_none(), "the local one counts as well, once it is there");
        assert_eq!(seats.lock().addresses.len(), 2);
    }

    #[test]
    fn who_is_idle_makes_room_and_strangers_go_first() {
        let seats = Arc::new(Seats::default());
        let known = seats.take(address(1), 3, 9).unwrap();
        let busy = seats.take(address(2), 3, 9).unwrap();
        let stranger = seats.take(address(3), 3, 9).unwrap();
        known.seat.know();
        let _asking = busy.seat.ask();
        for taken in [&known, &busy, &stranger] {
            age(taken);
        }
        let fourth = seats.take(address(4), 3, 9).unwrap();
        assert!(!seats.lock().seats.contains_key(&stranger.number), "the stranger goes first");
        let _fifth = seats.take(address(5), 3, 9).unwrap();
        assert!(!seats.lock().seats.contains_key(&known.number), "then the known one that is idle");
        assert!(seats.take(address(6), 3, 9).is_none(), "who is asking, or has just come, stays");
        drop(fourth);
        assert!(seats.take(address(6), 3, 9).is_some());
    }

    #[test]
    fn version_6_counts_by_network() {
        let seats = Arc::new(Seats::default());
        let _first = seats.take(Some("2001:db8::1".parse().unwrap()), 9, 1).unwrap();
        assert!(seats.take(Some("2001:db8::ffff:2".parse().unwrap()), 9, 1).is_none());
        assert!(seats.take(Some("2001:db8:0:1::1".parse().unwrap()), 9, 1).is_some());
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address(1).unwrap());
    }
}
