//! Errors that are caused by a shortage of file descriptors or memory. A shortage passes, so the failed operation is tried
//! again.

use std::{
    error::Error,
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::maps::MapError;

/// The time between two attempts of an operation that failed for a shortage.
pub const PAUSE: Duration = Duration::from_millis(500);

/// The shortest time between two log lines about shortages.
const PERIOD: Duration = Duration::from_secs(10);

/// The log of shortages, of all threads.
static LOG: Mutex<Log> = Mutex::new(Log { last: None, held_back: 0 });

/// The time of the last log line, and the number of failures that were held back since.
struct Log {
    last: Option<Instant>,
    held_back: u32,
}

/// Whether an error was caused by a shortage of descriptors or memory, in this process or on this host.
pub fn is_exhausted(error: &anyhow::Error) -> bool {
    error.chain().any(is_shortage)
}

fn is_shortage(cause: &(dyn Error + 'static)) -> bool {
    let code = if let Some(error) = cause.downcast_ref::<io::Error>() {
        error.raw_os_error()
    } else if let Some(error) = cause.downcast_ref::<nix::Error>() {
        Some(*error as i32)
    } else if let Some(error) = cause.downcast_ref::<rustix::io::Errno>() {
        Some(error.raw_os_error())
    } else if let Some(MapError::IoError(error)) = cause.downcast_ref::<MapError>() {
        // `MapError::IoError` is transparent: its inner error is not its source.
        error.raw_os_error()
    } else {
        None
    };
    matches!(code, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Logs an error that a shortage caused, and turns it into success, for a caller that tries again later. Returns other errors.
pub fn wait_out(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if is_exhausted(&error) => {
            report(&error);
            Ok(())
        }
        other => other,
    }
}

/// Repeats an operation, at intervals of [`PAUSE`], until it succeeds or fails for another reason than a shortage.
pub async fn persist<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    loop {
        match attempt().await {
            Err(error) if is_exhausted(&error) => report(&error),
            ended => return ended,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Logs an error that a shortage caused. All callers together log at most one such error every ten seconds, with the number
/// of those not logged.
pub fn report(error: &anyhow::Error) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    if log.last.is_some_and(|last| last.elapsed() < PERIOD) {
        log.held_back = log.held_back.saturating_add(1);
        return;
    }
    let held_back = std::mem::take(&mut log.held_back);
    log.last = Some(Instant::now());
    let more = if held_back == 0 { String::new() } else { format!(" ({held_back} more shortages were not logged)") };
    tracing::warn!("{error:#}; trying again{more}");
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn wrapped(error: impl Error + Send + Sync + 'static) -> anyhow::Error {
        Err::<(), _>(error).context("failed to open it").context("failed to look").expect_err("an error")
    }

    #[test]
    fn a_shortage_is_found_however_it_is_wrapped() {
        let error = || io::Error::from_raw_os_error(libc::EMFILE);
        assert!(is_exhausted(&error().into()));
        assert!(is_exhausted(&wrapped(error())));
        assert!(is_exhausted(&wrapped(nix::Error::ENOMEM)));
        assert!(is_exhausted(&wrapped(rustix::io::Errno::NFILE)));
        assert!(is_exhausted(&wrapped(MapError::IoError(error()))));
        assert!(is_exhausted(&wrapped(aya::sys::SyscallError { call: "bpf_obj_get", io_error: error() })));
        assert!(is_exhausted(&wrapped(MapError::from(aya::sys::SyscallError { call: "bpf_obj_get", io_error: error() }))));
    }

    #[test]
    fn other_failures_are_none() {
        assert!(!is_exhausted(&wrapped(io::Error::from_raw_os_error(libc::ENOENT))));
        assert!(!is_exhausted(&wrapped(nix::Error::EPERM)));
        assert!(!is_exhausted(&anyhow::anyhow!("Too many open files (os error 24)")));
        assert!(wait_out(Err(wrapped(nix::Error::EPERM))).is_err());
        assert!(wait_out(Err(wrapped(nix::Error::EMFILE))).is_ok());
    }
}
