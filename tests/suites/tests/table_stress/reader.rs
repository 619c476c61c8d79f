//! Threads that look up random Services and count wrong results.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use portmap::datapath::lookup::Lookup;
use portmap_common::{PROBES, Probe, TCP, V4};

use crate::{STEADY, port, random::Random};

/// `outcome` of a [`Probe`] that was forwarded.
const FORWARDED: u32 = 1;

/// Counts of look-ups and of wrong results.
#[derive(Debug, Default)]
pub struct Seen {
    pub reads: AtomicU64,
    pub missed: AtomicU64,
    pub foreign: AtomicU64,
    pub torn: AtomicU64,
}

impl Seen {
    pub fn wrong(&self) -> u64 {
        self.missed.load(Relaxed) + self.foreign.load(Relaxed) + self.torn.load(Relaxed)
    }
}

pub fn read(lookup: &Lookup, services: u16, mut random: Random, seen: &Seen, stop: &AtomicBool) {
    let empty = Probe { frontend: key(0), outcome: 0, backend: portmap_common::Backend::default() };
    let mut probes = [empty; PROBES];
    while !stop.load(Relaxed) {
        for probe in &mut probes {
            let kind = STEADY * random.below(2);
            *probe = Probe { frontend: key(kind + random.below(services)), ..empty };
        }
        lookup.ask::<V4>(&mut probes, 1).unwrap();
        seen.reads.fetch_add(PROBES as u64, Relaxed);
        for probe in &probes {
            judge(probe, seen);
        }
    }
}

/// Checks a result. A permanent Service must be found. A backend's address contains the number of its Service and a generation,
/// which determines the port number.
fn judge(probe: &Probe<V4>, seen: &Seen) {
    let [_, _, high, low] = probe.frontend.address;
    if probe.outcome != FORWARDED {
        if u16::from_be_bytes([high, low]) < STEADY {
            seen.missed.fetch_add(1, Relaxed);
        }
        return;
    }
    let [_, owner_high, owner_low, generation] = probe.backend.address;
    if [owner_high, owner_low] != [high, low] {
        seen.foreign.fetch_add(1, Relaxed);
    } else if probe.backend.port != port(generation) {
        seen.torn.fetch_add(1, Relaxed);
    }
}

fn key(service: u16) -> portmap_common::FrontendKey<V4> {
    let [high, low] = service.to_be_bytes();
    portmap_common::FrontendKey::new([10, 96, high, low], 80, TCP)
}
