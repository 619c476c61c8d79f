//! Clocks that a test sets: one that a process goes by (libfaketime), or the machine's, where the machine is the tests' own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Where distributions have the library.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

/// What a process takes for the time of day. The time that passes is the kernel's.
#[derive(Debug)]
pub struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Clock {
    /// One that is right, kept in a directory of the test's.
    pub fn new(directory: &Path) -> Result<Self> {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists()).context("there is no libfaketime")?;
        let clock = Self { library, file: directory.join("clock") };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Sets it so far from the right time, as in `-20y`.
    pub fn set(&self, offset: &str) -> Result<()> {
        // Nobody should read half of it.
        let partial = self.file.with_extension("new");
        fs::write(&partial, offset).context("failed to write the offset of a clock")?;
        fs::rename(&partial, &self.file).context("failed to set a clock")
    }

    /// A program that goes by it is called behind these words.
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

/// Whether the machine's clock may be set: only its kernel's command line says so.
#[must_use]
pub fn is_ours() -> bool {
    env::var_os("PORTMAP_OWN_CLOCK").is_some()
}

/// Moves the machine's clock ahead, or back.
pub fn jump(time: Duration, ahead: bool) -> Result<()> {
    ensure!(is_ours(), "this machine's clock is not the tests'");
    let now = clock_gettime(ClockId::Realtime);
    let seconds = i64::try_from(time.as_secs())?;
    let tv_sec = if ahead { now.tv_sec + seconds } else { now.tv_sec - seconds };
    clock_settime(ClockId::Realtime, Timespec { tv_sec, ..now }).context("failed to set the clock")
}
