//! Waiting for what must come, but not when exactly.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

/// A watch that failed is tried again after some seconds, and again after twice as many; so are those of Kubernetes' controllers.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// A watch that has failed for long is tried again at most every minute; silence is noticed after a minute and a half.
pub const MINUTES: Duration = Duration::from_mins(4);
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks again and again until it sees what is expected. The error of a wait in vain shows what was seen last.
pub async fn eventually<T: Debug>(look: impl AsyncFn() -> Result<T>, expected: impl Fn(&T) -> bool) -> Result<T> {
    within(PATIENCE, look, expected).await
}

/// As [`eventually`], for what takes its time.
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
            bail!("not after {patience:?}; at the end it was {seen:#?}");
        }
        sleep(INTERVAL).await;
    }
}

/// As [`eventually`], for one thing only.
pub async fn eventually_equal<T: Debug + PartialEq>(look: impl AsyncFn() -> Result<T>, expected: &T) -> Result<()> {
    let outcome = eventually(look, |seen| seen == expected).await;
    outcome.with_context(|| format!("expected {expected:#?}"))?;
    Ok(())
}
