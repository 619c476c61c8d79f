//! Copies the BPF programs' diagnostics to the agent's log, up to a maximum rate.

use std::{
    os::fd::AsFd as _,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use crate::kernel::readiness::readable;

/// Maximum number of records that are logged within each [`PERIOD`]. If records were dropped, the next period begins with a
/// line that counts them.
const MAX_RECORDS: u32 = 50;

/// The time after which the count of records begins again.
const PERIOD: Duration = Duration::from_secs(1);

/// Opens the diagnostics of these programs. [`run`] reads them.
pub fn open(programs: &mut Ebpf) -> Result<Logger> {
    Ok(Logger(EbpfLogger::init_with_logger(programs, Limited::default()).context("failed to read the programs' log")?))
}

/// Reads and logs the diagnostics. Returns only on an error.
pub async fn run(Logger(mut logger): Logger) -> Result<()> {
    const FAILED: &str = "failed to wait for the programs' log";
    let records = readable(logger.as_fd()).context(FAILED)?;
    loop {
        let mut ready = records.readable().await.context(FAILED)?;
        logger.flush();
        ready.clear_ready();
    }
}

/// The open diagnostics of the programs.
pub struct Logger(EbpfLogger<Limited>);

/// A log that drops records beyond [`MAX_RECORDS`] in a [`PERIOD`].
#[derive(Debug, Default)]
struct Limited {
    period: Mutex<Option<Period>>,
}

/// The number of records since the beginning of a period.
#[derive(Debug)]
struct Period {
    began: Instant,
    seen: u32,
}

impl Limited {
    /// Counts one more record at `now`. Returns whether to log it, and the number of records that the period before has
    /// dropped: 0 except for the first record of a period.
    fn admit(&self, now: Instant) -> (bool, u32) {
        let mut period = self.period.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dropped = match &*period {
            Some(current) if now.duration_since(current.began) < PERIOD => 0,
            Some(ended) => ended.seen.saturating_sub(MAX_RECORDS),
            None => 0,
        };
        let current = match period.take() {
            Some(current) if now.duration_since(current.began) < PERIOD => Period { seen: current.seen + 1, ..current },
            Some(_) | None => Period { began: now, seen: 1 },
        };
        let is_admitted = current.seen <= MAX_RECORDS;
        *period = Some(current);
        (is_admitted, dropped)
    }
}

impl Log for Limited {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (is_admitted, dropped) = self.admit(Instant::now());
        if dropped > 0 {
            tracing::info!(target: "portmap::datapath", "dropped {dropped} records: at most {MAX_RECORDS} a second are logged");
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
    fn records_beyond_the_limit_are_dropped() {
        let (limited, start) = (Limited::default(), Instant::now());
        let logged = (0..MAX_RECORDS + 10).filter(|_| limited.admit(start).0).count();
        assert_eq!(u32::try_from(logged).ok(), Some(MAX_RECORDS));
        assert_eq!(limited.admit(start + PERIOD), (true, 10));
        assert_eq!(limited.admit(start + PERIOD), (true, 0));
    }
}
