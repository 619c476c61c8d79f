//! How long is long. Deadlines are for a machine of today; one that is simulated, as in the tests on other kernels, is told by
//! `PORTMAP_PATIENCE` how many times slower it is.

use std::env;
use std::time::Duration;

/// A deadline on this machine.
#[must_use]
pub fn patience(duration: Duration) -> Duration {
    duration * slowness()
}

/// A deadline of so many seconds on this machine, as programs take it.
#[must_use]
pub fn seconds(count: u32) -> String {
    (count * slowness()).to_string()
}

/// How many times slower than a machine of today this one is: what is done in some time may be as much less.
#[must_use]
pub fn slowness() -> u32 {
    env::var("PORTMAP_PATIENCE").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
