//! Chance. What it makes of Services and EndpointSlices is in [`crate::services`] and [`crate::slices`].

use crate::node::ZONES;

/// A source of chance, the same for the same seed.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Whether something that happens so often happens.
    pub fn chance(&mut self, percent: u8) -> bool {
        self.0.u8(0..100) < percent
    }

    /// Below the limit, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(0..limit)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One of these, each as often as the number before it says.
    pub fn weigh<T: Copy>(&mut self, choices: &[(usize, T)]) -> T {
        let mut rest = self.below(choices.iter().map(|(weight, _)| weight).sum());
        let is_it = |(weight, _): &&(usize, T)| {
            let is_it = rest < *weight;
            rest = rest.saturating_sub(*weight);
            is_it
        };
        choices.iter().find(is_it).unwrap_or(&choices[0]).1
    }

    /// Some of these, in their order.
    pub fn some<T: Copy>(&mut self, percent: u8, choices: &[T]) -> Vec<T> {
        choices.iter().copied().filter(|_| self.chance(percent)).collect()
    }

    /// Where the Node is, if anywhere.
    pub fn zone(&mut self) -> Option<&'static str> {
        let zone = self.pick(&ZONES);
        self.chance(80).then_some(zone)
    }
}
