//! The maps in memory, for tests: plans are applied to them, and clients are looked up in them as the BPF programs do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use portmap_common::{Choice, Service};

use super::{
    Backends, Capacity, ClientLocation, FollowedFrontend, ForeignKey, Item, Maps, NextNumbers, Prefix, Slot, Snapshot, encode,
};
use crate::model::{Endpoint, Family, Frontend, PerFamily, ServicePort, Verdict};

/// The answer of the tables to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeAnswer {
    /// The client is forwarded to one of these backends.
    Backends(Vec<Endpoint>),
    /// The client gets no backend, but this verdict.
    Verdict(Verdict),
}

/// Maps of a given capacity. Many writes that the kernel would refuse, or that break a precondition of [`Maps`], fail.
/// Limits of ENDPOINTS, MEMBERS and SOURCE_RANGES are not checked.
#[derive(Clone, Debug, Default)]
pub struct MemoryMaps {
    capacity: Capacity,
    frontends: BTreeMap<Frontend, u32>,
    services: BTreeMap<u32, Service>,
    slots: BTreeMap<(Family, u32), Slot>,
    names: BTreeMap<u64, ServicePort>,
    items: BTreeSet<Item>,
    prefixes: PerFamily<Vec<Prefix>>,
    next_numbers: NextNumbers,
    guarded: Guarded,
}

/// Entries that running programs may still read. Until [`MemoryMaps::grace`], `write_service` and `write_backends` fail for
/// them.
#[derive(Clone, Debug, Default)]
struct Guarded {
    services: BTreeSet<u32>,
    slots: BTreeSet<(Family, u32)>,
}

impl MemoryMaps {
    /// Maps of this capacity without entries.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// The answer to a client of this destination; `None` if the tables have no such frontend, or if its entries are
    /// incomplete.
    pub fn look_up(&self, frontend: &Frontend, location: ClientLocation) -> Option<FakeAnswer> {
        let service = self.services.get(self.frontends.get(frontend)?)?;
        let choice = match location {
            ClientLocation::Inside => service.inside,
            ClientLocation::Outside => service.outside,
        };
        Some(match encode::verdict_of(choice) {
            Some(verdict) => FakeAnswer::Verdict(verdict),
            None => FakeAnswer::Backends(self.range(frontend.family(), choice)?.iter().map(|slot| slot.endpoint).collect()),
        })
    }

    /// Simulates a program that begins now and may read every entry that is reachable now. It ends with [`Self::grace`].
    pub fn guard(&mut self) {
        for (frontend, number) in &self.frontends {
            let Some(service) = self.services.get(number) else { continue };
            self.guarded.services.insert(*number);
            for choice in [service.inside, service.outside] {
                let slots = choice.first..choice.first.saturating_add(choice.count);
                self.guarded.slots.extend(slots.map(|slot| (frontend.family(), slot)));
            }
        }
    }

    /// Ends all running programs, as a grace period does.
    pub fn grace(&mut self) {
        self.guarded = Guarded::default();
    }

    fn range(&self, family: Family, choice: Choice) -> Option<Vec<Slot>> {
        let slots = choice.first..choice.first.checked_add(choice.count)?;
        if choice.count == 0 {
            return Some(Vec::new());
        }
        slots.map(|slot| self.slots.get(&(family, slot)).copied()).collect()
    }

    fn service_in_use(&mut self, number: u32) -> Result<&mut Service> {
        let service = self.services.get_mut(&number);
        service.ok_or_else(|| anyhow::anyhow!("service {number} was never written"))
    }
}

impl Maps for MemoryMaps {
    fn write_backends(&mut self, first: u32, backends: &Backends) -> Result<()> {
        let family = backends.family();
        for (index, slot) in (first..).zip(backends.iter()) {
            ensure!(index < self.capacity.backends, "slot {index} is outside of BACKENDS");
            ensure!(!self.guarded.slots.contains(&(family, index)), "slot {index} may still be read by a program");
            self.slots.insert((family, index), slot);
        }
        Ok(())
    }

    fn write_service(&mut self, number: u32, service: &Service) -> Result<()> {
        ensure!(number < self.capacity.services, "service {number} is outside of SERVICES");
        ensure!(!self.guarded.services.contains(&number), "service {number} may still be read by a program");
        self.services.insert(number, *service);
        Ok(())
    }

    fn store_choice(&mut self, number: u32, location: ClientLocation, choice: Choice) -> Result<()> {
        let service = self.service_in_use(number)?;
        match location {
            ClientLocation::Inside => service.inside = choice,
            ClientLocation::Outside => service.outside = choice,
        }
        Ok(())
    }

    fn describe_service(&mut self, number: u32, service: &Service) -> Result<()> {
        let entry = self.service_in_use(number)?;
        *entry = Service { inside: entry.inside, outside: entry.outside, ..*service };
        Ok(())
    }

    fn insert_names(&mut self, names: &[(u64, ServicePort)]) -> Result<()> {
        for (id, owner) in names {
            ensure!(self.names.len() < self.capacity.frontends() as usize, "NAMES is full");
            ensure!(*id < self.next_numbers.id, "id {id} is not below the recorded next id");
            self.names.insert(*id, owner.clone());
        }
        Ok(())
    }

    fn remove_name(&mut self, id: u64) -> Result<()> {
        ensure!(self.names.remove(&id).is_some(), "id {id} has no name");
        Ok(())
    }

    fn insert_frontend(&mut self, frontend: &Frontend, number: u32) -> Result<()> {
        ensure!(self.frontends.len() < self.capacity.services as usize, "FRONTENDS is full");
        ensure!(
            self.frontends.insert(*frontend, number).is_none(),
            "{frontend} is already in FRONTENDS: a frontend must not be updated in place"
        );
        Ok(())
    }

    fn remove_frontend(&mut self, frontend: &Frontend) -> Result<()> {
        ensure!(self.frontends.remove(frontend).is_some(), "{frontend} is not in FRONTENDS");
        Ok(())
    }

    fn insert(&mut self, items: &[Item]) -> Result<()> {
        for item in items {
            if let Item::Endpoint(number, _) = item {
                ensure!(*number < self.next_numbers.endpoint, "endpoint {number} is not below the recorded next number");
            }
            ensure!(self.items.insert(*item), "{item:?} is present already");
        }
        Ok(())
    }

    fn remove(&mut self, item: &Item) -> Result<()> {
        ensure!(self.items.remove(item), "{item:?} is absent");
        Ok(())
    }

    fn set_prefixes(&mut self, family: Family, prefixes: &[Prefix]) -> Result<()> {
        ensure!(
            prefixes.len() <= portmap_common::PREFIXES,
            "{} prefixes are more than {}",
            prefixes.len(),
            portmap_common::PREFIXES
        );
        *self.prefixes.get_mut(family) = prefixes.to_vec();
        Ok(())
    }

    fn remove_foreign(&mut self, key: &ForeignKey) -> Result<()> {
        bail!("{key:?} is absent: no other program writes to maps in memory")
    }

    fn set_next_numbers(&mut self, next: NextNumbers) -> Result<()> {
        ensure!(
            next.id >= self.next_numbers.id && next.endpoint >= self.next_numbers.endpoint,
            "a number would be assigned twice"
        );
        self.next_numbers = next;
        Ok(())
    }

    fn read(&self) -> Result<Snapshot> {
        let followed = |(frontend, number): (&Frontend, &u32)| {
            let service = self.services.get(number).copied();
            let range = |choice| service.and_then(|_| self.range(frontend.family(), choice));
            let (inside, outside) = service.map(|service| (service.inside, service.outside)).unwrap_or_default();
            (*frontend, FollowedFrontend { number: *number, service, inside: range(inside), outside: range(outside) })
        };
        Ok(Snapshot {
            frontends: self.frontends.iter().map(followed).collect(),
            names: self.names.iter().map(|(id, owner)| (*id, Some(owner.clone()))).collect(),
            items: self.items.clone(),
            spoiled: BTreeSet::new(),
            foreign: BTreeSet::new(),
            prefixes: PerFamily::of(|family| Some(self.prefixes.get(family).clone())),
            next_numbers: self.next_numbers,
        })
    }
}
