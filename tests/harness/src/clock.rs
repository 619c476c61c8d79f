//! Clocks that a test sets: the wall clock of one process (libfaketime), or the wall clock of a test's virtual machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Paths of libfaketime in Debian (two architectures) and in Fedora.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

/// A wall clock for one process, with an offset from the real time. The process's monotonic clock is not changed.
#[derive(Debug)]
pub struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Clock {
    /// A clock that shows the real time. Its offset is stored in a file in `directory`.
    pub fn new(directory: &Path) -> Result<Self> {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists()).context("there is no libfaketime")?;
        let clock = Self { library, file: directory.join("clock") };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Sets the offset from the real time in libfaketime's format, for example `-20y`.
    pub fn set(&self, offset: &str) -> Result<()> {
        // A rename, so that the process never reads half of the offset.
        let partial = self.file.with_extension("new");
        fs::write(&partial, offset).context("failed to write the offset of the test clock")?;
        fs::rename(&partial, &self.file).context("failed to set the test clock")
    }

    /// The command-line prefix (`env VARIABLE=VALUE …`) that makes a program use this clock.
    #[must_use]
    pub fn wrapper(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}

/// Whether tests may set the machine's wall clock. Only the kernel command line of a test's virtual machine sets
/// `PORTMAP_OWN_CLOCK`.
#[must_use]
pub fn is_ours() -> bool {
    env::var_os("PORTMAP_OWN_CLOCK").is_some()
}

/// Moves the machine's wall clock by the whole seconds of `time`, ahead or back. Fails if tests may not set it ([`is_ours`]).
pub fn jump(time: Duration, ahead: bool) -> Result<()> {
    ensure!(is_ours(), "tests may not set the clock of this machine: PORTMAP_OWN_CLOCK is not set");
    let now = clock_gettime(ClockId::Realtime);
    let seconds = i64::try_from(time.as_secs())?;
    let tv_sec = if ahead { now.tv_sec + seconds } else { now.tv_sec - seconds };
    clock_settime(ClockId::Realtime, Timespec { tv_sec, ..now }).context("failed to set the clock")
}
