//! Waiting until no program can still read what was retired: an RCU grace period.

use anyhow::{Context, Result};
use aya::maps::{Array, ArrayOfMaps, Map, MapData};

use crate::maps::{bpf::open, pin::Pins};

/// The map that is kept for waiting.
pub struct Grace {
    outer: ArrayOfMaps<MapData, Array<MapData, u32>>,
    inner: Array<MapData, u32>,
}

impl Grace {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> Result<Self> {
        let outer = ArrayOfMaps::try_from(Map::ArrayOfMaps(open(pins, "GRACE")?)).context("GRACE is not an array of maps")?;
        let inner = Array::create(1, 0).context("failed to create the map that GRACE holds")?;
        Ok(Self { outer, inner })
    }

    /// Returns when every program that was running at the call has finished. Blocks: 8–24 ms on a busy machine.
    ///
    /// The kernel calls `synchronize_rcu()` whenever user space stores a map in an array of maps, from 5.10 on at least:
    /// `maybe_wait_bpf_programs` in kernel/bpf/syscall.c.
    pub fn wait(&mut self) -> Result<()> {
        self.outer.set(0, &self.inner, 0).context("failed to wait for a grace period")
    }
}
