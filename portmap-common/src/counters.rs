//! The number of calls to each frontend, by outcome.

use core::ops::AddAssign;

use crate::layout;

/// A value of `COUNTERS`, per CPU: number of calls since the frontend's service entry was written, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Calls forwarded to a backend.
    pub forwarded: u64,
    /// Calls refused: failed with `ECONNREFUSED`, or with `EPERM` for UDP before kernel 5.18.
    pub refused: u64,
    /// Calls dropped: failed with `ETIMEDOUT`, or with `EPERM` before kernel 5.18.
    pub dropped: u64,
}

layout!(Counters, 24);

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let Self { forwarded, refused, dropped } = other;
        self.forwarded += forwarded;
        self.refused += refused;
        self.dropped += dropped;
    }
}
