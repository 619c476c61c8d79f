//! Plans the writes that bring the kernel's maps to the desired table. Pure: the planner keeps a model of the maps, and
//! reads no map itself. After `resolve`, before `apply`.
//!
//! The order of the steps makes each step safe. Backends are written before the choice that leads to them, and a service
//! entry before its frontend. A slot of BACKENDS, or a service entry for a new frontend, is written only after all programs
//! that may read its old content have ended.

mod adopt;
mod entry;
mod full;
mod installed;
mod items;
mod phases;
mod port;
mod ports;
mod prefixes;
pub mod slots;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use portmap_common::Service;

use crate::{
    collections::{HashSet, sorted},
    maps::{ForeignKey, Fullness, Item, NextNumbers, Room},
    model::{AddressKind, AddressOwner, Entry, Family, Frontend},
    resolve::{
        changes::{ChangedEntries, ChangedEntry, Changes},
        claims::Owners,
    },
};
use entry::{flags, update};
pub use full::Full;
use installed::InstalledFrontends;
use items::Items;
use phases::Phases;
use ports::{Ports, ReservedSlots};
use prefixes::Prefixes;
use slots::{Range, Slots};
pub use step::Step;

/// Maximum number of frontends with missing secondary entries, and of ClusterIPs without room, that one plan retries. A full
/// map may affect all of them.
const RETRIED: usize = 256;

/// The writes of one plan, and the entries without room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The writes, in the order in which they must be made.
    pub steps: Vec<Step>,
    /// Frontends without room, of this plan and of earlier plans, with the reason. A frontend keeps its previous entry, if it
    /// has one, except a node port that was removed to make room. The frontends are retried when room becomes free.
    pub left_out: BTreeMap<Frontend, Full>,
    /// The number of secondary entries (endpoints, members, source ranges, ClusterIPs) left out because their map is full.
    pub without_room: usize,
}

impl Plan {
    /// Whether a frontend is left out for lack of this room.
    pub fn lacks(&self, room: Room) -> bool {
        self.left_out.values().any(|full| full.room() == Some(room))
    }
}

/// The model of the maps, and the plans against it.
#[derive(Debug)]
pub struct Planner {
    installed: InstalledFrontends,
    numbers: Slots,
    ports: Ports,
    left_out: BTreeMap<Frontend, Full>,
    items: Items,
    prefixes: Prefixes,
    /// Ids of service ports that this plan changed: their unused secondary entries (endpoints, members, source ranges) are
    /// removed at its end.
    changed_ports: HashSet<u64>,
    /// Frontends read from the maps whose entry is invalid. The next plan removes them, and the contents of the three fields
    /// below.
    invalid_frontends: BTreeSet<Frontend>,
    unused_names: BTreeSet<u64>,
    invalid_items: BTreeSet<Item>,
    foreign: BTreeSet<ForeignKey>,
    recorded: NextNumbers,
    has_new_room: bool,
    /// Frontends whose latest plan left out a secondary entry, usually one frontend of each affected service port.
    incomplete: BTreeSet<Frontend>,
}

impl Planner {
    /// Continues the ids and endpoint numbers of another model: the numbers in the maps may have been changed by another
    /// program.
    pub fn continue_numbers_of(&mut self, other: &Self) {
        self.ports.continue_from(other.ports.next_numbers());
    }

    /// Whether a model that was just read from the maps equals this model, and has no invalid entries.
    pub fn is_confirmed_by(&self, found: &Self) -> bool {
        let has_invalid =
            !(found.invalid_frontends.is_empty() && found.unused_names.is_empty() && found.invalid_items.is_empty());
        !has_invalid
            && found.foreign.is_empty()
            && self.installed == found.installed
            && self.ports.have_same_backends(&found.ports)
            && self.items.iter().eq(found.items.iter())
            && self.prefixes.are_recorded_as(&found.prefixes)
            && self.recorded == found.recorded
    }

    /// Sets the ServiceCIDRs. An address in these ranges without an owner counts as unallocated only while the owners of all
    /// ClusterIPs are known, and no entry is left out for lack of room.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet], owners: Owners) {
        self.prefixes.set_cidrs(cidrs, owners);
    }

    /// Plans the writes for changed entries and owners.
    pub fn plan(&mut self, changed: ChangedEntries<impl Iterator<Item = ChangedEntry>>) -> Plan {
        let ChangedEntries { owners, frontends } = changed;
        let mut phases = Phases::default();
        // Prefixes come first: another proxy may serve the Service of a removed frontend now, so calls to its address must
        // not be dropped.
        self.prefixes.withdraw(&mut phases.first);
        self.remove_invalid(&mut phases);
        for (address, owner) in owners {
            self.set_owner(address, owner, &mut phases);
        }
        self.items.take_shortage();
        // A displaced node port (removed to make room) makes room only after a grace period. While service numbers of earlier
        // plans wait for a grace period, no node port is displaced.
        let mut displaceable = if self.numbers.is_pending() { Some(Vec::new()) } else { None };
        for (frontend, entry) in frontends {
            self.left_out.remove(&frontend);
            self.incomplete.remove(&frontend);
            match entry {
                None => self.remove(&frontend, &mut phases),
                Some(entry) => self.set_or_leave_out(frontend, &entry, &mut displaceable, &mut phases),
            }
        }
        for id in sorted(std::mem::take(&mut self.changed_ports)) {
            self.ports.remove_unused(id, &mut self.items, &mut phases.cleanup);
        }
        self.ports.remove_ended(&mut self.items, &mut phases.cleanup);
        self.prefixes.plan(self.left_out.is_empty() && self.items.without_room() == 0, &mut phases.cleanup);
        Plan {
            steps: phases.into_steps(self.new_numbers()),
            left_out: self.left_out.clone(),
            without_room: self.items.without_room(),
        }
    }

    /// Frontends and ClusterIPs without room, and frontends with missing secondary entries, that may have room now. The caller
    /// adds them to the changes of the next plan. Empty if no room became free since the last call.
    pub fn take_retries(&mut self) -> Changes {
        let mut retries = Changes::default();
        if std::mem::take(&mut self.has_new_room) {
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
        displaceable: &mut Option<Vec<Frontend>>,
        phases: &mut Phases,
    ) {
        match self.set(&frontend, entry, phases) {
            Err(full) => {
                self.left_out.insert(frontend, full);
                if full == Full::Services && entry.kind != AddressKind::NodePort {
                    self.displace_node_port(displaceable, phases);
                }
            }
            Ok(()) if self.items.take_shortage() => drop(self.incomplete.insert(frontend)),
            Ok(()) => {}
        }
    }

    /// Removes a node port, if any is left, to make room for a frontend of another kind. The room is free after a grace
    /// period. Then both are retried, and node ports come last. `candidates` (node ports to remove) are collected when the
    /// first is needed.
    fn displace_node_port(&mut self, candidates: &mut Option<Vec<Frontend>>, phases: &mut Phases) {
        let installed = &self.installed;
        let candidates = candidates.get_or_insert_with(|| sorted(installed.node_ports().copied()));
        if let Some(frontend) = candidates.pop() {
            self.remove(&frontend, phases);
            self.incomplete.remove(&frontend);
            self.left_out.insert(frontend, Full::Services);
        }
    }

    fn remove_invalid(&mut self, phases: &mut Phases) {
        phases.remove.extend(std::mem::take(&mut self.foreign).into_iter().map(Step::RemoveForeign));
        phases.remove.extend(std::mem::take(&mut self.invalid_frontends).into_iter().map(Step::RemoveFrontend));
        phases.remove.extend(std::mem::take(&mut self.unused_names).into_iter().map(Step::RemoveName));
        for item in std::mem::take(&mut self.invalid_items) {
            self.items.remove(item, &mut phases.remove);
        }
    }

    /// The next id and endpoint number, if they differ from NUMBERS. NUMBERS is written before a new number is used.
    fn new_numbers(&mut self) -> Option<NextNumbers> {
        let next = self.ports.next_numbers();
        (std::mem::replace(&mut self.recorded, next) != next).then_some(next)
    }

    /// The number of entries in use and the capacity of each map that the planner fills, except NAMES and PREFIXES.
    pub fn fullness(&self) -> Vec<Fullness> {
        let mut maps = vec![Fullness { name: "SERVICES", used: self.numbers.used(), capacity: self.numbers.capacity() }];
        for (name, family) in [("BACKENDS_V4", Family::V4), ("BACKENDS_V6", Family::V6)] {
            let slots = self.ports.slots_of(family);
            maps.push(Fullness { name, used: slots.used(), capacity: slots.capacity() });
        }
        maps.extend(self.items.fullness(self.installed.of_family()));
        maps
    }

    /// The number of frontends in the maps.
    pub fn frontends(&self) -> usize {
        self.installed.len()
    }

    /// The addresses of installed node ports.
    pub fn node_port_addresses(&self) -> BTreeSet<IpAddr> {
        self.installed.node_ports().map(|frontend| frontend.address).collect()
    }

    /// Whether SOURCE_RANGES has an entry, in the planner's model.
    pub fn has_source_ranges(&self) -> bool {
        self.items.has_ranges()
    }

    /// All frontends and ClusterIPs in the maps, except frontends with an invalid entry.
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

    /// Marks all retired entries as waiting for a grace period, after the plans that retired them were applied. Returns
    /// false if no entry waits. After the grace period [`Self::release`] frees the entries.
    pub fn seal(&mut self) -> bool {
        let sealed = [self.numbers.seal(), self.ports.slots(Family::V4).seal(), self.ports.slots(Family::V6).seal()];
        sealed.contains(&true)
    }

    /// Frees the entries that were sealed. [`Self::take_retries`] then returns the frontends that may have room now.
    pub fn release(&mut self) {
        self.numbers.release();
        self.ports.slots(Family::V4).release();
        self.ports.slots(Family::V6).release();
        self.has_new_room = true;
    }

    fn set(&mut self, frontend: &Frontend, entry: &Entry, phases: &mut Phases) -> Result<(), Full> {
        let before = self.installed.get(frontend);
        let mut reserved = self.ports.reserve_slots(entry, frontend.family())?;
        let known = before.map(|(number, _)| number);
        let Some(number) = known.or_else(|| self.numbers.allocate(1).map(|range| range.first)) else {
            self.ports.cancel(reserved, frontend.family());
            return Err(Full::Services);
        };
        let mut steps = Vec::new();
        let service = self.build(frontend, entry, &mut reserved, &mut phases.names, &mut steps);
        self.ports.set_members(&service, &mut self.items, &mut steps);
        match before {
            Some((_, before)) => {
                // In the last phase: after a crash half way, the entry has its old id or its new id, and both have a name.
                self.release_service(&before, &mut phases.cleanup);
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

    /// Builds the service entry of a frontend, with its id and its choices.
    fn build(
        &mut self,
        frontend: &Frontend,
        entry: &Entry,
        reserved: &mut ReservedSlots,
        names: &mut Vec<Step>,
        steps: &mut Vec<Step>,
    ) -> Service {
        let Entry { owner: _, kind, inside, outside, affinity_timeout, serving: _, source_ranges: _ } = entry;
        let id = self.ports.add_frontend(entry, frontend.family(), &mut self.items, names, steps);
        self.changed_ports.insert(id);
        Service {
            inside: self.ports.choose(id, inside, reserved, &mut self.items, steps),
            outside: self.ports.choose(id, outside, reserved, &mut self.items, steps),
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
            self.release_service(&service, &mut phases.remove);
            self.numbers.retire(Range { first: number, count: 1 });
        }
    }

    /// Counts one user less for the service port and the choices of a service entry. Plans to remove the port's name with
    /// its last frontend.
    fn release_service(&mut self, service: &Service, steps: &mut Vec<Step>) {
        self.changed_ports.insert(service.id);
        self.ports.release(service.id, service.inside);
        self.ports.release(service.id, service.outside);
        if self.ports.remove_frontend(service) {
            steps.push(Step::RemoveName(service.id));
        }
    }
}

#[cfg(test)]
mod tests;
