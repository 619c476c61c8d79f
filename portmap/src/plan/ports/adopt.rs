//! Takes service ports, choices and endpoints that were read from the maps into the planner's model.

use std::collections::BTreeSet;

use portmap_common::{Choice, Service};

use super::{Items, Ports};
use crate::{
    collections::HashMap,
    maps::{Backends, Item, LAST_NUMBER, NextNumbers, Slot},
    model::{Endpoint, Family, ServicePort},
    plan::{
        port::{PortKey, Set},
        slots::Range,
    },
};

impl Ports {
    /// Adopts the service port of a frontend that was read from the maps. Returns false if the id is not plausible or
    /// belongs to another port, or if the port has another id.
    pub fn adopt(&mut self, service: &Service, owner: &ServicePort, family: Family) -> bool {
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
        self.raise_next_numbers(NextNumbers { id: id.saturating_add(1), endpoint: 0 });
        true
    }

    /// Adopts the endpoints read from ENDPOINTS. Must be called after every [`Self::adopt_choice`], because the backends of the
    /// choices tell the service port of an endpoint. Returns the invalid entries: entries with a number above [`LAST_NUMBER`],
    /// or with another address or port than the backend of that number.
    pub fn adopt_endpoints(&mut self, items: &Items) -> BTreeSet<Item> {
        let mut owners: HashMap<u64, (u64, Endpoint)> = HashMap::default();
        for (id, port) in &self.by_id {
            for slot in port.slots() {
                if owners.insert(slot.number, (*id, slot.endpoint)).is_some_and(|(other, _)| other != *id) {
                    self.shared_endpoints.insert(slot.number);
                }
            }
        }
        let mut invalid = BTreeSet::new();
        for item in items.iter() {
            let Item::Endpoint(number, endpoint) = item else { continue };
            if *number > LAST_NUMBER {
                invalid.insert(*item);
                continue;
            }
            self.raise_next_numbers(NextNumbers { id: 0, endpoint: number.saturating_add(1) });
            let Some((id, chosen)) = owners.get(number) else {
                self.unclaimed_endpoints.insert(*number, *endpoint);
                continue;
            };
            if (chosen.address, chosen.port) != (endpoint.address, endpoint.port) {
                invalid.insert(*item);
            } else if let Some(port) = self.by_id.get_mut(id) {
                port.record(*number, *endpoint);
            }
        }
        invalid
    }

    /// Adopts a choice that was read from the maps. Returns false if a slot belongs to another set or does not exist, if an
    /// endpoint number is not plausible, or if no port has the id. Returns true for a choice without backends.
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
        self.raise_next_numbers(NextNumbers { id: 0, endpoint: highest });
        if let Some(port) = self.by_id.get_mut(&id) {
            port.sets.push(Set { range, backends: Backends::new(family, slots.iter().copied()), users: 1 });
        }
        true
    }
}
