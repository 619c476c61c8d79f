//! Service ports in the tables: their ids, and the sets of backends that their frontends share.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher as _,
    sync::Arc,
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
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
    maps::{Backends, Item, LAST_NUMBER, NextNumbers, Slot},
    model::{Endpoint, Entry, Family, ServicePort, Target},
};

/// Free slots for the sets of backends that a table entry lacks, taken before anything else is planned for it. In the order of
/// its targets.
#[derive(Debug, Default)]
pub struct ReservedSlots(SmallVec<[Range; 2]>);

/// All service ports that have a frontend, and the slots that their backends lie in.
#[derive(Debug)]
pub struct Ports {
    by_id: HashMap<u64, Box<PlannedPort>>,
    /// The ids, by their keys.
    ids: HashTable<u64>,
    hasher: RandomState,
    slots_v4: Slots,
    slots_v6: Slots,
    marks: NextNumbers,
    /// Numbers above those that were found in the maps.
    in_use: NextNumbers,
    /// Endpoints found in the kernel that belong to no set: whose they are shows when their port is planned.
    unclaimed: BTreeMap<u64, Endpoint>,
    /// Endpoints of ports that have ended.
    ended: BTreeMap<u64, Endpoint>,
    /// Endpoints that were found in sets of several ports: an agent ended while a frontend passed from one to another.
    shared: BTreeSet<u64>,
    /// What was chosen last during a plan: for clients on the node, and for others.
    recent: SmallVec<[Recent; 2]>,
    /// The source ranges that were planned last during a plan, and the port's id.
    entered: Option<(u64, Arc<[IpNet]>)>,
}

/// A choice that leads to these endpoints of a port.
#[derive(Debug)]
struct Recent {
    id: u64,
    endpoints: Arc<[Endpoint]>,
    choice: Choice,
}

impl Ports {
    pub fn new(backends: u32, marks: NextNumbers) -> Self {
        Self {
            by_id: HashMap::default(),
            ids: HashTable::new(),
            hasher: RandomState::default(),
            slots_v4: Slots::new(backends),
            slots_v6: Slots::new(backends),
            marks: NextNumbers { id: believed(marks.id), endpoint: believed(marks.endpoint) },
            in_use: NextNumbers::default(),
            unclaimed: BTreeMap::new(),
            ended: BTreeMap::new(),
            shared: BTreeSet::new(),
            recent: SmallVec::new(),
            entered: None,
        }
    }

    /// The numbers given so far.
    pub fn marks(&self) -> NextNumbers {
        self.marks
    }

    /// The slots of a family.
    pub fn slots(&mut self, family: Family) -> &mut Slots {
        match family {
            Family::V4 => &mut self.slots_v4,
            Family::V6 => &mut self.slots_v6,
        }
    }

    /// Takes the slots for all sets of a table entry that its service port does not have yet. Takes nothing on failure.
    pub fn make_room(&mut self, entry: &Entry, family: Family) -> Result<ReservedSlots, Full> {
        let port = self.id_of(&key_of(entry, family)).and_then(|id| self.by_id.get(&id));
        let lacks = |target: &Target| match target {
            Target::Verdict(_) => None,
            Target::Backends(endpoints) => {
                let is_known = port.is_some_and(|port| port.sets.iter().any(|set| set.holds(endpoints)));
                (!is_known).then(|| u32::try_from(endpoints.len()).unwrap_or(u32::MAX))
            }
        };
        let outside = if entry.outside == entry.inside { None } else { lacks(&entry.outside) };
        let counts: SmallVec<[u32; 2]> = lacks(&entry.inside).into_iter().chain(outside).collect();
        let numbers: u64 = counts.iter().copied().map(u64::from).sum();
        let has_number = self.marks.endpoint.saturating_add(numbers) <= LAST_NUMBER;
        if !has_number || (port.is_none() && self.marks.id >= LAST_NUMBER) {
            return Err(Full::Numbers);
        }
        let mut room = ReservedSlots::default();
        for count in counts {
            match self.slots(family).allocate(count) {
                Some(range) => room.0.push(range),
                None => {
                    self.cancel(room, family);
                    return Err(Full::Backends(family, count));
                }
            }
        }
        Ok(room)
    }

    /// Gives back room that was not used.
    pub fn cancel(&mut self, room: ReservedSlots, family: Family) {
        for range in room.0 {
            self.slots(family).cancel(range);
        }
    }

    /// Whether what was missing is there now.
    pub fn has_room(&self, full: Full) -> bool {
        match full {
            Full::Backends(Family::V4, count) => self.slots_v4.has_room(count),
            Full::Backends(Family::V6, count) => self.slots_v6.has_room(count),
            Full::Services => true,
            Full::Numbers => false,
        }
    }

    /// Adds a frontend to its service port and returns the port's id; a new port is given one, and named.
    pub fn enter(&mut self, entry: &Entry, family: Family, items: &mut Items, steps: &mut Vec<Step>) -> u64 {
        let key = key_of(entry, family);
        let id = match self.id_of(&key) {
            Some(id) => id,
            None => {
                let id = self.marks.id;
                self.marks.id += 1;
                steps.push(Step::InsertName(id, entry.owner.clone()));
                self.insert(id, key);
                id
            }
        };
        if let Some(port) = self.by_id.get_mut(&id) {
            port.add_frontend(entry.kind as u8);
            port.set_terms(entry);
        }
        let Some(ranges) = &entry.source_ranges else { return id };
        // The frontends of a port share one list, of tens of thousands perhaps.
        if self.entered.as_ref().is_some_and(|(of, entered)| *of == id && Arc::ptr_eq(entered, ranges)) {
            return id;
        }
        self.entered = Some((id, ranges.clone()));
        for range in ranges.iter() {
            if !items.insert(Item::Range(id, *range), steps) {
                // Nor is there room for the others, and to note each would take memory without a limit.
                break;
            }
        }
        id
    }

    /// Takes a frontend away from a service port. True if it was the last: then the id is not in use any more.
    pub fn leave(&mut self, service: &portmap_common::Service) -> bool {
        let id = service.id;
        let Some(port) = self.by_id.get_mut(&id) else { return false };
        port.remove_frontend(service.kind);
        if port.has_frontends() {
            return false;
        }
        let hash = self.hasher.hash_one(&port.key);
        if let Ok(entry) = self.ids.find_entry(hash, |it| *it == id) {
            entry.remove();
        }
        self.ended.extend(self.by_id.remove(&id).into_iter().flat_map(|port| port.into_remembered()));
        true
    }

    /// The choice that leads to a target, its backends written where no set of the port has them already: then into the room that
    /// was made for it.
    pub fn choose(
        &mut self,
        id: u64,
        target: &Target,
        room: &mut ReservedSlots,
        items: &mut Items,
        steps: &mut Vec<Step>,
    ) -> Choice {
        let endpoints = match target {
            Target::Verdict(verdict) => return Choice::verdict(*verdict),
            Target::Backends(endpoints) => endpoints,
        };
        let nobody = Choice::verdict(Verdict::Refuse);
        let Some(port) = self.by_id.get_mut(&id) else { return nobody };
        // The frontends of a port share one list of endpoints, which need not be compared and remembered for each of them.
        let recent = self.recent.iter().find(|recent| recent.id == id && Arc::ptr_eq(&recent.endpoints, endpoints));
        if let Some(set) = recent.and_then(|recent| port.sets.iter_mut().find(|set| set.choice() == recent.choice)) {
            set.users += 1;
            return set.choice();
        }
        let known = port.sets.iter().position(|set| set.holds(endpoints));
        let index = match known {
            Some(index) => index,
            None if room.0.is_empty() => return nobody,
            None => {
                let range = room.0.remove(0);
                let set = Set { range, backends: port.number(endpoints, &mut self.marks), users: 0 };
                steps.push(Step::WriteBackends(range.first, set.backends.clone()));
                port.sets.push(set);
                port.sets.len() - 1
            }
        };
        port.remember_set(index, items, steps);
        let Some(set) = port.sets.get_mut(index) else { return nobody };
        set.users += 1;
        let choice = set.choice();
        self.recent.truncate(1);
        self.recent.insert(0, Recent { id, endpoints: endpoints.clone(), choice });
        choice
    }

    /// With session affinity, puts the endpoints of a service's inside choice into MEMBERS.
    pub fn set_members(&mut self, service: &portmap_common::Service, items: &mut Items, steps: &mut Vec<Step>) {
        if service.affinity_timeout > 0
            && let Some(port) = self.by_id.get_mut(&service.id)
        {
            port.set_members(service, items, steps);
        }
    }

    /// Forgets the endpoints of a service port that serve no more, and the source ranges that are not its own any more.
    pub fn settle(&mut self, id: u64, items: &mut Items, steps: &mut Vec<Step>) {
        let Some(port) = self.by_id.get_mut(&id) else {
            items.retain(items::members_of(id), |_| false, steps);
            return items.retain(items::ranges_of(id), |_| false, steps);
        };
        port.settle_members(id, items, steps);
        let ranges: &[IpNet] = port.source_ranges();
        items.retain(
            items::ranges_of(id),
            |item| matches!(item, Item::Range(_, range) if ranges.binary_search(range).is_ok()),
            steps,
        );
        let gone = port.settle(&mut self.unclaimed);
        self.forget(gone, items, steps);
    }

    /// Forgets the endpoints of ports that have ended, and those that no port has claimed, after all have been planned.
    pub fn forget_rest(&mut self, items: &mut Items, steps: &mut Vec<Step>) {
        let unclaimed = std::mem::take(&mut self.unclaimed);
        let gone = std::mem::take(&mut self.ended).into_iter().chain(unclaimed);
        self.forget(gone, items, steps);
        self.shared.clear();
        self.recent.clear();
        self.entered = None;
    }

    fn forget(&self, gone: impl IntoIterator<Item = (u64, Endpoint)>, items: &mut Items, steps: &mut Vec<Step>) {
        for (number, endpoint) in gone {
            if !self.shared.contains(&number) || !self.by_id.values().any(|port| port.has(number)) {
                items.remove(Item::Endpoint(number, endpoint), steps);
            }
        }
    }

    /// Ends one use of a choice; the slots of a set that nobody uses any more are retired.
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

    /// Takes over a frontend's port as found in the kernel. False if the id is already another's.
    pub fn adopt(&mut self, service: &portmap_common::Service, owner: &ServicePort, family: Family) -> bool {
        let id = service.id;
        let key = PortKey { owner: owner.clone(), family, has_affinity: service.affinity_timeout > 0 };
        if id > LAST_NUMBER || self.id_of(&key).is_some_and(|known| known != id) {
            return false;
        }
        match self.by_id.get_mut(&id) {
            Some(port) if port.key != key => return false,
            Some(_) => {}
            None => self.insert(id, key),
        }
        if let Some(port) = self.by_id.get_mut(&id) {
            port.add_frontend(service.kind);
        }
        self.note_in_use(NextNumbers { id: id.saturating_add(1), endpoint: 0 });
        true
    }

    /// Takes over the endpoints found in the kernel, after the choices that lead to them. Those that are others there than in the
    /// choices are strays, and returned.
    pub fn adopt_endpoints(&mut self, items: &Items) -> BTreeSet<Item> {
        let mut owners: HashMap<u64, (u64, Endpoint)> = HashMap::default();
        for (id, port) in &self.by_id {
            for slot in port.slots() {
                if owners.insert(slot.number, (*id, slot.endpoint)).is_some_and(|(other, _)| other != *id) {
                    self.shared.insert(slot.number);
                }
            }
        }
        let mut strays = BTreeSet::new();
        for item in items.iter() {
            let Item::Endpoint(number, endpoint) = item else { continue };
            if *number > LAST_NUMBER {
                strays.insert(*item);
                continue;
            }
            self.note_in_use(NextNumbers { id: 0, endpoint: number.saturating_add(1) });
            let Some((id, chosen)) = owners.get(number) else {
                self.unclaimed.insert(*number, *endpoint);
                continue;
            };
            if (chosen.address, chosen.port) != (endpoint.address, endpoint.port) {
                strays.insert(*item);
            } else if let Some(port) = self.by_id.get_mut(id) {
                port.remember(*number, *endpoint);
            }
        }
        strays
    }

    /// Whether the same ports have the same backends in the same slots.
    pub fn have_same_backends(&self, other: &Self) -> bool {
        let mut pairs = self.by_id.iter().map(|(id, port)| (port, other.by_id.get(id)));
        self.by_id.len() == other.by_id.len()
            && pairs.all(|(port, other)| other.is_some_and(|other| port.has_same_backends(other)))
    }

    /// Whether an id is in use.
    pub fn has(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Takes over a choice as found in the kernel. False if its slots are already another's.
    pub fn adopt_choice(&mut self, id: u64, choice: Choice, slots: &[Slot]) -> bool {
        if choice.count == 0 {
            return true;
        }
        if slots.iter().any(|slot| slot.number > LAST_NUMBER) {
            return false;
        }
        let Some(port) = self.by_id.get_mut(&id) else { return false };
        if let Some(set) = port.position(choice).and_then(|index| port.sets.get_mut(index)) {
            set.users += 1;
            return true;
        }
        let range = Range { first: choice.first, count: choice.count };
        let family = port.key.family;
        if !self.slots(family).reserve(range) {
            return false;
        }
        let highest = slots.iter().map(|slot| slot.number.saturating_add(1)).max().unwrap_or_default();
        self.note_in_use(NextNumbers { id: 0, endpoint: highest });
        if let Some(port) = self.by_id.get_mut(&id) {
            port.sets.push(Set { range, backends: Backends::new(family, slots.iter().copied()), users: 1 });
        }
        true
    }

    /// The numbers given so far, as somebody knows who has followed them since the start: what the maps say may be anybody's.
    pub fn trust(&mut self, marks: NextNumbers) {
        self.marks = NextNumbers { id: self.in_use.id.max(marks.id), endpoint: self.in_use.endpoint.max(marks.endpoint) };
    }

    fn id_of(&self, key: &PortKey) -> Option<u64> {
        let is_it = |id: &u64| self.by_id.get(id).is_some_and(|port| port.key == *key);
        self.ids.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// Numbers below these are in use, whatever NUMBERS says.
    fn note_in_use(&mut self, marks: NextNumbers) {
        let highest = |one: NextNumbers| NextNumbers { id: one.id.max(marks.id), endpoint: one.endpoint.max(marks.endpoint) };
        (self.in_use, self.marks) = (highest(self.in_use), highest(self.marks));
    }

    fn insert(&mut self, id: u64, key: PortKey) {
        let hash = self.hasher.hash_one(&key);
        self.by_id.insert(id, Box::new(PlannedPort::new(key)));
        let Self { by_id, ids, hasher, .. } = self;
        ids.insert_unique(hash, id, |id| by_id.get(id).map_or(0, |port| hasher.hash_one(&port.key)));
    }
}

/// What NUMBERS says, unless no node gives so many. The numbers in use still count.
fn believed(next: u64) -> u64 {
    if next > LAST_NUMBER { 0 } else { next }
}

/// The service port that a table entry belongs to.
fn key_of(entry: &Entry, family: Family) -> PortKey {
    PortKey { owner: entry.owner.clone(), family, has_affinity: entry.affinity_timeout > 0 }
}
