//! Reads the run time of each BPF program from the kernel's statistics (`BPF_ENABLE_STATS`, kernel 5.8).

use std::fmt;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};
use aya::sys::{Stats, enable_stats};
use portmap::datapath::attach::{self, PROGRAMS};
use portmap_harness::listen::Protocol;
use serde::Serialize;

use crate::tables::Tables;

/// The run time of one BPF program.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramTime {
    /// The program's name.
    pub program: &'static str,
    /// The protocol of the clients' sockets during the measurement.
    pub protocol: Protocol,
    /// Number of runs.
    pub runs: u64,
    /// Mean time of a run in nanoseconds, including the cost of the statistics.
    pub mean: f64,
}

/// Enables the kernel's statistics of BPF programs until it is dropped.
pub struct Statistics {
    /// Names and kernel ids of the programs.
    ids: Vec<(&'static str, u32)>,
    _switch: OwnedFd,
}

impl Statistics {
    /// Enables the statistics, and finds the programs whose links are pinned with these maps.
    pub fn of(tables: &Tables) -> Result<Self> {
        let mut ids = Vec::new();
        for name in PROGRAMS {
            ids.extend(attach::attachment(tables.pins(), name)?.map(|(_, id)| (name, id)));
        }
        Ok(Self { ids, _switch: enable_stats(Stats::RunTime).context("failed to enable the statistics of BPF programs")? })
    }

    /// The run times of the programs that have run since the statistics were enabled.
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no exact nanoseconds")]
    pub fn read(&self, protocol: Protocol) -> Result<Vec<ProgramTime>> {
        let all: Vec<ProgramInfo> = loaded_programs().collect::<Result<_, _>>().context("failed to list the BPF programs")?;
        let time = |(program, id): &(&'static str, u32)| {
            let info = all.iter().find(|info| info.id() == *id)?;
            let (runs, total) = (info.run_count(), info.run_time().as_nanos());
            (runs > 0).then(|| ProgramTime { program, protocol, runs, mean: total as f64 / runs as f64 })
        };
        Ok(self.ids.iter().filter_map(time).collect())
    }
}

impl fmt::Display for ProgramTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, protocol, runs, mean } = self;
        write!(f, "{program:<14}{protocol:>5}{runs:>10}{mean:>10.0}")
    }
}
