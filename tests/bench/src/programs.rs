//! How long each program takes, by the kernel's own statistics (`BPF_ENABLE_STATS`, kernel 5.8).

use std::fmt;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};
use aya::sys::{Stats, enable_stats};
use portmap::datapath::attach::{self, PROGRAMS};
use portmap_harness::listen::Protocol;
use serde::Serialize;

use crate::tables::Tables;

/// What one program took.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramTime {
    /// Its name.
    pub program: &'static str,
    /// What the clients spoke.
    pub protocol: Protocol,
    /// How often it ran.
    pub runs: u64,
    /// The mean of a run, in nanoseconds, with what the statistics themselves cost.
    pub mean: f64,
}

/// The statistics, switched on while this lives.
pub struct Statistics {
    ids: Vec<(&'static str, u32)>,
    _switch: OwnedFd,
}

impl Statistics {
    /// Of the programs attached to these tables.
    pub fn of(tables: &Tables) -> Result<Self> {
        let mut ids = Vec::new();
        for name in PROGRAMS {
            ids.extend(attach::attachment(tables.pins(), name)?.map(|(_, id)| (name, id)));
        }
        Ok(Self { ids, _switch: enable_stats(Stats::RunTime).context("failed to switch the statistics of programs on")? })
    }

    /// What ran since.
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    pub fn read(&self, protocol: Protocol) -> Result<Vec<ProgramTime>> {
        let all: Vec<ProgramInfo> = loaded_programs().collect::<Result<_, _>>().context("failed to list the programs")?;
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
