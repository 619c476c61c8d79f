//! Threads look up frontends with the datapath's own code, while the planner and the writer of the maps rewrite the tables.
//!
//! A look-up must find every permanent frontend, and must get only complete backends of that frontend. The writer waits for a
//! grace period before it reuses slots. Without this wait the test must find errors.
//!
//! Needs: root and BPF.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test reports an error by a panic")]

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

/// Number of permanent Services. Their endpoints are replaced all the time. Temporary Services have numbers from here on, and
/// are added and removed.
const STEADY: u16 = 256;

/// Number of permanent Services in the test without a grace period. It is small, so that look-ups often meet a change of the
/// same Service, also on a busy machine.
const FEW: u16 = 4;

/// The maps are small, so that freed slots are reused soon.
const CAPACITY: Capacity = Capacity { services: 2048, backends: 8192, affinity_clients: 1, flows: 256 };

/// Number of threads that look up. On machines with few processors, some are interrupted during a look-up.
const READERS: usize = 4;

fn seconds() -> u64 {
    std::env::var("PORTMAP_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn readers_find_every_frontend_and_only_its_backends() {
    let (seen, changes) = stress("stress", STEADY, Waiting::GracePeriod, Duration::from_secs(seconds()));
    say::figures(format_args!("{changes} changes; {seen:?}"));
    assert!(seen.reads.load(Relaxed) > 1_000_000 / u64::from(slowness()), "too few reads for a result: {seen:?}");
    assert!(changes > 10_000 / u64::from(slowness()), "too few changes for a result: {changes}");
    assert_eq!(seen.wrong(), 0, "{seen:?}");
}

#[test]
fn without_the_grace_period_the_test_finds_errors() {
    if thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) {
        // With one processor the writer runs before or after a look-up, never during it.
        say::skipped("the effect of a missing grace period", "the test needs two processors");
        return;
    }
    let (seen, changes) = stress("no-grace", FEW, Waiting::Nothing, patience(Duration::from_mins(5)));
    say::figures(format_args!("{changes} changes; {seen:?}"));
    assert!(seen.wrong() > 0, "the test found no error without the grace period: {seen:?} in {changes} changes");
}

/// Runs readers and the writer until the time is over or a reader finds an error. There are this many permanent Services, and
/// at most as many temporary ones. Returns the readers' counts and the number of changes.
fn stress(name: &str, services: u16, waiting: Waiting, time: Duration) -> (Seen, u64) {
    let world = World::new(name).unwrap();
    let pins = Pins::new(world.bpffs());
    pins.create().unwrap();
    // Loading the programs creates the maps, and attaches nothing.
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
