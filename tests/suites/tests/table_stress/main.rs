//! The programs' real look-up, run millions of times over tables that the real plan and apply rewrite meanwhile: a reader
//! must find every frontend that exists, and only its own backends, whole. With the grace period left out it must fail.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

mod prefixes;
mod random;
mod reader;
mod writer;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use portmap::{
    datapath::lookup::Lookup,
    maps::{Capacity, pin::Pins},
};
use portmap_harness::{
    patience::{patience, slowness},
    say,
    world::World,
};
use random::Random;
use reader::{Seen, read};
use writer::{Waiting, Writer};

/// Services that exist all the time, and are rewritten all the time; as many whose frontends come and go beside them are numbered
/// from here on.
const STEADY: u16 = 256;

/// As many are enough to be met at the wrong moment often, also where another program keeps a processor busy.
const FEW: u16 = 4;

/// Small, so that slots are used again soon.
const CAPACITY: Capacity = Capacity { services: 2048, backends: 8192, affinity_clients: 1 };

/// More readers than processors, so that some are interrupted in the middle of a look-up.
const READERS: usize = 4;

fn seconds() -> u64 {
    std::env::var("PORTMAP_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn no_reader_misses_or_meets_another_service() {
    let (seen, changes) = stress("stress", STEADY, Waiting::GracePeriod, Duration::from_secs(seconds()));
    say::figures(format_args!("{changes} changes; {seen:?}"));
    assert!(seen.reads.load(Relaxed) > 1_000_000 / u64::from(slowness()), "too few reads to say anything: {seen:?}");
    assert!(changes > 10_000 / u64::from(slowness()), "too few changes to say anything: {changes}");
    assert_eq!(seen.wrong(), 0, "{seen:?}");
}

#[test]
fn without_the_grace_period_the_stress_finds_the_fault() {
    if thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) {
        // No look-up is interrupted: whoever writes comes before it or after it.
        say::skipped("what a missing grace period does", "it takes two processors");
        return;
    }
    let (seen, changes) = stress("no-grace", FEW, Waiting::Nothing, patience(Duration::from_mins(5)));
    say::figures(format_args!("{changes} changes; {seen:?}"));
    assert!(seen.wrong() > 0, "the stress would not notice a missing grace period: {seen:?} in {changes} changes");
}

/// Reads and writes so many steady and fleeting services at the same time, until the time is up or something wrong was seen. Returns
/// what was seen, and how many changes were applied.
fn stress(name: &str, services: u16, waiting: Waiting, time: Duration) -> (Seen, u64) {
    let world = World::new(name).unwrap();
    let pins = Pins::new(world.bpffs());
    pins.create().unwrap();
    // Loading creates the maps; nothing is attached anywhere.
    let lookups: Vec<Lookup> = (0..READERS).map(|_| Lookup::load(&pins, CAPACITY).unwrap()).collect();
    let (seen, stop) = (Seen::default(), AtomicBool::new(false));
    let mut writer = Writer::new(&pins, services, waiting);
    for service in 0..services {
        writer.set(service);
    }
    let until = Instant::now() + time;
    thread::scope(|scope| {
        for (reader, lookup) in lookups.iter().enumerate() {
            let (seen, stop) = (&seen, &stop);
            scope.spawn(move || read(lookup, services, Random(reader as u64 + 1), seen, stop));
        }
        while Instant::now() < until && seen.wrong() == 0 {
            for _ in 0..256 {
                writer.change();
            }
        }
        stop.store(true, Relaxed);
    });
    (seen, writer.changes)
}

fn port(generation: u8) -> u16 {
    1000 + u16::from(generation)
}
