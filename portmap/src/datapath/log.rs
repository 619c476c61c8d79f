//! The programs' diagnostics, passed on to the agent's log.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tokio::io::{Interest, unix::AsyncFd};

/// Records that are passed on within each period; how many more there were is said at its end.
const MOST: u32 = 50;

/// How long a period is.
const PERIOD: Duration = Duration::from_secs(1);

/// The diagnostics of these programs, to be read.
pub fn open(programs: &mut Ebpf) -> Result<Logger> {
    Ok(Logger(EbpfLogger::init_with_logger(programs, Limited::default()).context("failed to read the programs' log")?))
}

/// Reads the diagnostics until it fails.
pub async fn run(Logger(logger): Logger) -> Result<()> {
    // SAFETY: the logger owns its descriptor for as long as it lives, and is not replaced within the registration.
    let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = logger.context("failed to wait for the programs' log")?;
    loop {
        let mut ready = logger.readable_mut().await.context("failed to wait for the programs' log")?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// Where the programs' diagnostics arrive.
pub struct Logger(EbpfLogger<Limited>);

/// Passes on so many records per second.
#[derive(Debug, Default)]
struct Limited {
    period: Mutex<Option<Period>>,
}

/// What was passed on lately.
#[derive(Debug)]
struct Period {
    began: Instant,
    seen: u32,
}

impl Limited {
    /// Whether one more record may be passed on, and how many were not in the period that ended.
    fn admit(&self, now: Instant) -> (bool, u32) {
        let mut period = self.period.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let held_back = match &*period {
            Some(current) if now.duration_since(current.began) < PERIOD => 0,
            Some(ended) => ended.seen.saturating_sub(MOST),
            None => 0,
        };
        let current = match period.take() {
            Some(current) if now.duration_since(current.began) < PERIOD => Period { seen: current.seen + 1, ..current },
            Some(_) | None => Period { began: now, seen: 1 },
        };
        let is_admitted = current.seen <= MOST;
        *period = Some(current);
        (is_admitted, held_back)
    }
}

impl Log for Limited {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (is_admitted, held_back) = self.admit(Instant::now());
        if held_back > 0 {
            tracing::info!(target: "portmap::datapath", "{held_back} more calls were not shown");
        }
        if is_admitted {
            tracing::info!(target: "portmap::datapath", "{}", record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_passed_on() {
        let (limited, start) = (Limited::default(), Instant::now());
        let admitted = (0..MOST + 10).filter(|_| limited.admit(start).0).count();
        assert_eq!(u32::try_from(admitted).ok(), Some(MOST));
        assert_eq!(limited.admit(start + PERIOD), (true, 10));
        assert_eq!(limited.admit(start + PERIOD), (true, 0));
    }
}
