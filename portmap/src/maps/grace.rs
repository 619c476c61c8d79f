//! Waits for an RCU grace period: then no program reads a retired service entry or slot any more, and `plan` may use it again.

use anyhow::{Context, Result};
use aya::maps::{Array, ArrayOfMaps, Map, MapData};

use crate::maps::{bpf::open, pin::Pins};

/// The map GRACE, which exists only for this wait.
pub struct Grace {
    outer: ArrayOfMaps<MapData, Array<MapData, u32>>,
    inner: Array<MapData, u32>,
}

impl Grace {
    /// Opens the pinned map, and creates the inner map that is stored in it.
    pub fn open(pins: &Pins) -> Result<Self> {
        let outer = ArrayOfMaps::try_from(Map::ArrayOfMaps(open(pins, "GRACE")?)).context("GRACE is not an array of maps")?;
        let inner = Array::create(1, 0).context("failed to create the inner map of GRACE")?;
        Ok(Self { outer, inner })
    }

    /// Returns when every program that ran at the time of the call has finished. Blocks for 8–24 ms on a busy machine.
    ///
    /// The kernel calls `synchronize_rcu()` each time user space stores a map in an array of maps: `maybe_wait_bpf_programs` in
    /// `kernel/bpf/syscall.c`, in 5.10 and all later kernels.
    pub fn wait(&mut self) -> Result<()> {
        self.outer.set(0, &self.inner, 0).context("failed to wait for a grace period")
    }
}
