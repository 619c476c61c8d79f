//! From a changed table to the writes that bring the kernel's maps there. Pure: it keeps a model of the maps, and plans
//! against it. Between `resolve` and `apply`.
//!
//! The order of the steps is what makes each of them safe: backends before the choice that leads to them, a service entry
//! before its frontend; and nothing is written to that a program might still read.

mod ports;
pub mod slots;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use portmap_common::{Choice, Service};

use crate::{
    maps::{Capacity, Found, Marks, Side, Slot, Snapshot},
    table::{Entry, Family, Frontend, ServicePort, Table},
};
use ports::Ports;
use slots::{Range, Slots};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`crate::maps::Maps::set_marks`]
    SetMarks(Marks),
    /// [`crate::maps::Maps::write_backends`]
    WriteBackends(Family, u32, Vec<Slot>),
    /// [`crate::maps::Maps::write_service`]
    WriteService(u32, Service),
    /// [`crate::maps::Maps::store_choice`]
    StoreChoice(u32, Side, Choice),
    /// [`crate::maps::Maps::describe_service`]
    DescribeService(u32, Service),
    /// [`crate::maps::Maps::insert_name`]
    InsertName(u32, ServicePort),
    /// [`crate::maps::Maps::remove_name`]
    RemoveName(u32),
    /// [`crate::maps::Maps::insert_frontend`]
    InsertFrontend(Frontend, u32),
    /// [`crate::maps::Maps::remove_frontend`]
    RemoveFrontend(Frontend),
}

/// Why a frontend cannot be served as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Full {
    /// SERVICES has no free entry.
    Services,
    /// BACKENDS of this family has no free range of that length.
    Backends(Family),
}

impl Full {
    /// Which map is full, and what to do about it.
    pub fn advice(self, capacity: Capacity) -> String {
        match self {
            Self::Services => {
                format!("SERVICES is full with {} entries; raise --max-services (needs: portmap cleanup)", capacity.services)
            }
            Self::Backends(family) => format!(
                "BACKENDS_{family:?} has no room among its {} slots; raise --max-backends (needs: portmap cleanup)",
                capacity.backends
            ),
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
}

/// The model of the maps.
#[derive(Debug)]
pub struct Planner {
    installed: HashMap<Frontend, Installed>,
    numbers: Slots,
    ports: Ports,
    left_out: BTreeMap<Frontend, Full>,
    /// What was found in the kernel and cannot be built upon.
    stray_frontends: BTreeSet<Frontend>,
    stray_names: BTreeSet<u32>,
    recorded: Marks,
    room_came: bool,
}

/// A frontend in the maps.
#[derive(Clone, Copy, Debug)]
struct Installed {
    number: u32,
    service: Service,
}

/// The steps of a plan by phase: what makes room comes first.
#[derive(Default)]
struct Phases {
    remove: Vec<Step>,
    write: Vec<Step>,
}

impl Planner {
    /// A model of the maps as they are. What does not fit together there will be removed, and written anew, by the next plan.
    ///
    /// The caller waits for a grace period before it applies a plan: programs may still read what an earlier agent retired.
    pub fn new(capacity: Capacity, found: Snapshot) -> Self {
        let mut planner = Self {
            installed: HashMap::new(),
            numbers: Slots::new(capacity.services),
            ports: Ports::new(capacity.backends, found.marks),
            left_out: BTreeMap::new(),
            stray_frontends: BTreeSet::new(),
            stray_names: BTreeSet::new(),
            recorded: found.marks,
            room_came: false,
        };
        let names: HashMap<u32, Option<ServicePort>> = found.names.into_iter().collect();
        for (frontend, found) in found.frontends {
            if planner.adopt(frontend, &found, &names).is_none() {
                planner.stray_frontends.insert(frontend);
            }
        }
        let used: BTreeSet<u32> = planner.installed.values().map(|installed| installed.service.id).collect();
        planner.stray_names = names.into_keys().filter(|id| !used.contains(id)).collect();
        planner
    }

    fn adopt(&mut self, frontend: Frontend, found: &Found, names: &HashMap<u32, Option<ServicePort>>) -> Option<()> {
        let service = found.service?;
        let number = Range { first: found.number, count: 1 };
        if !self.numbers.reserve(number) {
            return None;
        }
        if self.adopt_service(frontend.family(), &service, found, names).is_none() {
            self.numbers.retire(number);
            return None;
        }
        self.installed.insert(frontend, Installed { number: found.number, service });
        Some(())
    }

    fn adopt_service(
        &mut self,
        family: Family,
        service: &Service,
        found: &Found,
        names: &HashMap<u32, Option<ServicePort>>,
    ) -> Option<()> {
        let owner = names.get(&service.id)?.as_ref()?;
        if !self.ports.adopt(service.id, owner, family) {
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

    /// Plans the writes that make these frontends what the table says.
    pub fn plan(&mut self, table: &Table, changed: &BTreeSet<Frontend>) -> Plan {
        let mut phases = Phases::default();
        phases.remove.extend(std::mem::take(&mut self.stray_frontends).into_iter().map(Step::RemoveFrontend));
        phases.remove.extend(std::mem::take(&mut self.stray_names).into_iter().map(Step::RemoveName));
        let retried: Vec<Frontend> =
            if std::mem::take(&mut self.room_came) { self.left_out.keys().copied().collect() } else { Vec::new() };
        for frontend in changed.iter().chain(retried.iter().filter(|frontend| !changed.contains(frontend))) {
            self.left_out.remove(frontend);
            match table.get(frontend) {
                None => self.remove(frontend, &mut phases),
                Some(entry) => {
                    if let Err(full) = self.set(frontend, entry, &mut phases) {
                        self.left_out.insert(*frontend, full);
                    }
                }
            }
        }
        let mut steps = Vec::with_capacity(1 + phases.remove.len() + phases.write.len());
        if self.recorded != self.ports.marks() {
            self.recorded = self.ports.marks();
            steps.push(Step::SetMarks(self.recorded));
        }
        steps.append(&mut phases.remove);
        steps.append(&mut phases.write);
        Plan { steps, left_out: self.left_out.clone() }
    }

    /// The frontends that the maps hold.
    pub fn installed(&self) -> impl Iterator<Item = Frontend> {
        self.installed.keys().copied()
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
        let before = self.installed.get(frontend).copied();
        let mut steps = Vec::new();
        let service = self.build(frontend.family(), entry, &mut steps)?;
        let number = match before {
            Some(before) => {
                self.forget_service(&before.service, &mut phases.remove);
                update(before, &service, &mut steps);
                before.number
            }
            None => {
                let Some(range) = self.numbers.allocate(1) else {
                    self.forget_service(&service, &mut Vec::new());
                    return Err(Full::Services);
                };
                steps.push(Step::WriteService(range.first, service));
                steps.push(Step::InsertFrontend(*frontend, range.first));
                range.first
            }
        };
        phases.write.append(&mut steps);
        self.installed.insert(*frontend, Installed { number, service });
        Ok(())
    }

    /// The service entry for a table entry, with its id and its backends.
    fn build(&mut self, family: Family, entry: &Entry, steps: &mut Vec<Step>) -> Result<Service, Full> {
        let Entry { owner, kind, inside, outside, affinity_timeout } = entry;
        let id = self.ports.enter(owner, family, steps);
        let mut service = Service { id, affinity_timeout: *affinity_timeout, kind: *kind as u8, ..Service::default() };
        let chosen = self.ports.choose(id, inside, steps).and_then(|choice| {
            service.inside = choice;
            service.outside = self.ports.choose(id, outside, steps)?;
            Ok(())
        });
        match chosen {
            Ok(()) => Ok(service),
            Err(full) => {
                self.forget_service(&service, &mut Vec::new());
                Err(full)
            }
        }
    }

    fn remove(&mut self, frontend: &Frontend, phases: &mut Phases) {
        if let Some(installed) = self.installed.remove(frontend) {
            phases.remove.push(Step::RemoveFrontend(*frontend));
            self.forget_service(&installed.service, &mut phases.remove);
            self.numbers.retire(Range { first: installed.number, count: 1 });
        }
    }

    /// Ends the use that a service entry makes of its id and its backends.
    fn forget_service(&mut self, service: &Service, steps: &mut Vec<Step>) {
        self.ports.release(service.id, service.inside);
        self.ports.release(service.id, service.outside);
        if self.ports.leave(service.id) {
            steps.push(Step::RemoveName(service.id));
        }
    }
}

/// Rewrites what differs of a service entry in use.
fn update(before: Installed, service: &Service, steps: &mut Vec<Step>) {
    let Installed { number, service: before } = before;
    if before.inside != service.inside {
        steps.push(Step::StoreChoice(number, Side::Inside, service.inside));
    }
    if before.outside != service.outside {
        steps.push(Step::StoreChoice(number, Side::Outside, service.outside));
    }
    if (Service { inside: service.inside, outside: service.outside, ..before }) != *service {
        steps.push(Step::DescribeService(number, *service));
    }
}

#[cfg(test)]
mod tests;
