//! Random choices. [`crate::services`] and [`crate::slices`] create objects from them, and [`crate::population`] changes
//! objects.

use crate::node::ZONES;

/// A generator of random numbers. The same seed gives the same sequence.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// True with this probability in percent.
    pub fn chance(&mut self, percent: u8) -> bool {
        self.0.u8(0..100) < percent
    }

    /// A number below the limit, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(0..limit)
    }

    /// One of the choices, with equal probabilities.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One of the choices, with probabilities in proportion to the weights.
    pub fn weigh<T: Copy>(&mut self, choices: &[(usize, T)]) -> T {
        let mut rest = self.below(choices.iter().map(|(weight, _)| weight).sum());
        let is_it = |(weight, _): &&(usize, T)| {
            let is_it = rest < *weight;
            rest = rest.saturating_sub(*weight);
            is_it
        };
        choices.iter().find(is_it).unwrap_or(&choices[0]).1
    }

    /// A subset of the choices in their order. Each is included with this probability in percent.
    pub fn some<T: Copy>(&mut self, percent: u8, choices: &[T]) -> Vec<T> {
        choices.iter().copied().filter(|_| self.chance(percent)).collect()
    }

    /// One of the zones, or `None` with a probability of 20 %.
    pub fn zone(&mut self) -> Option<&'static str> {
        let zone = self.pick(&ZONES);
        self.chance(80).then_some(zone)
    }
}
