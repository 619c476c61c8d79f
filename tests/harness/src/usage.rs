//! What a process has used of the machine so far.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use procfs::process::Process;
use serde::Serialize;

/// Memory in MiB, and processor time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The most that was ever resident.
    pub peak: u64,
    /// What is resident now.
    pub resident: u64,
    /// Time on a processor, in user space and in the kernel.
    pub processor: Duration,
}

impl Usage {
    /// Of a running process.
    pub fn of(process: u32) -> Result<Self> {
        let process = Process::new(process.cast_signed()).with_context(|| format!("there is no process {process}"))?;
        let (status, stat) = (process.status()?, process.stat()?);
        let mebibytes = |kibibytes: Option<u64>| kibibytes.map(|number| number.div_ceil(1024)).context("it has no memory");
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
        write!(f, "{resident} MiB resident (at most {peak}), {processor:.1?} of a processor")
    }
}
