//! Changes random Services with the agent's own code: the desired table, the planner, and the writer of the maps.

use std::{sync::mpsc, thread};

use portmap::{
    apply,
    maps::{Maps as _, bpf::BpfMaps, grace::Grace, pin::Pins},
    model::{AddressKind, Endpoint, Entry, Frontend, FrontendSpec, ObjectName, Precedence, Protocol, ServicePort, Target},
    plan::Planner,
    resolve::{changes::Changes, fake::EntryTable},
};

use crate::{CAPACITY, STEADY, port, random::Random};

/// Whether the writer waits for the grace period before it reuses slots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    GracePeriod,
    Nothing,
}

/// The desired table, the planner and the maps, with a thread that waits for grace periods.
pub struct Writer {
    table: EntryTable,
    planner: Planner,
    maps: BpfMaps,
    services: u16,
    waiting: Waiting,
    requests: mpsc::Sender<()>,
    passed: mpsc::Receiver<()>,
    is_waiting: bool,
    random: Random,
    pub changes: u64,
}

impl Writer {
    pub fn new(pins: &Pins, services: u16, waiting: Waiting) -> Self {
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

    /// Replaces the endpoints of a permanent Service, or adds or removes a temporary one.
    pub fn change(&mut self) {
        if self.random.below(3) == 0 {
            let service = STEADY + self.random.below(self.services);
            if self.random.below(2) == 0 { self.set(service) } else { self.remove(service) }
        } else {
            let service = self.random.below(self.services);
            self.set(service);
        }
        self.changes += 1;
    }

    pub fn set(&mut self, service: u16) {
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
        let changed = self.table.replace(&precedence, &[frontend(service)], vec![(frontend(service), entry)]);
        self.apply(&changed);
    }

    fn remove(&mut self, service: u16) {
        let changed = self.table.replace(&precedence(service), &[frontend(service)], Vec::new());
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
            // Entries were left out, because all free slots wait for the grace period. The writer waits too, because a
            // permanent Service must not stay outdated.
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

fn frontend(service: u16) -> FrontendSpec {
    let [high, low] = service.to_be_bytes();
    Frontend { address: [10, 96, high, low].into(), port: 80, protocol: Protocol::Tcp }.into()
}

fn precedence(service: u16) -> Precedence {
    let name = format!("service-{service}");
    Precedence { created: 0, service: ObjectName::new("default", &name) }
}
