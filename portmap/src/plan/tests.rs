//! Applies sequences of changes step by step to maps in memory, and checks the tables that a reader finds between any two
//! steps.

mod crash;
mod entries;
mod room;

use std::{net::IpAddr, sync::Arc};

use portmap_common::Member;
use proptest::prelude::*;

use super::*;
use crate::{
    apply,
    collections::HashMap,
    maps::{
        Backends, Capacity, ClientLocation, Maps as _, Slot, Snapshot,
        fake::{FakeAnswer, MemoryMaps},
    },
    model::{AddressKind, Endpoint, FrontendSpec, ObjectName, Precedence, Protocol, ServicePort, Target, Verdict},
    resolve::{claims::Owners, fake::EntryTable},
};

const SERVICES: u8 = 6;
const ROOM: Capacity = capacity(64, 256);

const fn capacity(services: u32, backends: u32) -> Capacity {
    Capacity { services, backends, affinity_clients: 16, flows: 256 }
}

/// The addresses, endpoints and settings of a generated Service.
#[derive(Clone, Debug)]
struct Shape {
    addresses: Vec<u8>,
    inside: Vec<u8>,
    outside: Vec<u8>,
    v6: bool,
    protocol: Protocol,
    affinity_timeout: u32,
}

#[derive(Clone, Debug)]
enum Event {
    Set(u8, Shape),
    Remove(u8),
    Grace,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let endpoints = || prop::collection::btree_set(0..40_u8, 0..12).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    let addresses = prop::collection::btree_set(0..10_u8, 1..4).prop_map(|set| set.into_iter().collect());
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let affinity = prop_oneof![3 => Just(0), 1 => Just(60), 1 => Just(90)];
    let shape = (addresses, endpoints(), endpoints(), any::<bool>(), protocol, affinity).prop_map(
        |(addresses, inside, outside, v6, protocol, affinity_timeout)| Shape {
            addresses,
            inside,
            outside,
            v6,
            protocol,
            affinity_timeout,
        },
    );
    prop_oneof![
        8 => (0..SERVICES, shape).prop_map(|(service, shape)| Event::Set(service, shape)),
        3 => (0..SERVICES).prop_map(Event::Remove),
        2 => Just(Event::Grace),
        1 => Just(Event::Restart),
    ]
}

fn precedence(service: u8) -> Precedence {
    let name = format!("service-{service}");
    Precedence { created: 0, service: ObjectName::new("default", &name) }
}

fn address(v6: bool, last: u8) -> IpAddr {
    if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]) } else { IpAddr::from([10, 0, 0, last]) }
}

fn target(v6: bool, endpoints: &[u8]) -> Target {
    if endpoints.is_empty() {
        return Target::Verdict(Verdict::Refuse);
    }
    Target::Backends(self::endpoints(v6, endpoints))
}

fn endpoints(v6: bool, endpoints: &[u8]) -> Arc<[Endpoint]> {
    let endpoint = |last: &u8| Endpoint { address: address(v6, *last), port: 8080, local: last.is_multiple_of(2) };
    endpoints.iter().map(endpoint).collect()
}

fn entries(service: u8, shape: &Shape) -> Vec<(FrontendSpec, Entry)> {
    let Shape { addresses, inside, outside, v6, protocol, affinity_timeout } = shape;
    let owner = ServicePort { service: precedence(service).service, port: "http".into(), protocol: *protocol };
    let serving: BTreeSet<u8> = inside.iter().chain(outside).copied().collect();
    let is_remembered = *protocol == Protocol::Udp || *affinity_timeout > 0;
    let serving = is_remembered.then(|| endpoints(*v6, &serving.into_iter().collect::<Vec<_>>()));
    let entry = |last: &u8| {
        let frontend = Frontend { address: address(*v6, *last), port: 80, protocol: *protocol };
        let entry = Entry {
            owner: owner.clone(),
            kind: if last.is_multiple_of(3) { AddressKind::ExternalIp } else { AddressKind::ClusterIp },
            inside: target(*v6, inside),
            outside: target(*v6, outside),
            affinity_timeout: *affinity_timeout,
            serving: serving.clone(),
            source_ranges: None,
        };
        (FrontendSpec::from(frontend), entry)
    };
    addresses.iter().map(entry).collect()
}

fn answer(target: &Target) -> FakeAnswer {
    match target {
        Target::Backends(backends) => FakeAnswer::Backends(backends.to_vec()),
        Target::Verdict(verdict) => FakeAnswer::Verdict(*verdict),
    }
}

/// The entries of ENDPOINTS and MEMBERS that the frontends of a snapshot need.
fn recorded(snapshot: &Snapshot) -> BTreeSet<Item> {
    let mut items = BTreeSet::new();
    for (frontend, found) in &snapshot.frontends {
        let service = found.service.expect("a service");
        if frontend.protocol == Protocol::Udp || service.affinity_timeout > 0 {
            let slots = found.inside.iter().chain(&found.outside).flatten();
            items.extend(slots.map(|slot| Item::Endpoint(slot.number, slot.endpoint)));
        }
        if service.affinity_timeout > 0 {
            let slots = found.inside.iter().flatten();
            items.extend(slots.map(|slot| Item::Member(Member::new(service.id, service.kind, slot.number))));
            if service.kind != AddressKind::ClusterIp as u8 && service.inside != service.outside {
                let outside =
                    |slot: &Slot| Member { id: service.id, endpoint: slot.number, external: Member::OUTSIDE, unused: 0 };
                items.extend(found.outside.iter().flatten().map(|slot| Item::Member(outside(slot))));
            }
        }
    }
    items
}

/// Plans changes, together with the entries that had no room before and may have room now.
fn plan(planner: &mut Planner, table: &EntryTable, changes: &Changes) -> Plan {
    let mut changes = changes.clone();
    changes.extend(planner.take_retries());
    planner.plan(table.changed(&changes))
}

/// An agent without a kernel: a table, a planner, and maps in memory.
struct Agent {
    table: EntryTable,
    claimed: BTreeMap<u8, Vec<FrontendSpec>>,
    planner: Planner,
    maps: MemoryMaps,
}

impl Agent {
    fn new(capacity: Capacity) -> Self {
        let maps = MemoryMaps::new(capacity);
        let planner = Planner::new(capacity, maps.read().expect("reads"));
        Self { table: EntryTable::default(), claimed: BTreeMap::new(), planner, maps }
    }

    /// Replaces the frontends of a Service.
    fn replace(&mut self, service: u8, entries: Vec<(FrontendSpec, Entry)>) -> Changes {
        let places = entries.iter().map(|(place, _)| *place).collect();
        let before = self.claimed.insert(service, places).unwrap_or_default();
        self.table.replace(&precedence(service), &before, entries)
    }

    fn see(&self, frontend: &Frontend) -> [Option<FakeAnswer>; 2] {
        [ClientLocation::Inside, ClientLocation::Outside].map(|side| self.maps.look_up(frontend, side))
    }

    /// Applies the change step by step. Between any two steps, a reader of any frontend finds the whole old entry or the
    /// whole new entry.
    fn change(&mut self, changed: &Changes) -> Result<(), TestCaseError> {
        let plan = plan(&mut self.planner, &self.table, changed);
        let watched: BTreeSet<Frontend> =
            self.table.everything().frontends.into_iter().chain(changed.frontends.iter().copied()).collect();
        let before: BTreeMap<Frontend, [Option<FakeAnswer>; 2]> =
            watched.iter().map(|frontend| (*frontend, self.see(frontend))).collect();
        let mut after = self.maps.clone();
        after.grace();
        apply::apply(&mut after, &plan).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        self.maps.guard();
        for step in plan.steps.clone() {
            let one = Plan { steps: vec![step], ..Plan::default() };
            apply::apply(&mut self.maps, &one).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            for frontend in &watched {
                for (side, seen) in [ClientLocation::Inside, ClientLocation::Outside].into_iter().zip(self.see(frontend)) {
                    let [was_inside, was_outside] = &before[frontend];
                    let was = if side == ClientLocation::Inside { was_inside } else { was_outside };
                    let will = after.look_up(frontend, side);
                    prop_assert!(seen == *was || seen == will, "{frontend} {side:?}: {seen:?}, was {was:?}, will be {will:?}");
                }
            }
        }
        Ok(())
    }

    fn grace(&mut self) -> Result<(), TestCaseError> {
        if self.planner.seal() {
            self.maps.grace();
            self.planner.release();
        }
        self.change(&Changes::default())
    }

    fn restart(&mut self) -> Result<(), TestCaseError> {
        let snapshot = self.maps.read().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        let found = Planner::new(ROOM, snapshot);
        prop_assert!(self.planner.is_confirmed_by(&found), "{:?} and {found:?}", self.planner);
        self.planner = found;
        self.maps.grace();
        let everything = self.everything();
        let plan = plan(&mut self.planner, &self.table, &everything);
        prop_assert!(plan.steps.is_empty(), "a restart without a change writes: {:?}", plan.steps);
        Ok(())
    }

    fn everything(&self) -> Changes {
        let mut everything = self.table.everything();
        everything.extend(self.planner.everything());
        everything
    }

    fn step(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Set(service, shape) => {
                let changed = self.replace(*service, entries(*service, shape));
                self.change(&changed)
            }
            Event::Remove(service) => {
                let changed = self.replace(*service, Vec::new());
                self.change(&changed)
            }
            Event::Grace => self.grace(),
            Event::Restart => self.restart(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_reader_meets_old_or_new_and_nothing_leaks(events in prop::collection::vec(event(), 1..60)) {
        let mut agent = Agent::new(ROOM);
        for event in &events {
            // Without a grace period between two events, room may run out. Then the left-out frontends are served after a
            // grace period.
            agent.step(event)?;
            if !agent.planner.left_out.is_empty() {
                agent.grace()?;
            }
        }
        agent.grace()?;
        prop_assert!(agent.planner.left_out.is_empty());
        for (place, _, entry) in agent.table.iter() {
            let frontend = place.on(place.address.expect("no node port"));
            prop_assert_eq!(agent.see(&frontend), [Some(answer(&entry.inside)), Some(answer(&entry.outside))]);
        }
        let snapshot = agent.maps.read().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        prop_assert_eq!(snapshot.frontends.len(), agent.table.iter().count());
        prop_assert_eq!(&snapshot.items, &recorded(&snapshot));
        for service in 0..SERVICES {
            agent.step(&Event::Remove(service))?;
        }
        agent.grace()?;
        prop_assert_eq!(agent.planner.numbers.used(), 0);
        prop_assert_eq!(agent.planner.ports.slots(Family::V4).used() + agent.planner.ports.slots(Family::V6).used(), 0);
        let empty = agent.maps.read().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        prop_assert!(empty.frontends.is_empty() && empty.names.is_empty() && empty.items.is_empty(), "{empty:?}");
    }

    #[test]
    fn numbers_are_never_given_twice(events in prop::collection::vec(event(), 1..40)) {
        let mut agent = Agent::new(ROOM);
        let mut owners: HashMap<u64, Endpoint> = HashMap::default();
        let mut gone: BTreeSet<u64> = BTreeSet::new();
        for event in &events {
            agent.step(event)?;
            let snapshot = agent.maps.read().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            let live: BTreeMap<u64, Endpoint> = snapshot.frontends.iter()
                .flat_map(|(_, found)| found.inside.iter().chain(&found.outside).flatten())
                .map(|slot| (slot.number, slot.endpoint))
                .collect();
            for (number, endpoint) in &live {
                prop_assert!(!gone.contains(number), "{number} was given up and came back");
                prop_assert_eq!(owners.entry(*number).or_insert(*endpoint), endpoint);
            }
            gone.extend(owners.keys().filter(|number| !live.contains_key(number)));
        }
    }
}

fn one(service: u8, endpoints: &[u8]) -> Vec<(FrontendSpec, Entry)> {
    let shape = Shape {
        addresses: vec![service],
        inside: endpoints.to_vec(),
        outside: endpoints.to_vec(),
        v6: false,
        protocol: Protocol::Tcp,
        affinity_timeout: 0,
    };
    entries(service, &shape)
}
