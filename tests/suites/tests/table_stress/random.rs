//! Random numbers with a fixed sequence.

/// A xorshift generator. The same seed gives the same sequence.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u16) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u16::try_from(self.0 % u64::from(limit)).expect("the remainder is below the limit")
    }
}
