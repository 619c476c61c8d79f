//! How many clients session affinity has forgotten, for want of room in AFFINITY.

use std::time::{Duration, Instant};

use anyhow::Result;
use portmap_common::Totals;

use crate::maps::bpf::BpfMaps;

/// Counting the entries takes a system call for some hundreds of them: at most this often.
const REFRESH: Duration = Duration::from_secs(10);

/// The last count. Entries of AFFINITY only go when the kernel needs their room.
#[derive(Default)]
pub struct AffinityEvictions {
    /// Clients that had begun to be remembered.
    begun: u64,
    count: u64,
    at: Option<Instant>,
}

impl AffinityEvictions {
    /// How many clients were forgotten, counted anew if some began since and the last count is old.
    pub fn count(&mut self, maps: &BpfMaps, totals: &Totals) -> Result<u64> {
        let is_old = self.at.is_none_or(|at| at.elapsed() >= REFRESH);
        if is_old && self.begun != totals.affinity_clients {
            let present = u64::from(maps.affinity_clients()?);
            *self = Self {
                begun: totals.affinity_clients,
                count: totals.affinity_clients.saturating_sub(present),
                at: Some(Instant::now()),
            };
        }
        Ok(self.count)
    }
}
