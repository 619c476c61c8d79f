//! The counters of the programs, summed over all CPUs.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context, Result};
use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use portmap_common::{Affinity, Client, Counters, Totals};

use super::BpfMaps;
use crate::kernel::bpf;

/// The map COUNTERS.
pub struct CounterMap {
    map: PerCpuArray<MapData, Counters>,
    descriptor: OwnedFd,
    /// Number of possible processors: of values of each element.
    processors: usize,
}

impl CounterMap {
    /// Wraps the open map.
    pub fn new(map: MapData) -> Result<Self> {
        let descriptor = map.fd().as_fd().try_clone_to_owned()?;
        let processors = nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self { map: PerCpuArray::try_from(Map::PerCpuArray(map))?, descriptor, processors })
    }

    /// The counters of a service entry, summed over all CPUs.
    pub fn read(&self, number: u32) -> Result<Counters> {
        let per_cpu = bpf::read_per_cpu(self.descriptor.as_fd(), number, self.processors);
        let per_cpu: Vec<Counters> = per_cpu.context("failed to read COUNTERS")?;
        let mut sum = Counters::default();
        for counters in per_cpu {
            sum += counters;
        }
        Ok(sum)
    }

    /// Sets the counters of a service entry to 0.
    pub fn clear(&mut self, number: u32) -> Result<()> {
        Ok(self.map.set(number, PerCpuValues::try_from(vec![Counters::default(); self.processors])?, 0)?)
    }
}

impl BpfMaps {
    /// The counters of a service entry, summed over all CPUs.
    pub fn counters(&self, number: u32) -> Result<Counters> {
        self.counters.read(number)
    }

    /// The value of TOTALS, summed over all CPUs.
    pub fn totals(&self) -> Result<Totals> {
        let per_cpu = self.totals.get(&0, 0)?;
        Ok(per_cpu.iter().fold(Totals::default(), |sum, totals| Totals {
            forwarded: sum.forwarded + totals.forwarded,
            refused: sum.refused + totals.refused,
            dropped: sum.dropped + totals.dropped,
            undefined_port: sum.undefined_port + totals.undefined_port,
            unallocated: sum.unallocated + totals.unallocated,
            unknown_namespace: sum.unknown_namespace + totals.unknown_namespace,
            not_admitted: sum.not_admitted + totals.not_admitted,
            forgotten_sockets: sum.forgotten_sockets + totals.forgotten_sockets,
            affinity_clients: sum.affinity_clients + totals.affinity_clients,
            affinity_over_share: sum.affinity_over_share + totals.affinity_over_share,
            outside_forwarded: sum.outside_forwarded + totals.outside_forwarded,
            outside_refused: sum.outside_refused + totals.outside_refused,
            outside_dropped: sum.outside_dropped + totals.outside_dropped,
            outside_without_port: sum.outside_without_port + totals.outside_without_port,
            outside_overflowed: sum.outside_overflowed + totals.outside_overflowed,
        }))
    }

    /// Number of entries in AFFINITY. Reads the whole map.
    pub fn affinity_clients(&self) -> Result<u32> {
        let affinity = self.affinity.fd();
        bpf::count_entries::<Client, Affinity>(affinity.as_fd()).context("failed to count the entries of AFFINITY")
    }
}
