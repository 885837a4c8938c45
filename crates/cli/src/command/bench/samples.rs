//! What was measured, and the figures of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::table::Figure;

/// Below this many samples a 95th percentile is a guess…
const ENOUGH_FOR_P95: usize = 20;
/// …and a 99th below this many.
const ENOUGH_FOR_P99: usize = 100;

/// The samples of one series.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples {
    values: Vec<f64>,
    /// Sandboxes whose worker should have been forked and was not.
    pub(super) not_forked: u32,
    /// Sandboxes that should have been parked and were not.
    pub(super) not_parked: u32,
    /// Why there is nothing.
    pub(super) reason: Option<String>,
}

/// Figures of a series. A percentile that so few samples cannot tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) count: usize,
    pub(super) min: Option<f64>,
    pub(super) mean: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: Option<f64>,
}

impl Samples {
    pub(super) fn figures(&self) -> Figures {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        let rank = |percent: usize| sorted.get((count * percent).div_ceil(100).max(1) - 1).copied();
        Figures {
            count,
            min: sorted.first().copied(),
            mean: (count > 0).then(|| sorted.iter().sum::<f64>() / count as f64),
            p50: rank(50),
            p95: rank(95).filter(|_| count >= ENOUGH_FOR_P95),
            p99: rank(99).filter(|_| count >= ENOUGH_FOR_P99),
            max: sorted.last().copied(),
        }
    }
}

impl Figures {
    pub(super) fn get(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::P50 => self.p50,
            Figure::P99 => self.p99,
            Figure::Mean => self.mean,
            Figure::Min => self.min,
        }
    }
}

/// All series by their id in the table.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<String, Samples>);

impl Records {
    pub(super) fn add(&mut self, id: impl Into<String>, value: f64) {
        self.of(id).values.push(value);
    }

    pub(super) fn add_time(&mut self, id: impl Into<String>, time: Duration) {
        self.add(id, time.as_secs_f64() * 1000.0);
    }

    /// Notes that a sandbox of this series was not what it should be.
    pub(super) fn mark(&mut self, id: impl Into<String>, forked: bool, parked: bool) {
        let samples = self.of(id);
        samples.not_forked += u32::from(!forked);
        samples.not_parked += u32::from(!parked);
    }

    /// Says why a series has nothing.
    pub(super) fn explain(&mut self, id: impl Into<String>, reason: impl Into<String>) {
        self.of(id).reason = Some(reason.into());
    }

    pub(super) fn get(&self, id: &str) -> Samples {
        self.0.get(id).cloned().unwrap_or_default()
    }

    fn of(&mut self, id: impl Into<String>) -> &mut Samples {
        self.0.entry(id.into()).or_default()
    }
}

/// Random numbers that are the same in every run (splitmix64).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.next() % (last as u64 + 1)).unwrap_or_default();
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: impl IntoIterator<Item = u32>) -> Figures {
        let mut records = Records::default();
        values.into_iter().for_each(|value| records.add("x", f64::from(value)));
        records.get("x").figures()
    }

    #[test]
    fn percentiles_are_samples_and_need_enough_of_them() {
        assert_eq!(figures([]), Figures::default());
        let one = figures([7]);
        assert_eq!((one.count, one.min, one.p50, one.p95, one.max), (1, Some(7.0), Some(7.0), None, Some(7.0)));
        let some = figures((1..=20).rev());
        assert_eq!((some.p50, some.p95, some.p99, some.mean), (Some(10.0), Some(19.0), None, Some(10.5)));
        let many = figures(1..=200);
        assert_eq!((many.p50, many.p95, many.p99), (Some(100.0), Some(190.0), Some(198.0)));
    }

    #[test]
    fn shuffling_loses_nothing_and_is_the_same_each_time() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..50).collect();
            Random(seed).shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        assert_ne!(sorted, (0..50).collect::<Vec<_>>());
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
