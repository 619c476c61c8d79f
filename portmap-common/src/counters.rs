//! The number of calls to each frontend, by outcome.

use crate::layout;

/// A value of `COUNTERS`, per CPU: number of calls since the frontend was created, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Calls forwarded to a backend.
    pub forwarded: u64,
    /// Calls failed with `ECONNREFUSED`.
    pub refused: u64,
    /// Calls failed with `ETIMEDOUT`.
    pub dropped: u64,
}

layout!(Counters, 24);
