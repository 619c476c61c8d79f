//! The clock that everything is told by which outlives a process: nobody can set it, and like the tables it ends with the kernel.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// For how long the kernel has been running, suspended or not (`CLOCK_BOOTTIME`).
pub fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
