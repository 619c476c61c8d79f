//! The programs' real look-up, run millions of times over tables that the real plan and apply rewrite meanwhile: a reader
//! must find every frontend that exists, and only its own backends, whole. With the grace period left out it must fail.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use portmap::{
    apply,
    datapath::lookup::Lookup,
    maps::{Capacity, Maps as _, Prefix, bpf::BpfMaps, grace::Grace, pin::Pins},
    model::{
        AddressKind, Endpoint, Entry, Family, Frontend, FrontendSpec, ObjectName, Precedence, Protocol, ServicePort, Target,
    },
    plan::Planner,
    resolve::{changes::Changes, fake::EntryTable},
};
use portmap_common::{PROBES, Probe, TCP, V4};
use portmap_harness::{
    patience::{patience, slowness},
    say,
    world::World,
};

/// Services that exist all the time, and are rewritten all the time; as many whose frontends come and go beside them are numbered
/// from here on.
const STEADY: u16 = 256;

/// As many are enough to be met at the wrong moment often, also where another program keeps a processor busy.
const FEW: u16 = 4;

/// Small, so that slots are used again soon.
const CAPACITY: Capacity = Capacity { services: 2048, backends: 8192, affinity_clients: 1 };

/// More readers than processors, so that some are interrupted in the middle of a look-up.
const READERS: usize = 4;

/// `outcome` of a [`Probe`] that was forwarded.
const FORWARDED: u32 = 1;

/// `outcome` of a [`Probe`] that was dropped.
const DROPPED: u32 = 3;

/// What the readers saw.
#[derive(Debug, Default)]
struct Seen {
    reads: AtomicU64,
    missed: AtomicU64,
    foreign: AtomicU64,
    torn: AtomicU64,
}

impl Seen {
    fn wrong(&self) -> u64 {
        self.missed.load(Relaxed) + self.foreign.load(Relaxed) + self.torn.load(Relaxed)
    }
}

/// Whether the writer waits before it uses slots again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    GracePeriod,
    Nothing,
}

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

/// The range that is in force all the time, wherever it stands among the others.
const STEADY_RANGE: &str = "10.200.0.0/16";

/// The half of PREFIXES that is written next may still be read by a program that began before the last change.
#[test]
fn no_reader_misses_a_prefix() {
    let world = World::new("prefixes").unwrap();
    let pins = Pins::new(world.bpffs());
    pins.create().unwrap();
    let lookups: Vec<Lookup> = (0..READERS).map(|_| Lookup::load(&pins, CAPACITY).unwrap()).collect();
    let mut maps = BpfMaps::open(&pins).unwrap();
    let prefixes = |number: u8| {
        let other = |place: u8| format!("172.{}.0.0/16", number.wrapping_add(place));
        let range = |place: u8| if place == number % 8 { STEADY_RANGE.to_owned() } else { other(place) };
        (0..8).map(|place| Prefix { range: range(place).parse().unwrap(), allocated: true }).collect::<Vec<_>>()
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
    assert!(changes > 20 && reads.load(Relaxed) > 10_000, "too few to say anything: {changes} changes, {reads:?} reads");
}

/// No Service has the address, which lies in the range: it is dropped.
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

fn read(lookup: &Lookup, services: u16, mut random: Random, seen: &Seen, stop: &AtomicBool) {
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

/// A backend's address says whose it is, and its port must fit its address.
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

fn port(generation: u8) -> u16 {
    1000 + u16::from(generation)
}

/// The agent's stages from the table on.
struct Writer {
    table: EntryTable,
    planner: Planner,
    maps: BpfMaps,
    services: u16,
    waiting: Waiting,
    requests: mpsc::Sender<()>,
    passed: mpsc::Receiver<()>,
    is_waiting: bool,
    random: Random,
    changes: u64,
}

impl Writer {
    fn new(pins: &Pins, services: u16, waiting: Waiting) -> Self {
        let maps = BpfMaps::open(pins).unwrap();
        let mut grace = Grace::open(pins).unwrap();
        let (requests, received) = mpsc::channel();
        let (pass, passed) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(()) = received.recv() {
                grace.wait().unwrap();
                if pass.send(()).is_err() {
                    break;
                }
            }
        });
        let planner = Planner::new(CAPACITY, maps.read().unwrap());
        Self {
            table: EntryTable::default(),
            planner,
            maps,
            services,
            waiting,
            requests,
            passed,
            is_waiting: false,
            random: Random(99),
            changes: 0,
        }
    }

    /// Gives a steady service another set of endpoints, or lets a fleeting one come or go.
    fn change(&mut self) {
        if self.random.below(3) == 0 {
            let service = STEADY + self.random.below(self.services);
            if self.random.below(2) == 0 { self.set(service) } else { self.remove(service) }
        } else {
            let service = self.random.below(self.services);
            self.set(service);
        }
        self.changes += 1;
    }

    fn set(&mut self, service: u16) {
        let precedence = precedence(service);
        let [high, low] = service.to_be_bytes();
        let (first, count) = (self.random.below(200), 1 + self.random.below(12));
        let endpoints = (first..first + count).map(|generation| {
            let generation = u8::try_from(generation).unwrap();
            Endpoint { address: [10, high, low, generation].into(), port: port(generation), local: false }
        });
        let target = Target::Backends(endpoints.collect());
        let owner = ServicePort { service: precedence.service.clone(), port: "".into(), protocol: Protocol::Tcp };
        let entry = Entry {
            owner,
            kind: AddressKind::ClusterIp,
            inside: target.clone(),
            outside: target,
            affinity_timeout: 0,
            serving: None,
            source_ranges: None,
        };
        let changed = self.table.replace(&precedence, &[place(service)], vec![(place(service), entry)]);
        self.apply(&changed);
    }

    fn remove(&mut self, service: u16) {
        let changed = self.table.replace(&precedence(service), &[place(service)], Vec::new());
        self.apply(&changed);
    }

    fn apply(&mut self, changed: &Changes) {
        match self.waiting {
            Waiting::Nothing => {
                self.planner.seal();
                self.planner.release();
            }
            Waiting::GracePeriod => self.wait_in_the_background(),
        }
        let mut changed = changed.clone();
        changed.extend(self.planner.take_retries());
        let plan = self.planner.plan(self.table.changed(&changed));
        apply::apply(&mut self.maps, &plan).unwrap();
        if !plan.left_out.is_empty() {
            // All slots are waiting for the grace period: a steady service must not stay behind.
            self.passed.recv().unwrap();
            self.is_waiting = false;
            self.planner.release();
            self.apply(&Changes::default());
        }
    }

    fn wait_in_the_background(&mut self) {
        if self.is_waiting && self.passed.try_recv().is_ok() {
            self.planner.release();
            self.is_waiting = false;
        }
        if !self.is_waiting && self.planner.seal() {
            self.requests.send(()).unwrap();
            self.is_waiting = true;
        }
    }
}

fn place(service: u16) -> FrontendSpec {
    let [high, low] = service.to_be_bytes();
    Frontend { address: [10, 96, high, low].into(), port: 80, protocol: Protocol::Tcp }.into()
}

fn precedence(service: u16) -> Precedence {
    let name = format!("service-{service}");
    Precedence { created: 0, service: ObjectName::new("default", &name) }
}

/// A small generator of numbers (xorshift): the same sequence each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u16) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u16::try_from(self.0 % u64::from(limit)).expect("it is less than the limit")
    }
}
