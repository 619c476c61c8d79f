//! Scales time limits for slow machines.
//!
//! The limits in the tests suit a current machine. `PORTMAP_PATIENCE` is the factor by which a machine is slower, for example
//! an emulated machine in the tests on other kernels.

use std::env;
use std::time::Duration;

/// A time limit, multiplied by [`slowness`].
#[must_use]
pub fn patience(duration: Duration) -> Duration {
    duration * slowness()
}

/// A time limit in seconds, multiplied by [`slowness`], as a command-line argument.
#[must_use]
pub fn seconds(count: u32) -> String {
    (count * slowness()).to_string()
}

/// The factor by which this machine is slower than a current one: `PORTMAP_PATIENCE`, or 1 if it is not set or no whole
/// number. Tests divide their minimum throughput by it.
#[must_use]
pub fn slowness() -> u32 {
    env::var("PORTMAP_PATIENCE").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
