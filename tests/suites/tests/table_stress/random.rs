//! Random numbers, the same in each run.

/// A small generator of numbers (xorshift): the same sequence each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u16) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u16::try_from(self.0 % u64::from(limit)).expect("it is less than the limit")
    }
}
