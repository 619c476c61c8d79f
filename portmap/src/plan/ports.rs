//! All service ports in the maps: their ids, the slots of their backends, and the numbers of their endpoints. `port` models
//! a single port.

mod adopt;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use portmap_common::{Choice, Verdict};
use smallvec::SmallVec;

use super::{
    Full, Step,
    items::{self, Items},
    port::{PlannedPort, PortKey, Set},
    slots::{Range, Slots},
};
use crate::{
    collections::HashMap,
    maps::{Item, LAST_NUMBER, NextNumbers},
    model::{Endpoint, Entry, Family, PerFamily, Target},
};

/// Slots reserved for the new backends of an entry, before any step is planned for the entry. In the order of its targets:
/// inside, outside.
#[derive(Debug, Default)]
pub struct ReservedSlots(SmallVec<[Range; 2]>);

/// All service ports with a frontend, and the slots of BACKENDS.
#[derive(Debug)]
pub struct Ports {
    by_id: HashMap<u64, Box<PlannedPort>>,
    ids: HashMap<PortKey, u64>,
    slots: PerFamily<Slots>,
    next_numbers: NextNumbers,
    /// Lower bounds of the next numbers: above every id and endpoint number that was adopted from the maps.
    in_use: NextNumbers,
    /// Endpoints read from ENDPOINTS whose number no backend has. Their service port is unknown until
    /// [`Self::remove_unused`] of that port.
    unclaimed_endpoints: BTreeMap<u64, Endpoint>,
    /// Endpoints of removed service ports.
    ended_endpoints: BTreeMap<u64, Endpoint>,
    /// Numbers of endpoints that backends of several service ports have: an agent crashed while a frontend passed from one
    /// port to another.
    shared_endpoints: BTreeSet<u64>,
    /// The last two choices of this plan, usually those of one entry for clients on the node and for clients outside.
    recent: SmallVec<[Recent; 2]>,
    /// The id and source ranges that this plan inserted last.
    last_ranges: Option<(u64, Arc<[IpNet]>)>,
}

/// A choice of this plan, and the endpoints that the choice leads to.
#[derive(Debug)]
struct Recent {
    id: u64,
    endpoints: Arc<[Endpoint]>,
    choice: Choice,
}

impl Ports {
    pub fn new(backends: u32, next_numbers: NextNumbers) -> Self {
        Self {
            by_id: HashMap::default(),
            ids: HashMap::default(),
            slots: PerFamily::of(|_| Slots::new(backends)),
            next_numbers: NextNumbers { id: plausible(next_numbers.id), endpoint: plausible(next_numbers.endpoint) },
            in_use: NextNumbers::default(),
            unclaimed_endpoints: BTreeMap::new(),
            ended_endpoints: BTreeMap::new(),
            shared_endpoints: BTreeSet::new(),
            recent: SmallVec::new(),
            last_ranges: None,
        }
    }

    /// The next id and the next endpoint number to assign.
    pub fn next_numbers(&self) -> NextNumbers {
        self.next_numbers
    }

    /// The slots of BACKENDS of a family.
    pub fn slots_of(&self, family: Family) -> &Slots {
        self.slots.get(family)
    }

    /// The slots of BACKENDS of a family, for changes.
    pub fn slots(&mut self, family: Family) -> &mut Slots {
        self.slots.get_mut(family)
    }

    /// Reserves slots for those backends of an entry that its service port does not have yet as a set. On failure no slot
    /// stays reserved.
    pub fn reserve_slots(&mut self, entry: &Entry, family: Family) -> Result<ReservedSlots, Full> {
        let port = self.id_of(&key_of(entry, family)).and_then(|id| self.by_id.get(&id));
        let has_shortage = |target: &Target| match target {
            Target::Verdict(_) => None,
            Target::Backends(endpoints) => {
                let is_known = port.is_some_and(|port| port.sets.iter().any(|set| set.holds(endpoints)));
                (!is_known).then(|| u32::try_from(endpoints.len()).unwrap_or(u32::MAX))
            }
        };
        let outside = if entry.outside == entry.inside { None } else { has_shortage(&entry.outside) };
        let counts: SmallVec<[u32; 2]> = has_shortage(&entry.inside).into_iter().chain(outside).collect();
        let numbers: u64 = counts.iter().copied().map(u64::from).sum();
        let has_number = self.next_numbers.endpoint.saturating_add(numbers) <= LAST_NUMBER;
        if !has_number || (port.is_none() && self.next_numbers.id >= LAST_NUMBER) {
            return Err(Full::Numbers);
        }
        let mut reserved = ReservedSlots::default();
        for count in counts {
            match self.slots(family).allocate(count) {
                Some(range) => reserved.0.push(range),
                None => {
                    self.cancel(reserved, family);
                    return Err(Full::Backends(family, count));
                }
            }
        }
        Ok(reserved)
    }

    /// Frees reserved slots that were not used.
    pub fn cancel(&mut self, reserved: ReservedSlots, family: Family) {
        for range in reserved.0 {
            self.slots(family).cancel(range);
        }
    }

    /// Whether BACKENDS has the missing slots now. True for [`Full::Services`], which the caller checks; false for
    /// [`Full::Numbers`].
    pub fn has_room(&self, full: Full) -> bool {
        match full {
            Full::Backends(family, count) => self.slots.get(family).has_room(count),
            Full::Services => true,
            Full::Numbers => false,
        }
    }

    /// Adds a frontend to its service port, and returns the port's id. A new port gets an id and a name. The entry's source
    /// ranges are inserted, as far as there is room.
    pub fn add_frontend(
        &mut self,
        entry: &Entry,
        family: Family,
        items: &mut Items,
        names: &mut Vec<Step>,
        steps: &mut Vec<Step>,
    ) -> u64 {
        let key = key_of(entry, family);
        let id = match self.id_of(&key) {
            Some(id) => id,
            None => {
                let id = self.next_numbers.id;
                self.next_numbers.id += 1;
                names.push(Step::InsertName(id, entry.owner.clone()));
                self.insert(id, key);
                id
            }
        };
        if let Some(port) = self.by_id.get_mut(&id) {
            port.add_frontend(entry.kind as u8);
            port.set_secondary(entry);
        }
        let Some(ranges) = &entry.source_ranges else { return id };
        // The frontends of a port share one list, which may have tens of thousands of ranges.
        if self.last_ranges.as_ref().is_some_and(|(of, last_ranges)| *of == id && Arc::ptr_eq(last_ranges, ranges)) {
            return id;
        }
        self.last_ranges = Some((id, ranges.clone()));
        for range in ranges.iter() {
            if !items.insert(Item::Range(id, *range), steps) {
                // The map of this family is full: other new ranges have no room either, and a list of them would be unbounded.
                break;
            }
        }
        id
    }

    /// Removes a frontend from its service port. Returns true if it was the port's last frontend: then the id is not used
    /// any more.
    pub fn remove_frontend(&mut self, service: &portmap_common::Service) -> bool {
        let id = service.id;
        let Some(port) = self.by_id.get_mut(&id) else { return false };
        port.remove_frontend(service.kind);
        if port.has_frontends() {
            return false;
        }
        self.ids.remove(&port.key);
        self.ended_endpoints.extend(self.by_id.remove(&id).into_iter().flat_map(|port| port.into_recorded()));
        true
    }

    /// Returns the choice of a target. Backends that are in no set of the port are written into the reserved slots.
    pub fn choose(
        &mut self,
        id: u64,
        target: &Target,
        reserved: &mut ReservedSlots,
        items: &mut Items,
        steps: &mut Vec<Step>,
    ) -> Choice {
        let endpoints = match target {
            Target::Verdict(verdict) => return Choice::verdict(*verdict),
            Target::Backends(endpoints) => endpoints,
        };
        let nobody = Choice::verdict(Verdict::Refuse);
        let Some(port) = self.by_id.get_mut(&id) else { return nobody };
        // The frontends of a port usually share one list of endpoints, so most searches end with a comparison of pointers.
        let recent = self.recent.iter().find(|recent| recent.id == id && Arc::ptr_eq(&recent.endpoints, endpoints));
        if let Some(set) = recent.and_then(|recent| port.sets.iter_mut().find(|set| set.choice() == recent.choice)) {
            set.users += 1;
            return set.choice();
        }
        let known = port.sets.iter().position(|set| set.holds(endpoints));
        let index = match known {
            Some(index) => index,
            None if reserved.0.is_empty() => return nobody,
            None => {
                let range = reserved.0.remove(0);
                let set = Set { range, backends: port.number(endpoints, &mut self.next_numbers), users: 0 };
                steps.push(Step::WriteBackends(range.first, set.backends.clone()));
                port.sets.push(set);
                port.sets.len() - 1
            }
        };
        port.insert_endpoints(index, items, steps);
        let Some(set) = port.sets.get_mut(index) else { return nobody };
        set.users += 1;
        let choice = set.choice();
        self.recent.truncate(1);
        self.recent.insert(0, Recent { id, endpoints: endpoints.clone(), choice });
        choice
    }

    /// Inserts a service entry's backends for clients on the node into MEMBERS, if the entry has session affinity.
    pub fn set_members(&mut self, service: &portmap_common::Service, items: &mut Items, steps: &mut Vec<Step>) {
        if service.affinity_timeout > 0
            && let Some(port) = self.by_id.get_mut(&service.id)
        {
            port.set_members(service, items, steps);
        }
    }

    /// Removes unused secondary entries of a service port. [`Self::remove_ended`] removes the endpoints of a removed port.
    pub fn remove_unused(&mut self, id: u64, items: &mut Items, steps: &mut Vec<Step>) {
        let Some(port) = self.by_id.get_mut(&id) else {
            items.retain(items::members_of(id), |_| false, steps);
            return items.retain(items::ranges_of(id), |_| false, steps);
        };
        port.remove_unused_members(id, items, steps);
        let ranges: &[IpNet] = port.source_ranges();
        items.retain(
            items::ranges_of(id),
            |item| matches!(item, Item::Range(_, range) if ranges.binary_search(range).is_ok()),
            steps,
        );
        let gone = port.remove_unused(&mut self.unclaimed_endpoints);
        self.cleanup(gone, items, steps);
    }

    /// Removes from ENDPOINTS the endpoints of removed ports, and those that no port has claimed. Called at the end of a
    /// plan.
    pub fn remove_ended(&mut self, items: &mut Items, steps: &mut Vec<Step>) {
        let unclaimed_endpoints = std::mem::take(&mut self.unclaimed_endpoints);
        let gone = std::mem::take(&mut self.ended_endpoints).into_iter().chain(unclaimed_endpoints);
        self.cleanup(gone, items, steps);
        self.shared_endpoints.clear();
        self.recent.clear();
        self.last_ranges = None;
    }

    fn cleanup(&self, gone: impl IntoIterator<Item = (u64, Endpoint)>, items: &mut Items, steps: &mut Vec<Step>) {
        for (number, endpoint) in gone {
            if !self.shared_endpoints.contains(&number) || !self.by_id.values().any(|port| port.has(number)) {
                items.remove(Item::Endpoint(number, endpoint), steps);
            }
        }
    }

    /// Counts one use of a choice (inside or outside, of a service entry) less. Retires its slots after the last use.
    pub fn release(&mut self, id: u64, choice: Choice) {
        let Some(port) = self.by_id.get_mut(&id) else { return };
        let Some(index) = port.position(choice) else { return };
        if let Some(set) = port.sets.get_mut(index) {
            set.users -= 1;
            if set.users > 0 {
                return;
            }
        }
        let set = port.sets.swap_remove(index);
        let family = port.key.family;
        self.slots(family).retire(set.range);
    }

    /// Whether two models have the same ports with the same backends in the same slots.
    pub fn have_same_backends(&self, other: &Self) -> bool {
        let mut pairs = self.by_id.iter().map(|(id, port)| (port, other.by_id.get(id)));
        self.by_id.len() == other.by_id.len()
            && pairs.all(|(port, other)| other.is_some_and(|other| port.has_same_backends(other)))
    }

    /// Whether a service port in the maps has this id.
    pub fn has(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Continues the numbers of a model that has assigned them since the start of the agent. The numbers in the maps may
    /// have been changed by another program.
    pub fn continue_from(&mut self, next_numbers: NextNumbers) {
        self.next_numbers =
            NextNumbers { id: self.in_use.id.max(next_numbers.id), endpoint: self.in_use.endpoint.max(next_numbers.endpoint) };
    }

    fn id_of(&self, key: &PortKey) -> Option<u64> {
        self.ids.get(key).copied()
    }

    /// Raises the next numbers above a number that is in use, whatever NUMBERS contains.
    fn raise_next_numbers(&mut self, next_numbers: NextNumbers) {
        let highest = |one: NextNumbers| NextNumbers {
            id: one.id.max(next_numbers.id),
            endpoint: one.endpoint.max(next_numbers.endpoint),
        };
        (self.in_use, self.next_numbers) = (highest(self.in_use), highest(self.next_numbers));
    }

    fn insert(&mut self, id: u64, key: PortKey) {
        self.ids.insert(key.clone(), id);
        self.by_id.insert(id, Box::new(PlannedPort::new(key)));
    }
}

/// A value of NUMBERS, or 0 if no node can have assigned so many numbers. Numbers in use still raise the next number.
fn plausible(next: u64) -> u64 {
    if next > LAST_NUMBER { 0 } else { next }
}

/// The key of an entry's service port.
fn key_of(entry: &Entry, family: Family) -> PortKey {
    PortKey { owner: entry.owner.clone(), family, has_affinity: entry.affinity_timeout > 0 }
}
