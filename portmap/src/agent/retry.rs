//! The retry after a failed write: its time, and its wait, which doubles with each failure.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

/// The wait before the first retry. Each further retry waits twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait before a retry.
const LONGEST: Duration = Duration::from_secs(30);

/// The retry of a failed write.
pub struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    /// The retry after a failure, where `last` is the retry that failed.
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
