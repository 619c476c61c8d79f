//! From a changed table to the writes that bring the kernel's maps there. Pure: it keeps a model of the maps, and plans
//! against it. Between `resolve` and `apply`.
//!
//! The order of the steps is what makes each of them safe: backends before the choice that leads to them, a service entry
//! before its frontend; and nothing is written to that a program might still read.

mod installed;
mod items;
mod port;
mod ports;
mod prefixes;
pub mod slots;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use portmap_common::{Choice, HOST_ONLY, SOURCE_RANGES, Service};

use crate::{
    collections::{HashMap, HashSet, sorted},
    maps::{
        Backends, Capacity, ClientLocation, FollowedFrontend, ForeignKey, Fullness, Item, NextNumbers, Prefix, Slot, Snapshot,
    },
    model::{AddressKind, AddressOwner, Entry, Family, Frontend, ServicePort},
    resolve::{
        changes::{ChangedEntries, ChangedEntry, Changes},
        claims::Owners,
    },
};
use installed::InstalledFrontends;
use items::Items;
use ports::{Ports, ReservedSlots};
use prefixes::Prefixes;
use slots::{Range, Slots};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`crate::maps::Maps::set_marks`]
    SetMarks(NextNumbers),
    /// [`crate::maps::Maps::write_backends`]
    WriteBackends(u32, Backends),
    /// [`crate::maps::Maps::write_service`]
    WriteService(u32, Service),
    /// [`crate::maps::Maps::store_choice`]
    StoreChoice(u32, ClientLocation, Choice),
    /// [`crate::maps::Maps::describe_service`]
    DescribeService(u32, Service),
    /// [`crate::maps::Maps::insert_name`]
    InsertName(u64, ServicePort),
    /// [`crate::maps::Maps::remove_name`]
    RemoveName(u64),
    /// [`crate::maps::Maps::insert_frontend`]
    InsertFrontend(Frontend, u32),
    /// [`crate::maps::Maps::remove_frontend`]
    RemoveFrontend(Frontend),
    /// [`crate::maps::Maps::insert`]
    Insert(Item),
    /// [`crate::maps::Maps::remove`]
    Remove(Item),
    /// [`crate::maps::Maps::set_prefixes`]
    SetPrefixes(Family, Vec<Prefix>),
    /// [`crate::maps::Maps::remove_foreign`]
    RemoveForeign(ForeignKey),
}

/// At most so many incomplete frontends are tried again in one plan: they may be all there are.
const RETRIED: usize = 256;

/// Why a frontend cannot be served as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Full {
    /// SERVICES has no free entry.
    Services,
    /// BACKENDS of this family has no free range of so many slots.
    Backends(Family, u32),
    /// All numbers of service ports or endpoints were given.
    Numbers,
}

impl Full {
    /// Which map is full, and what to do about it.
    pub fn advice(self, capacity: Capacity) -> String {
        match self {
            Self::Services => {
                format!("SERVICES is full with {} entries; restart with a larger --max-services", capacity.services)
            }
            Self::Backends(family, count) => format!(
                "BACKENDS_{family:?} has no room for {count} more among its {} slots; restart with a larger --max-backends",
                capacity.backends
            ),
            Self::Numbers => {
                "NUMBERS says that all numbers were given, so somebody else wrote to it; begin anew: stop the agent, run \
                              portmap cleanup, and start it again"
                    .to_owned()
            }
        }
    }
}

/// Writes, in the order they must be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The writes.
    pub steps: Vec<Step>,
    /// Frontends that did not fit, now or in an earlier plan: they keep what they had, and are tried again when there is room.
    pub left_out: BTreeMap<Frontend, Full>,
    /// How much of what is remembered, admitted or refused beside frontends did not fit.
    pub without_room: usize,
}

/// The model of the maps.
#[derive(Debug)]
pub struct Planner {
    installed: InstalledFrontends,
    numbers: Slots,
    ports: Ports,
    left_out: BTreeMap<Frontend, Full>,
    items: Items,
    prefixes: Prefixes,
    /// Service ports whose endpoints may be others than those in the maps.
    touched: HashSet<u64>,
    /// What was found in the kernel and cannot be built upon.
    stray_frontends: BTreeSet<Frontend>,
    stray_names: BTreeSet<u64>,
    stray_items: BTreeSet<Item>,
    foreign: BTreeSet<ForeignKey>,
    recorded: NextNumbers,
    room_came: bool,
    /// Frontends of which something beside them (an endpoint, a member, a source range) found no room.
    incomplete: BTreeSet<Frontend>,
}

/// The steps of a plan by phase: what makes room comes first, and what programs may still ask for goes last.
#[derive(Default)]
struct Phases {
    first: Vec<Step>,
    remove: Vec<Step>,
    write: Vec<Step>,
    forget: Vec<Step>,
}

impl Planner {
    /// A model of the maps as they are. What does not fit together there will be removed, and written anew, by the next plan.
    ///
    /// The caller waits for a grace period before it applies a plan: programs may still read what an earlier agent retired.
    pub fn new(capacity: Capacity, found: Snapshot) -> Self {
        let mut planner = Self {
            installed: InstalledFrontends::default(),
            numbers: Slots::new(capacity.services),
            ports: Ports::new(capacity.backends, found.marks),
            left_out: BTreeMap::new(),
            items: Items::new(capacity, found.items),
            prefixes: Prefixes::new(found.prefixes),
            touched: HashSet::default(),
            stray_frontends: BTreeSet::new(),
            stray_names: BTreeSet::new(),
            stray_items: BTreeSet::new(),
            foreign: found.foreign,
            recorded: found.marks,
            room_came: false,
            incomplete: BTreeSet::new(),
        };
        let names: HashMap<u64, Option<ServicePort>> = found.names.into_iter().collect();
        let mut strays = Vec::new();
        for (frontend, found) in found.frontends {
            if planner.adopt(frontend, &found, &names).is_none() {
                strays.push((frontend, found));
            }
        }
        planner.set_strays(strays);
        let used: BTreeSet<u64> = planner.installed.iter().map(|(_, _, service)| service.id).collect();
        planner.stray_names = names.into_keys().filter(|id| !used.contains(id)).collect();
        let changed = planner.ports.adopt_endpoints(&planner.items);
        planner.stray_items = planner.find_stray_items().chain(changed).chain(found.spoiled).collect();
        planner
    }

    /// Frontends that will be removed: programs may read what they lead to until a grace period after that.
    fn set_strays(&mut self, strays: Vec<(Frontend, FollowedFrontend)>) {
        for (frontend, found) in strays {
            let FollowedFrontend { number, service, inside: _, outside: _ } = found;
            let number = Range { first: number, count: 1 };
            if self.numbers.reserve(number) {
                self.numbers.retire(number);
            }
            for Choice { first, count } in service.into_iter().flat_map(|service| [service.inside, service.outside]) {
                let (range, slots) = (Range { first, count }, self.ports.slots(frontend.family()));
                if count > 0 && slots.reserve(range) {
                    slots.retire(range);
                }
            }
            self.stray_frontends.insert(frontend);
        }
    }

    fn find_stray_items(&self) -> impl Iterator<Item = Item> {
        let is_stray = |item: &&Item| match item {
            Item::Member(member) => member.unused != 0 || member.external > 1 || !self.ports.has(member.id),
            Item::Range(id, _) => !self.ports.has(*id),
            Item::Address(..) | Item::Endpoint(..) => false,
        };
        self.items.iter().filter(is_stray).copied()
    }

    /// Takes the numbers that another model has given for those that were given, whatever the maps say.
    pub fn trust_numbers_of(&mut self, other: &Self) {
        self.ports.trust(other.ports.marks());
    }

    /// Whether a model of the maps as they were found says the same as this one, which was planned with.
    pub fn is_confirmed_by(&self, found: &Self) -> bool {
        let has_strays = !(found.stray_frontends.is_empty() && found.stray_names.is_empty() && found.stray_items.is_empty());
        !has_strays
            && found.foreign.is_empty()
            && self.installed == found.installed
            && self.ports.have_same_backends(&found.ports)
            && self.items.iter().eq(found.items.iter())
            && self.prefixes.are_recorded_as(&found.prefixes)
            && self.recorded == found.recorded
    }

    /// Sets the ranges that ClusterIPs are given from: while all owners are known, other addresses in them are nobody's.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet], owners: Owners) {
        self.prefixes.set_cidrs(cidrs, owners);
    }

    fn adopt(&mut self, frontend: Frontend, found: &FollowedFrontend, names: &HashMap<u64, Option<ServicePort>>) -> Option<()> {
        let service = found.service?;
        let number = Range { first: found.number, count: 1 };
        if !self.numbers.reserve(number) {
            return None;
        }
        if self.adopt_service(frontend.family(), &service, found, names).is_none() {
            self.numbers.retire(number);
            return None;
        }
        self.installed.insert(frontend, found.number, service);
        Some(())
    }

    fn adopt_service(
        &mut self,
        family: Family,
        service: &Service,
        found: &FollowedFrontend,
        names: &HashMap<u64, Option<ServicePort>>,
    ) -> Option<()> {
        let owner = names.get(&service.id)?.as_ref()?;
        if !self.ports.adopt(service, owner, family) {
            return None;
        }
        // Sets taken over so far, to be given up again should the other choice be unsound.
        let mut adopted = Service { inside: Choice::default(), outside: Choice::default(), ..*service };
        let mut adopt = |choice, slots: &Option<Vec<Slot>>, place: &mut Choice| {
            let is_sound = slots.as_deref().is_some_and(|slots| self.ports.adopt_choice(service.id, choice, slots));
            is_sound.then(|| *place = choice)
        };
        let is_sound = adopt(service.inside, &found.inside, &mut adopted.inside)
            .and_then(|()| adopt(service.outside, &found.outside, &mut adopted.outside));
        if is_sound.is_none() {
            self.forget_service(&adopted, &mut Vec::new());
        }
        is_sound
    }

    /// Plans the writes for changed entries and owners.
    pub fn plan(&mut self, changed: ChangedEntries<impl Iterator<Item = ChangedEntry>>) -> Plan {
        let ChangedEntries { owners, frontends } = changed;
        let mut phases = Phases::default();
        // Before a frontend goes whose address may be another proxy's by now.
        self.prefixes.withdraw(&mut phases.first);
        self.remove_strays(&mut phases);
        for (address, owner) in owners {
            self.set_owner(address, owner, &mut phases);
        }
        self.items.take_lack();
        // Until those that gave way before have made room, no others do.
        let mut may_give_way = if self.numbers.is_pending() { Some(Vec::new()) } else { None };
        for (frontend, entry) in frontends {
            self.left_out.remove(&frontend);
            self.incomplete.remove(&frontend);
            match entry {
                None => self.remove(&frontend, &mut phases),
                Some(entry) => self.set_or_leave_out(frontend, &entry, &mut may_give_way, &mut phases),
            }
        }
        for id in sorted(std::mem::take(&mut self.touched)) {
            self.ports.settle(id, &mut self.items, &mut phases.forget);
        }
        self.ports.forget_rest(&mut self.items, &mut phases.forget);
        self.prefixes.plan(self.left_out.is_empty() && self.items.without_room() == 0, &mut phases.forget);
        Plan { steps: self.in_order(phases), left_out: self.left_out.clone(), without_room: self.items.without_room() }
    }

    /// Frontends and ClusterIPs that found no room before and may find room now: to be added to the changes of the next plan.
    /// Empty if no room became free since the last call.
    pub fn take_retries(&mut self) -> Changes {
        let mut retries = Changes::default();
        if std::mem::take(&mut self.room_came) {
            let has_number = self.numbers.has_room(1);
            let has_room = |full: &Full| (has_number || *full != Full::Services) && self.ports.has_room(*full);
            retries.frontends.extend(self.left_out.iter().filter(|(_, full)| has_room(full)).map(|(frontend, _)| *frontend));
        }
        if self.items.take_room() {
            retries.frontends.extend(self.incomplete.iter().take(RETRIED));
            retries.addresses.extend(self.items.addresses_without_room().take(RETRIED));
        }
        retries
    }

    fn set_or_leave_out(
        &mut self,
        frontend: Frontend,
        entry: &Entry,
        may_give_way: &mut Option<Vec<Frontend>>,
        phases: &mut Phases,
    ) {
        match self.set(&frontend, entry, phases) {
            Err(full) => {
                self.left_out.insert(frontend, full);
                if full == Full::Services && entry.kind != AddressKind::NodePort {
                    self.displace_node_port(may_give_way, phases);
                }
            }
            Ok(()) if self.items.take_lack() => drop(self.incomplete.insert(frontend)),
            Ok(()) => {}
        }
    }

    /// Has a node port give way to a frontend of another kind that found no room. There is room after a grace period; then both are
    /// tried again, and node ports come last. `candidates` are found when the first is needed.
    fn displace_node_port(&mut self, candidates: &mut Option<Vec<Frontend>>, phases: &mut Phases) {
        let installed = &self.installed;
        let is_node_port = |service: &Service| service.kind == AddressKind::NodePort as u8;
        let candidates = candidates.get_or_insert_with(|| {
            let node_ports = installed.iter().filter(|(.., service)| is_node_port(service));
            sorted(node_ports.map(|(frontend, ..)| *frontend))
        });
        if let Some(frontend) = candidates.pop() {
            self.remove(&frontend, phases);
            self.incomplete.remove(&frontend);
            self.left_out.insert(frontend, Full::Services);
        }
    }

    fn remove_strays(&mut self, phases: &mut Phases) {
        phases.remove.extend(std::mem::take(&mut self.foreign).into_iter().map(Step::RemoveForeign));
        phases.remove.extend(std::mem::take(&mut self.stray_frontends).into_iter().map(Step::RemoveFrontend));
        phases.remove.extend(std::mem::take(&mut self.stray_names).into_iter().map(Step::RemoveName));
        for item in std::mem::take(&mut self.stray_items) {
            self.items.remove(item, &mut phases.remove);
        }
    }

    fn in_order(&mut self, phases: Phases) -> Vec<Step> {
        let Phases { first, remove, write, forget } = phases;
        let mut steps = Vec::with_capacity(1 + first.len() + remove.len() + write.len() + forget.len());
        if self.recorded != self.ports.marks() {
            self.recorded = self.ports.marks();
            steps.push(Step::SetMarks(self.recorded));
        }
        steps.extend(first);
        steps.extend(remove);
        steps.extend(write);
        steps.extend(forget);
        steps
    }

    /// How full the maps are.
    pub fn fullness(&mut self) -> Vec<Fullness> {
        let mut maps = vec![Fullness { name: "SERVICES", used: self.numbers.used(), capacity: self.numbers.capacity() }];
        for (name, family) in [("BACKENDS_V4", Family::V4), ("BACKENDS_V6", Family::V6)] {
            let slots = self.ports.slots(family);
            maps.push(Fullness { name, used: slots.used(), capacity: slots.capacity() });
        }
        maps.extend(self.items.fullness(self.installed.of_family()));
        maps
    }

    /// How many frontends the maps hold.
    pub fn frontends(&self) -> usize {
        self.installed.len()
    }

    /// Whether any load balancer admits only some.
    pub fn has_source_ranges(&self) -> bool {
        self.items.has_ranges()
    }

    /// Everything that the maps hold.
    pub fn everything(&self) -> Changes {
        let addresses = self.items.iter().filter_map(|item| match item {
            Item::Address(address, _) => Some(*address),
            Item::Endpoint(..) | Item::Member(_) | Item::Range(..) => None,
        });
        Changes { frontends: self.installed.iter().map(|(frontend, ..)| *frontend).collect(), addresses: addresses.collect() }
    }

    fn set_owner(&mut self, address: IpAddr, owner: Option<AddressOwner>, phases: &mut Phases) {
        let before = self.items.owner(address);
        if let Some(before) = before.filter(|before| Some(*before) != owner) {
            self.items.remove(Item::Address(address, before), &mut phases.remove);
        }
        if let Some(owner) = owner {
            self.items.insert(Item::Address(address, owner), &mut phases.write);
            self.prefixes.cover(address);
        }
    }

    /// Begins to wait for the programs that may read what earlier plans retired, after they were applied. False if nothing
    /// was retired. Once a grace period has passed, [`Self::release`] frees it.
    pub fn seal(&mut self) -> bool {
        let sealed = [self.numbers.seal(), self.ports.slots(Family::V4).seal(), self.ports.slots(Family::V6).seal()];
        sealed.contains(&true)
    }

    /// Frees what was sealed. Frontends that were left out are tried again by the next plan.
    pub fn release(&mut self) {
        self.numbers.release();
        self.ports.slots(Family::V4).release();
        self.ports.slots(Family::V6).release();
        self.room_came = true;
    }

    fn set(&mut self, frontend: &Frontend, entry: &Entry, phases: &mut Phases) -> Result<(), Full> {
        let before = self.installed.get(frontend);
        let mut room = self.ports.make_room(entry, frontend.family())?;
        let known = before.map(|(number, _)| number);
        let Some(number) = known.or_else(|| self.numbers.allocate(1).map(|range| range.first)) else {
            self.ports.cancel(room, frontend.family());
            return Err(Full::Services);
        };
        let mut steps = Vec::new();
        let service = self.build(frontend, entry, &mut room, &mut steps);
        self.ports.set_members(&service, &mut self.items, &mut steps);
        match before {
            Some((_, before)) => {
                // Last: an agent that starts on tables half way through finds the entry's old id or its new one, and a name for it.
                self.forget_service(&before, &mut phases.forget);
                update(number, &before, &service, &mut steps);
            }
            None => {
                steps.push(Step::WriteService(number, service));
                steps.push(Step::InsertFrontend(*frontend, number));
            }
        }
        phases.write.append(&mut steps);
        self.installed.insert(*frontend, number, service);
        Ok(())
    }

    /// The service entry for a table entry, with its id and its backends.
    fn build(&mut self, frontend: &Frontend, entry: &Entry, room: &mut ReservedSlots, steps: &mut Vec<Step>) -> Service {
        let Entry { owner: _, kind, inside, outside, affinity_timeout, serving: _, source_ranges: _ } = entry;
        let id = self.ports.enter(entry, frontend.family(), &mut self.items, steps);
        self.touched.insert(id);
        Service {
            inside: self.ports.choose(id, inside, room, &mut self.items, steps),
            outside: self.ports.choose(id, outside, room, &mut self.items, steps),
            id,
            affinity_timeout: *affinity_timeout,
            kind: *kind as u8,
            flags: flags(frontend, entry),
            ..Service::default()
        }
    }

    fn remove(&mut self, frontend: &Frontend, phases: &mut Phases) {
        if let Some((number, service)) = self.installed.remove(frontend) {
            phases.remove.push(Step::RemoveFrontend(*frontend));
            self.forget_service(&service, &mut phases.remove);
            self.numbers.retire(Range { first: number, count: 1 });
        }
    }

    /// Ends the use that a service entry makes of its id and its backends.
    fn forget_service(&mut self, service: &Service, steps: &mut Vec<Step>) {
        self.touched.insert(service.id);
        self.ports.release(service.id, service.inside);
        self.ports.release(service.id, service.outside);
        if self.ports.leave(service) {
            steps.push(Step::RemoveName(service.id));
        }
    }
}

/// Who may use a frontend.
fn flags(frontend: &Frontend, entry: &Entry) -> u8 {
    let is_of_host = frontend.address.is_loopback() || frontend.address.is_unspecified();
    let is_filtered = entry.kind == AddressKind::LoadBalancer && entry.source_ranges.is_some();
    (if is_of_host { HOST_ONLY } else { 0 }) | (if is_filtered { SOURCE_RANGES } else { 0 })
}

/// Rewrites what differs of a service entry in use.
fn update(number: u32, before: &Service, service: &Service, steps: &mut Vec<Step>) {
    if before.inside != service.inside {
        steps.push(Step::StoreChoice(number, ClientLocation::Inside, service.inside));
    }
    if before.outside != service.outside {
        steps.push(Step::StoreChoice(number, ClientLocation::Outside, service.outside));
    }
    if (Service { inside: service.inside, outside: service.outside, ..*before }) != *service {
        steps.push(Step::DescribeService(number, *service));
    }
}

#[cfg(test)]
mod tests;
