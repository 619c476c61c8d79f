//! A small generator of random numbers (xorshift): the same seed gives the same sequence.

/// The state of the generator, which is never 0.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator at the start of the seed's sequence. Seeds 0 and 1 have the same sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // xorshift with the state 0 only gives zeroes.
        Self(seed.max(1))
    }

    /// The next number: from 0 to `limit` - 1, or 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or_default()
    }
}
