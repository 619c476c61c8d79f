//! Waits for child processes and conditions, and returns early if the user interrupts the command, so that the cluster is
//! removed in the usual order.

use std::fmt;
use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// Pause between two attempts of [`Interruption::until`].
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for a notice about a child process. Only a lost notice would make it this long.
const LONGEST: Duration = Duration::from_secs(1);

/// The error after Ctrl-C or another signal that asks for the end.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Catches signals from its creation on. Child processes get the signals' default actions.
#[derive(Debug)]
pub struct Interruption {
    caught: Arc<AtomicBool>,
    /// Gets a byte for each signal, also for the end of a child process.
    notices: UnixStream,
}

impl Interruption {
    /// Begins to catch signals.
    pub fn watch() -> Result<Self> {
        let (notices, sender) = UnixStream::pair().context("failed to make a pair of sockets")?;
        let caught = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&caught)).context("failed to catch a signal")?;
        }
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGCHLD] {
            pipe::register(signal, sender.try_clone()?).context("failed to catch a signal")?;
        }
        Ok(Self { caught, notices })
    }

    /// Waits for a signal, at most for `limit`. Fails with [`Interrupted`] if the user has interrupted this process.
    fn pause(&self, limit: Duration) -> Result<()> {
        self.notices.set_read_timeout(Some(limit)).context("failed to set a time limit")?;
        if let Err(error) = (&self.notices).read(&mut [0; 64]) {
            let is_timeout = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted);
            ensure!(is_timeout, "failed to wait for a signal: {error}");
        }
        ensure!(!self.caught.load(Ordering::Relaxed), Interrupted);
        Ok(())
    }

    /// Waits for the end of a child process, and calls `check` after each signal and at least once per second.
    pub fn wait(&self, child: &mut Child, mut check: impl FnMut() -> Result<()>) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait().context("failed to get the status of a child process")? {
                return Ok(status);
            }
            check()?;
            self.pause(LONGEST)?;
        }
    }

    /// Runs a command to its end. Fails if the command fails; its error goes to standard error.
    pub fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        let mut child = command.spawn().with_context(|| format!("failed to start a program to {what}"))?;
        let status = self.wait(&mut child, || Ok(()))?;
        ensure!(status.success(), "failed to {what} ({status})");
        Ok(())
    }

    /// Repeats `attempt` until it succeeds. After `limit` fails with the last error.
    pub fn until<T>(&self, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => self.pause(PAUSE)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// One test, because signals belong to the whole process.
    #[test]
    fn waits_end_with_a_child_a_success_or_a_signal() -> Result<()> {
        let interruption = Interruption::watch()?;
        interruption.run("succeed", &mut Command::new("true"))?;
        let failure = interruption.run("try", &mut Command::new("false")).map_err(|error| error.to_string());
        assert_eq!(failure, Err("failed to try (exit status: 1)".into()));
        let mut attempts = 0..3;
        interruption.until(Duration::from_mins(1), || match attempts.next() {
            Some(_) => bail!("not yet"),
            None => Ok(()),
        })?;
        let failure = interruption.until(Duration::ZERO, || bail!("never")).map_err(|error: anyhow::Error| error.to_string());
        assert_eq!(failure, Err::<(), _>("never".into()));

        let mut child = Command::new("sleep").arg("60").spawn()?;
        signal_hook::low_level::raise(SIGINT)?;
        let interrupted = interruption.wait(&mut child, || Ok(()));
        child.kill()?;
        child.wait()?;
        assert!(interrupted.is_err_and(|error| error.is::<Interrupted>()));
        Ok(())
    }
}
