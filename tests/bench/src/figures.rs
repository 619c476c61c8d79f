//! Figures from measurements: pure, the same for the same input.

use serde::Serialize;

/// How measurements of one thing are spread. Percentiles are measurements that were really taken (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// One in a hundred is more; with less than a hundred, none.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

impl Figures {
    /// The figures of these; zeros if there are none.
    #[must_use]
    pub fn of(mut measurements: Vec<f64>) -> Self {
        measurements.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (measurements.len() * percent).div_ceil(100).max(1);
            measurements.get(rank - 1).copied().unwrap_or_default()
        };
        Self { min: rank(0), p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

/// A limit that the project set itself.
#[derive(Clone, Debug, Serialize)]
pub struct Aim {
    /// What is limited.
    pub what: String,
    /// The limit.
    pub limit: f64,
    /// What was measured.
    pub measured: f64,
    /// Whether it was kept.
    pub met: bool,
}

impl Aim {
    /// At most `limit`.
    #[must_use]
    pub fn at_most(what: &str, limit: f64, measured: f64) -> Self {
        Self { what: what.to_owned(), limit, measured, met: measured <= limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred = Figures::of((1..=100).rev().map(f64::from).collect());
        assert_eq!(hundred, Figures { min: 1.0, p50: 50.0, p99: 99.0, max: 100.0 });
        assert_eq!(Figures::of(vec![3.0, 1.0, 2.0]), Figures { min: 1.0, p50: 2.0, p99: 3.0, max: 3.0 });
        assert_eq!(Figures::of(Vec::new()), Figures::default());
    }
}
