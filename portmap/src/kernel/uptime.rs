//! The time since boot. All times in maps and on sockets are of such a clock, because both outlive the agent, and because no
//! program can set it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since boot, including time in suspension (`CLOCK_BOOTTIME`): the clock of STATE.
pub fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// The time since boot, without time in suspension (`CLOCK_MONOTONIC`): the clock of the BPF programs.
pub fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
