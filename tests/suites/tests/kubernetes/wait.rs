//! Polling with time limits.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

/// Time limit of [`eventually`]. The agent repeats a failed watch after about a second, and doubles the wait with each failure.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Time limit for recoveries that take minutes. A watch without data is closed after 90 seconds, and the wait before a retry is
/// one minute at most.
pub const MINUTES: Duration = Duration::from_mins(4);
const INTERVAL: Duration = Duration::from_millis(20);

/// Polls until `expected` accepts the value. After the time limit, the error shows the last value.
pub async fn eventually<T: Debug>(look: impl AsyncFn() -> Result<T>, expected: impl Fn(&T) -> bool) -> Result<T> {
    within(PATIENCE, look, expected).await
}

/// As [`eventually`], with the time limit `patience`.
pub async fn within<T: Debug>(
    patience: Duration,
    look: impl AsyncFn() -> Result<T>,
    expected: impl Fn(&T) -> bool,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let seen = look().await?;
        if expected(&seen) {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            bail!("not within {patience:?}; the last value was {seen:#?}");
        }
        sleep(INTERVAL).await;
    }
}

/// As [`eventually`], for one expected value.
pub async fn eventually_equal<T: Debug + PartialEq>(look: impl AsyncFn() -> Result<T>, expected: &T) -> Result<()> {
    let outcome = eventually(look, |seen| seen == expected).await;
    outcome.with_context(|| format!("expected {expected:#?}"))?;
    Ok(())
}
