//! Computes percentiles of measurements, and compares measurements with limits. Pure: the same input gives the same figures.

use serde::Serialize;

/// Distribution of the measurements of one quantity, in the quantity's unit. Percentiles use the nearest rank, so each is one
/// of the measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The smallest measurement.
    pub min: f64,
    /// The 50th percentile (median).
    pub p50: f64,
    /// The 99th percentile; the largest measurement if there are less than a hundred.
    pub p99: f64,
    /// The largest measurement.
    pub max: f64,
}

impl Figures {
    /// Computes the figures in any order of the measurements; all are 0 without measurements.
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

/// A performance limit of the project, and the measurement to compare with it.
#[derive(Clone, Debug, Serialize)]
pub struct Aim {
    /// The name of the limited quantity, with its unit.
    pub quantity: String,
    /// The largest allowed value.
    pub limit: f64,
    /// The measured value.
    pub measured: f64,
    /// Whether the measured value is within the limit.
    pub met: bool,
}

impl Aim {
    /// Compares `measured` with `limit`. An equal value is within the limit.
    #[must_use]
    pub fn at_most(quantity: &str, limit: f64, measured: f64) -> Self {
        Self { quantity: quantity.to_owned(), limit, measured, met: measured <= limit }
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
