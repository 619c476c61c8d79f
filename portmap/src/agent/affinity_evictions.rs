//! The number of clients that session affinity has forgotten because its map AFFINITY was full.

use std::time::{Duration, Instant};

use anyhow::Result;
use portmap_common::Totals;

use crate::maps::bpf::BpfMaps;

/// The shortest time between two counts of AFFINITY. A count costs at least one system call per 4,096 entries.
const REFRESH: Duration = Duration::from_secs(10);

/// The number of forgotten clients at the last count of the entries of AFFINITY. The kernel removes an entry of AFFINITY
/// only to make room for another.
#[derive(Default)]
pub struct AffinityEvictions {
    /// `Totals::affinity_clients` at the last count: the number of clients that were ever added to AFFINITY.
    ever: u64,
    count: u64,
    at: Option<Instant>,
}

impl AffinityEvictions {
    /// The number of clients that AFFINITY has forgotten since its creation. AFFINITY is counted again if clients were
    /// added, and the last count is older than [`REFRESH`].
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
