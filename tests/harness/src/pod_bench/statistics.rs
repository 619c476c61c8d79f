//! Computes percentiles and ratios of measured times. Pure: the same input gives the same figures.

use serde::{Deserialize, Serialize};

/// Distribution of times in nanoseconds; 0 without times. Percentiles use the nearest rank, so each is one of the measured
/// times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The 50th percentile (median).
    pub p50: u32,
    /// The 90th percentile.
    pub p90: u32,
    /// The 99th percentile.
    pub p99: u32,
    /// The arithmetic mean, rounded down.
    pub mean: u32,
}

impl Spread {
    pub(super) fn of(times: &[u32]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        Self { p50: percentile(&sorted, 50), p90: percentile(&sorted, 90), p99: percentile(&sorted, 99), mean: mean(&sorted) }
    }
}

fn percentile(sorted: &[u32], percent: usize) -> u32 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn mean(times: &[u32]) -> u32 {
    let sum: u128 = times.iter().map(|time| u128::from(*time)).sum();
    let count = times.len().max(1) as u128;
    u32::try_from(sum / count).unwrap_or(u32::MAX)
}

/// Times of one [`Arm`](super::Arm) divided by the times of [`Arm::Clean`](super::Arm::Clean), which are times without portmap.
/// Each figure is the median over the rounds, so that one disturbed round has little effect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Ratio of the median times.
    pub p50: f64,
    /// Ratio of the 99th percentiles.
    pub p99: f64,
}

impl Ratios {
    /// Divides the percentiles of `arm` by those of `base`, round by round. A base of 0 ns counts as 1 ns.
    pub(super) fn between(arm: &[Spread], base: &[Spread]) -> Self {
        let ratio = |percentile: fn(&Spread) -> u32| {
            let pairs = arm.iter().zip(base);
            median(pairs.map(|(arm, base)| f64::from(percentile(arm)) / f64::from(percentile(base).max(1))).collect())
        };
        Self { p50: ratio(|spread| spread.p50), p99: ratio(|spread| spread.p99) }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len().is_multiple_of(2)) {
        (None, _) => 0.0,
        (Some(value), false) => *value,
        (Some(value), true) => f64::midpoint(*value, values[middle - 1]),
    }
}

/// Shuffles with a `SplitMix64` generator: the same seed gives the same sequence of orders.
pub(super) struct SeededShuffle(u64);

impl SeededShuffle {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Shuffles in place (Fisher-Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let other = self.next_number() % (end as u64 + 1);
            items.swap(end, usize::try_from(other).unwrap_or(end));
        }
    }

    fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(Spread::of(&times), Spread { p50: 50, p90: 90, p99: 99, mean: 50 });
        assert_eq!(Spread::of(&[7]), Spread { p50: 7, p90: 7, p99: 7, mean: 7 });
        assert_eq!(Spread::of(&[]), Spread::default());
        assert_eq!(Spread::of(&[u32::MAX; 3]).mean, u32::MAX);
    }

    #[test]
    fn medians_are_middles() {
        for (values, middle) in [(vec![], 0.0), (vec![3.0], 3.0), (vec![3.0, 1.0], 2.0), (vec![9.0, 1.0, 2.0], 2.0)] {
            assert!((median(values) - middle).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let round = |p50, p99| Spread { p50, p90: 0, p99, mean: 0 };
        let base = [round(100, 200), round(1000, 2000), round(10, 20)];
        let arm = [round(110, 200), round(1100, 4000), round(50, 60)];
        assert!((Ratios::between(&arm, &base).p50 - 1.1).abs() < 1e-9);
        assert!((Ratios::between(&arm, &base).p99 - 2.0).abs() < 1e-9);
    }

    #[test]
    fn every_order_comes_up_and_comes_up_again() {
        let orders = |seed| {
            let mut shuffle = SeededShuffle::new(seed);
            (0..100)
                .map(|_| {
                    let mut order = [1, 2, 3];
                    shuffle.shuffle(&mut order);
                    order
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1), orders(2));
        assert_eq!(orders(1).into_iter().collect::<BTreeSet<_>>().len(), 6);
    }
}
