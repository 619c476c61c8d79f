//! Builds the planner's model from maps that were read from the kernel: at the start, so that an agent continues with the maps
//! of an earlier agent, after a failed write, and for comparisons.

use std::collections::{BTreeMap, BTreeSet};

use portmap_common::{Choice, Member, Service};

use super::{
    Planner,
    installed::InstalledFrontends,
    items::Items,
    ports::Ports,
    prefixes::Prefixes,
    slots::{Range, Slots},
};
use crate::{
    collections::{HashMap, HashSet},
    maps::{Capacity, FollowedFrontend, Item, Slot, Snapshot},
    model::{Family, Frontend, ServicePort},
};

impl Planner {
    /// A model of the maps as they were read. The next plan removes inconsistent entries, and writes the desired ones again
    /// if its changes include them.
    ///
    /// The caller waits for a grace period before it applies a plan: programs may still read entries that an earlier agent or
    /// an earlier model retired.
    pub fn new(capacity: Capacity, found: Snapshot) -> Self {
        let mut planner = Self {
            installed: InstalledFrontends::default(),
            numbers: Slots::new(capacity.services),
            ports: Ports::new(capacity.backends, found.next_numbers),
            left_out: BTreeMap::new(),
            items: Items::new(capacity, found.items),
            prefixes: Prefixes::new(found.prefixes),
            changed_ports: HashSet::default(),
            invalid_frontends: BTreeSet::new(),
            unused_names: BTreeSet::new(),
            invalid_items: BTreeSet::new(),
            foreign: found.foreign,
            recorded: found.next_numbers,
            has_new_room: false,
            incomplete: BTreeSet::new(),
        };
        let names: HashMap<u64, Option<ServicePort>> = found.names.into_iter().collect();
        let mut invalid = Vec::new();
        for (frontend, found) in found.frontends {
            if planner.adopt(frontend, &found, &names).is_none() {
                invalid.push((frontend, found));
            }
        }
        planner.retire_invalid(invalid);
        let used: BTreeSet<u64> = planner.installed.iter().map(|(_, _, service)| service.id).collect();
        planner.unused_names = names.into_keys().filter(|id| !used.contains(id)).collect();
        let changed = planner.ports.adopt_endpoints(&planner.items);
        planner.invalid_items = planner.find_invalid_items().chain(changed).chain(found.spoiled).collect();
        planner
    }

    /// Retires the service numbers and slots of frontends that the next plan removes: programs may read them until a grace
    /// period after the removal.
    fn retire_invalid(&mut self, invalid: Vec<(Frontend, FollowedFrontend)>) {
        for (frontend, found) in invalid {
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
            self.invalid_frontends.insert(frontend);
        }
    }

    fn find_invalid_items(&self) -> impl Iterator<Item = Item> {
        let is_invalid = |item: &&Item| match item {
            Item::Member(member) => member.unused != 0 || member.external > Member::OUTSIDE || !self.ports.has(member.id),
            Item::Range(id, _) => !self.ports.has(*id),
            Item::Address(..) | Item::Endpoint(..) => false,
        };
        self.items.iter().filter(is_invalid).copied()
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
        // The choices adopted so far. They are released again if the other choice is invalid.
        let mut adopted = Service { inside: Choice::default(), outside: Choice::default(), ..*service };
        let mut adopt = |choice, slots: &Option<Vec<Slot>>, place: &mut Choice| {
            let is_sound = slots.as_deref().is_some_and(|slots| self.ports.adopt_choice(service.id, choice, slots));
            is_sound.then(|| *place = choice)
        };
        let is_sound = adopt(service.inside, &found.inside, &mut adopted.inside)
            .and_then(|()| adopt(service.outside, &found.outside, &mut adopted.outside));
        if is_sound.is_none() {
            self.release_service(&adopted, &mut Vec::new());
        }
        is_sound
    }
}
