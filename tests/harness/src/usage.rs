//! Reads memory and processor time of a process from `/proc`.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use procfs::process::Process;
use serde::Serialize;

/// Memory and processor time of a process. Sizes are rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Largest resident set so far, in MiB.
    pub peak: u64,
    /// Current resident set, in MiB.
    pub resident: u64,
    /// Processor time since the start of the process, in user space and in the kernel.
    pub processor: Duration,
}

impl Usage {
    /// Reads the usage of a running process, by its process id. Fails if the process has ended.
    pub fn of(process: u32) -> Result<Self> {
        let process = Process::new(process.cast_signed()).with_context(|| format!("there is no process {process}"))?;
        let (status, stat) = (process.status()?, process.stat()?);
        let mebibytes = |kibibytes: Option<u64>| {
            kibibytes.map(|number| number.div_ceil(1024)).context("/proc shows no memory of the process")
        };
        Ok(Self {
            peak: mebibytes(status.vmhwm)?,
            resident: mebibytes(status.vmrss)?,
            processor: Duration::from_millis((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second()),
        })
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peak, resident, processor } = self;
        write!(f, "{resident} MiB resident (peak {peak} MiB), {processor:.1?} of processor time")
    }
}
