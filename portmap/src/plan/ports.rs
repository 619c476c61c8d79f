//! Service ports in the tables: their ids, and the sets of backends that their frontends share.

use std::collections::HashMap;

use portmap_common::Choice;

use super::{
    Full, Step,
    slots::{Range, Slots},
};
use crate::{
    maps::{Marks, Slot},
    table::{Endpoint, Family, ServicePort, Target},
};

/// All service ports that have a frontend, and the slots that their backends lie in.
#[derive(Debug)]
pub struct Ports {
    ids: HashMap<(ServicePort, Family), u32>,
    by_id: HashMap<u32, Port>,
    slots_v4: Slots,
    slots_v6: Slots,
    marks: Marks,
}

/// A service port in one family.
#[derive(Debug)]
struct Port {
    owner: ServicePort,
    family: Family,
    frontends: u32,
    sets: Vec<Set>,
}

/// Backends in consecutive slots.
#[derive(Debug)]
struct Set {
    range: Range,
    slots: Vec<Slot>,
    users: u32,
}

impl Ports {
    pub fn new(backends: u32, marks: Marks) -> Self {
        Self {
            ids: HashMap::new(),
            by_id: HashMap::new(),
            slots_v4: Slots::new(backends),
            slots_v6: Slots::new(backends),
            marks,
        }
    }

    /// The numbers given so far.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// The slots of a family.
    pub fn slots(&mut self, family: Family) -> &mut Slots {
        match family {
            Family::V4 => &mut self.slots_v4,
            Family::V6 => &mut self.slots_v6,
        }
    }

    /// Adds a frontend to a service port and returns the port's id; a new port is given one, and named.
    pub fn enter(&mut self, owner: &ServicePort, family: Family, steps: &mut Vec<Step>) -> u32 {
        let key = (owner.clone(), family);
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                let id = self.marks.id;
                self.marks.id += 1;
                steps.push(Step::InsertName(id, owner.clone()));
                self.insert(id, key);
                id
            }
        };
        if let Some(port) = self.by_id.get_mut(&id) {
            port.frontends += 1;
        }
        id
    }

    /// Takes a frontend away from a service port. True if it was the last: then the id is not in use any more.
    pub fn leave(&mut self, id: u32) -> bool {
        let Some(port) = self.by_id.get_mut(&id) else { return false };
        port.frontends -= 1;
        if port.frontends > 0 {
            return false;
        }
        if let Some(port) = self.by_id.remove(&id) {
            self.ids.remove(&(port.owner, port.family));
        }
        true
    }

    /// The choice that leads to a target, its backends written where no set of the port has them already.
    pub fn choose(&mut self, id: u32, target: &Target, steps: &mut Vec<Step>) -> Result<Choice, Full> {
        let endpoints = match target {
            Target::Verdict(verdict) => return Ok(Choice::verdict(*verdict)),
            Target::Backends(endpoints) => endpoints,
        };
        let Some(port) = self.by_id.get_mut(&id) else { return Err(Full::Services) };
        if let Some(set) = port.sets.iter_mut().find(|set| set.holds(endpoints)) {
            set.users += 1;
            return Ok(set.choice());
        }
        let slots = match port.family {
            Family::V4 => &mut self.slots_v4,
            Family::V6 => &mut self.slots_v6,
        };
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        let range = slots.allocate(count).ok_or(Full::Backends(port.family))?;
        let set = Set { range, slots: port.number(endpoints, &mut self.marks), users: 1 };
        steps.push(Step::WriteBackends(port.family, range.first, set.slots.clone()));
        let choice = set.choice();
        port.sets.push(set);
        Ok(choice)
    }

    /// Ends one use of a choice; the slots of a set that nobody uses any more are retired.
    pub fn release(&mut self, id: u32, choice: Choice) {
        let Some(port) = self.by_id.get_mut(&id) else { return };
        let Some(index) = port.position(choice) else { return };
        if let Some(set) = port.sets.get_mut(index) {
            set.users -= 1;
            if set.users > 0 {
                return;
            }
        }
        let set = port.sets.swap_remove(index);
        let family = port.family;
        self.slots(family).retire(set.range);
    }

    /// Takes over a frontend's port as found in the kernel. False if the id is already another's.
    pub fn adopt(&mut self, id: u32, owner: &ServicePort, family: Family) -> bool {
        let key = (owner.clone(), family);
        if self.ids.get(&key).is_some_and(|known| *known != id) {
            return false;
        }
        match self.by_id.get_mut(&id) {
            Some(port) if port.owner != key.0 || port.family != family => return false,
            Some(_) => {}
            None => self.insert(id, key),
        }
        if let Some(port) = self.by_id.get_mut(&id) {
            port.frontends += 1;
        }
        self.marks.id = self.marks.id.max(id.saturating_add(1));
        true
    }

    /// Takes over a choice as found in the kernel. False if its slots are already another's.
    pub fn adopt_choice(&mut self, id: u32, choice: Choice, slots: &[Slot]) -> bool {
        if choice.count == 0 {
            return true;
        }
        let Some(port) = self.by_id.get_mut(&id) else { return false };
        if let Some(set) = port.position(choice).and_then(|index| port.sets.get_mut(index)) {
            set.users += 1;
            return true;
        }
        let range = Range { first: choice.first, count: choice.count };
        let family = port.family;
        if !self.slots(family).reserve(range) {
            return false;
        }
        let highest = slots.iter().map(|slot| slot.number.saturating_add(1)).max().unwrap_or_default();
        self.marks.endpoint = self.marks.endpoint.max(highest);
        if let Some(port) = self.by_id.get_mut(&id) {
            port.sets.push(Set { range, slots: slots.to_vec(), users: 1 });
        }
        true
    }

    fn insert(&mut self, id: u32, key: (ServicePort, Family)) {
        let (owner, family) = key.clone();
        self.ids.insert(key, id);
        self.by_id.insert(id, Port { owner, family, frontends: 0, sets: Vec::new() });
    }
}

impl Port {
    fn position(&self, choice: Choice) -> Option<usize> {
        self.sets.iter().position(|set| set.choice() == choice)
    }

    /// Endpoints with their numbers: the one an endpoint has in a set of the port, else a new one.
    fn number(&self, endpoints: &[Endpoint], marks: &mut Marks) -> Vec<Slot> {
        let mut new = || {
            marks.endpoint += 1;
            marks.endpoint - 1
        };
        let known = |endpoint: &Endpoint| self.sets.iter().find_map(|set| set.number_of(endpoint));
        endpoints
            .iter()
            .map(|endpoint| Slot { endpoint: *endpoint, number: known(endpoint).unwrap_or_else(&mut new) })
            .collect()
    }
}

impl Set {
    fn choice(&self) -> Choice {
        Choice { first: self.range.first, count: self.range.count }
    }

    fn holds(&self, endpoints: &[Endpoint]) -> bool {
        self.slots.len() == endpoints.len() && self.slots.iter().map(|slot| &slot.endpoint).eq(endpoints)
    }

    fn number_of(&self, endpoint: &Endpoint) -> Option<u32> {
        let index = self
            .slots
            .binary_search_by_key(&(endpoint.address, endpoint.port), |slot| (slot.endpoint.address, slot.endpoint.port));
        index.ok().and_then(|index| self.slots.get(index)).map(|slot| slot.number)
    }
}
