//! The counters of all Service ports, read again and again, and the rates between two readings.

use std::time::Instant;

use anyhow::Result;
use portmap::{
    inspect::top::{self, Order, Row, Seen, Sums},
    maps::pin::Pins,
};

use super::reader::Reader;

/// The last reading of the counters.
pub struct Meter {
    reader: Reader,
    sums: Sums,
    time: Instant,
}

impl Meter {
    /// Opens the maps, and reads the counters for the first time.
    pub fn start(pins: &Pins) -> Result<Self> {
        let mut reader = Reader::open(pins)?;
        let sums = reader.sums()?;
        Ok(Self { reader, sums, time: Instant::now() })
    }

    /// Time when the agent last wrote or compared, in seconds since boot.
    pub fn last_sync(&self) -> Result<u64> {
        self.reader.last_sync()
    }

    /// Reads the counters, and returns the rates since the reading before.
    pub fn rows(&mut self, seen: &Seen, order: Order) -> Result<Vec<Row>> {
        let (sums, time) = (self.reader.sums()?, Instant::now());
        let rows = top::rows(self.reader.ports(), [&self.sums, &sums], time - self.time, seen, order);
        (self.sums, self.time) = (sums, time);
        Ok(rows)
    }
}
