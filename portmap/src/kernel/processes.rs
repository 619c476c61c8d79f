//! Signals to other processes of this host.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Sends a signal to the process with this id, if the process handles the signal, and if `is_meant` holds for the id.
///
/// A descriptor of the process is opened before the two checks. So the signal cannot reach another process that gets the same id.
/// A process that does not handle the signal would end.
///
/// # Errors
///
/// The process has ended, does not handle the signal, or is not the one meant, or the caller lacks the permission.
pub fn signal_handler(id: u32, signal: Signal, is_meant: impl FnOnce(u32) -> Result<bool>) -> Result<()> {
    let failed = || format!("failed to signal the process {id}");
    let raw = i32::try_from(id).ok().and_then(Pid::from_raw).with_context(failed)?;
    let process = pidfd_open(raw, PidfdFlags::empty()).with_context(failed)?;
    ensure!(is_meant(id)?, "the process {id} has ended");
    let status = fs::read_to_string(format!("/proc/{id}/status")).with_context(failed)?;
    ensure!(handles(&status, signal.as_raw()), "the process {id} does not handle the signal, so it may be an earlier version");
    pidfd_send_signal(process, signal).with_context(failed)
}

/// Whether a process handles a signal, by the line `SigCgt` of its status in `/proc`: a bit mask in hexadecimal.
fn handles(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|shifted| shifted & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_handled_signals_is_read() {
        let status = "Name:\tportmap\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000200\n";
        assert!(handles(status, 10));
        assert!(!handles(status, 9) && !handles(status, 13) && !handles("", 10));
    }
}
