//! Look-ups of addresses in ServiceCIDRs, while the ranges are rewritten.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use portmap::{
    datapath::lookup::Lookup,
    maps::{Maps as _, Prefix, bpf::BpfMaps, pin::Pins},
    model::Family,
};
use portmap_common::{PROBES, Probe, TCP, V4};
use portmap_harness::{say, world::World};

use crate::{CAPACITY, READERS, seconds};

/// The range that stays in the table, at a changing index.
const STEADY_RANGE: &str = "10.200.0.0/16";

/// `outcome` of a [`Probe`] that was dropped.
const DROPPED: u32 = 3;

/// PREFIXES has two halves, which are written in turn. A look-up that began before the last change may still read the half that
/// is written next.
#[test]
fn readers_find_the_permanent_range() {
    let world = World::new("prefixes").unwrap();
    let pins = Pins::new(world.bpffs());
    pins.create().unwrap();
    let lookups: Vec<Lookup> = (0..READERS).map(|_| Lookup::load(&pins, CAPACITY).unwrap()).collect();
    let mut maps = BpfMaps::open(&pins).unwrap();
    let prefixes = |number: u8| {
        let other = |index: u8| format!("172.{}.0.0/16", number.wrapping_add(index));
        let range = |index: u8| if index == number % 8 { STEADY_RANGE.to_owned() } else { other(index) };
        (0..8).map(|index| Prefix { range: range(index).parse().unwrap(), allocated: true }).collect::<Vec<_>>()
    };
    maps.set_prefixes(Family::V4, &prefixes(0)).unwrap();
    let (reads, missed, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let until = Instant::now() + Duration::from_secs(seconds().min(5));
    let mut changes = 0_u64;
    thread::scope(|scope| {
        for lookup in &lookups {
            let (reads, missed, stop) = (&reads, &missed, &stop);
            scope.spawn(move || read_prefix(lookup, reads, missed, stop));
        }
        for number in (0..=u8::MAX).cycle().take_while(|_| Instant::now() < until && missed.load(Relaxed) == 0) {
            maps.set_prefixes(Family::V4, &prefixes(number)).unwrap();
            changes += 1;
        }
        stop.store(true, Relaxed);
    });
    say::figures(format_args!("{changes} changes of the prefixes, {reads:?} reads, {missed:?} missed"));
    assert_eq!(missed.load(Relaxed), 0, "{changes} changes, {reads:?} reads");
    assert!(changes > 20 && reads.load(Relaxed) > 10_000, "too few for a result: {changes} changes, {reads:?} reads");
}

/// The address is in the range, and no Service has it: the look-up must drop.
fn read_prefix(lookup: &Lookup, reads: &AtomicU64, missed: &AtomicU64, stop: &AtomicBool) {
    let frontend = portmap_common::FrontendKey::new([10, 200, 1, 2], 80, TCP);
    let empty = Probe { frontend, outcome: 0, backend: portmap_common::Backend::default() };
    while !stop.load(Relaxed) {
        let mut probes = [empty; PROBES];
        lookup.ask::<V4>(&mut probes, 1).unwrap();
        reads.fetch_add(PROBES as u64, Relaxed);
        missed.fetch_add(probes.iter().filter(|probe| probe.outcome != DROPPED).count() as u64, Relaxed);
    }
}
