//! The time of the retry after a failed write. The wait doubles with each failure.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

/// The wait before the first retry. Each further retry waits twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait before a retry.
const LONGEST: Duration = Duration::from_secs(30);

/// The next attempt after a failed write.
pub struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    /// The retry after a failure. `last`: the retry that failed; none for a first failure.
    pub fn after(last: Option<&Self>) -> Self {
        let wait = last.map_or(FIRST, |last| (last.wait * 2).min(LONGEST));
        Self { at: Instant::now() + wait, wait }
    }

    /// The time from the failure to the retry.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    pub fn is_due(&self) -> bool {
        self.at <= Instant::now()
    }

    /// Returns when the retry is due.
    pub async fn due(&self) {
        sleep_until(self.at.into()).await;
    }
}
