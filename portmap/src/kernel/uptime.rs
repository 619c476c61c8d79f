//! The time since boot (`CLOCK_BOOTTIME`). All times in maps and on sockets are of this clock, because both outlive the agent.
//!
//! No program can set this clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since boot, including time in suspension.
pub fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
