//! Time since boot (`CLOCK_BOOTTIME`). Used for every time stored in a map or on a socket, because both outlive the agent.
//!
//! Nobody can set this clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since boot, including time in suspension.
pub fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
