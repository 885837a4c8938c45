//! Wrong keys, counted by the address that they come from: whoever sends too many is not looked at closely for a while.
//!
//! A key that is good always passes: it is found in memory, and cannot be guessed, so a neighbour behind the same address cannot lock anybody
//! out by sending wrong ones. What costs more than a look, a token's signature, is not checked any more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long is counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered; above this the one whose window began first is forgotten.
const MANY: usize = 4096;

/// Refusals of an address.
#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    wrong: u32,
}

/// Wrong keys by address.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<IpAddr, Count>>);

impl Throttle {
    /// How long an address has to wait that has sent as many wrong keys in a minute as it may; `None`: it does not. `limit` 0: nobody does.
    pub(crate) fn wait(&self, address: IpAddr, limit: u32, now: Instant) -> Option<Duration> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&neighbourhood(address)).filter(|count| limit > 0 && count.wrong >= limit)?;
        WINDOW.checked_sub(now.saturating_duration_since(count.since)).filter(|left| !left.is_zero())
    }

    /// One more wrong key.
    pub(crate) fn count(&self, address: IpAddr, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = neighbourhood(address);
        if counts.len() >= MANY && !counts.contains_key(&address) {
            let oldest = counts.iter().min_by_key(|(_, count)| count.since).map(|(address, _)| *address);
            oldest.map(|oldest| counts.remove(&oldest));
        }
        let count = counts.entry(address).or_insert(Count { since: now, wrong: 0 });
        if now.saturating_duration_since(count.since) >= WINDOW {
            *count = Count { since: now, wrong: 0 };
        }
        count.wrong = count.wrong.saturating_add(1);
    }
}

/// Who has one address of version 6 has at least as many as share these 64 bits.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_are_counted_by_address_and_for_a_minute() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        for _ in 0..3 {
            assert_eq!(throttle.wait(one, 3, now), None);
            throttle.count(one, now);
        }
        assert_eq!(throttle.wait(one, 3, now + WINDOW / 4), Some(WINDOW * 3 / 4));
        assert_eq!(throttle.wait("::ffff:192.0.2.1".parse().unwrap(), 3, now), Some(WINDOW), "however it is written");
        assert_eq!((throttle.wait(other, 3, now), throttle.wait(one, 4, now), throttle.wait(one, 0, now)), (None, None, None));
        assert_eq!(throttle.wait(one, 3, now + WINDOW), None, "it is over");
        throttle.count(one, now + WINDOW);
        assert_eq!(throttle.wait(one, 3, now + WINDOW), None, "and counted anew");
    }

    #[test]
    fn a_network_of_version_6_is_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.count("2001:db8:1:2:3::1".parse().unwrap(), now);
        throttle.count("2001:db8:1:2:4::1".parse().unwrap(), now);
        assert!(throttle.wait("2001:db8:1:2::9".parse().unwrap(), 2, now).is_some());
        assert!(throttle.wait("2001:db8:1:3::9".parse().unwrap(), 2, now).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_known() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..10_000_u32 {
            throttle.count(std::net::Ipv4Addr::from_bits(number).into(), now + Duration::from_micros(number.into()));
        }
        assert_eq!(throttle.0.lock().unwrap().len(), MANY);
        assert!(throttle.wait(std::net::Ipv4Addr::from_bits(9999).into(), 1, now).is_some());
        assert!(throttle.wait(std::net::Ipv4Addr::from_bits(1).into(), 1, now).is_none());
    }
}
