//! What happened to the clients of a frontend.

use crate::layout;

/// A value of `COUNTERS`, per CPU: calls since the frontend was created, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Sent on to a backend.
    pub forwarded: u64,
    /// Failed with `ECONNREFUSED`.
    pub refused: u64,
    /// Failed with `ETIMEDOUT`.
    pub dropped: u64,
}

layout!(Counters, 24);
