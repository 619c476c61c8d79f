//! The number of clients that session affinity has forgotten because AFFINITY was full.

use std::time::{Duration, Instant};

use anyhow::Result;
use portmap_common::Totals;

use crate::maps::bpf::BpfMaps;

/// The shortest time between two counts of AFFINITY, which cost one system call per 4,096 entries.
const REFRESH: Duration = Duration::from_secs(10);

/// The last count. The kernel removes an entry of AFFINITY only to make room for another.
#[derive(Default)]
pub struct AffinityEvictions {
    /// The clients that AFFINITY had ever taken in, at the last count (`Totals::affinity_clients`).
    ever: u64,
    count: u64,
    at: Option<Instant>,
}

impl AffinityEvictions {
    /// The number of forgotten clients. AFFINITY is counted again if it took in clients since and the last count is old.
    pub fn count(&mut self, maps: &BpfMaps, totals: &Totals) -> Result<u64> {
        let is_old = self.at.is_none_or(|at| at.elapsed() >= REFRESH);
        if is_old && self.ever != totals.affinity_clients {
            let present = u64::from(maps.affinity_clients()?);
            *self = Self {
                ever: totals.affinity_clients,
                count: totals.affinity_clients.saturating_sub(present),
                at: Some(Instant::now()),
            };
        }
        Ok(self.count)
    }
}
