//! Random choices that a seed repeats.

use std::time::Duration;

/// Splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The same choices for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or_default()
    }

    /// A number from `first` to `last`.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first).saturating_add(1))
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these, each as likely as its weight says.
    pub(crate) fn weighted<'a, T>(&mut self, choices: &'a [(u64, T)]) -> Option<&'a T> {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        choices.iter().find_map(|(weight, choice)| match at.checked_sub(*weight) {
            Some(rest) => {
                at = rest;
                None
            }
            None => Some(choice),
        })
    }

    /// One of these.
    pub(crate) fn one<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let at = self.below(choices.len() as u64);
        choices.get(usize::try_from(at).unwrap_or_default())
    }

    /// A time up to `longest`, each magnitude from 10 microseconds on as likely as the next.
    pub(crate) fn span(&mut self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).max(20);
        let magnitudes = u64::from((longest / 10).ilog2());
        let top = 10_u64.checked_shl(u32::try_from(self.below(magnitudes + 1) + 1).unwrap_or(1)).unwrap_or(longest).min(longest);
        Duration::from_micros(self.between(top / 2, top))
    }

    /// Sleeps for a [`Self::span`].
    pub(crate) fn pause(&mut self, longest: Duration) {
        std::thread::sleep(self.span(longest));
    }

    /// Another one, for another thread.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_choices_and_bounds_hold() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        for _ in 0..1000 {
            assert_eq!(one.number(), other.number());
            let span = one.span(Duration::from_millis(30));
            assert!(span >= Duration::from_micros(10) && span <= Duration::from_millis(30), "{span:?}");
            other.span(Duration::from_millis(30));
            assert!((3..=5).contains(&one.between(3, 5)));
            other.between(3, 5);
        }
        assert_eq!(one.weighted(&[(0, 'a'), (5, 'b')]), Some(&'b'));
        assert_eq!(one.one::<u8>(&[]), None);
        assert_eq!(one.below(0), 0);
    }
}
