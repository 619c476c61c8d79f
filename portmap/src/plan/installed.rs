//! The frontends in the maps, each with its service entry.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use portmap_common::Service;

use crate::model::{Frontend, PerFamily};

/// The model of FRONTENDS and SERVICES. Tens of thousands are held as densely as in the maps.
#[derive(Debug, Default)]
pub struct InstalledFrontends {
    /// By the number of the service entry.
    entries: Vec<Option<(Frontend, Service)>>,
    /// The numbers, by their frontends.
    numbers: HashTable<u32>,
    of_family: PerFamily<u32>,
    hasher: RandomState,
}

/// The same frontends with the same entries.
impl PartialEq for InstalledFrontends {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl InstalledFrontends {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// How many there are of each family.
    pub fn of_family(&self) -> PerFamily<u32> {
        self.of_family
    }

    /// The number and the service entry of a frontend.
    pub fn get(&self, frontend: &Frontend) -> Option<(u32, Service)> {
        let is_it = |number: &u32| self.entry(*number).is_some_and(|(it, _)| it == frontend);
        let number = *self.numbers.find(self.hasher.hash_one(frontend), is_it)?;
        self.entry(number).map(|(_, service)| (number, *service))
    }

    /// All of them, by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&Frontend, u32, &Service)> {
        let entries = (0..).zip(&self.entries);
        entries.filter_map(|(number, entry)| entry.as_ref().map(|(frontend, service)| (frontend, number, service)))
    }

    /// Leads a frontend to the entry of a number, in place of the one before: of a new frontend, or of the same.
    pub fn insert(&mut self, frontend: Frontend, number: u32, service: Service) {
        self.remove(&frontend);
        let index = number as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, None);
        }
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = Some((frontend, service));
        }
        *self.of_family.get_mut(frontend.family()) += 1;
        let hash = self.hasher.hash_one(frontend);
        let Self { entries, numbers, hasher, of_family: _ } = self;
        let rehash = |number: &u32| match entries.get(*number as usize) {
            Some(Some((frontend, _))) => hasher.hash_one(frontend),
            Some(None) | None => 0,
        };
        numbers.insert_unique(hash, number, rehash);
    }

    /// Ends a frontend, and returns its number and its service entry.
    pub fn remove(&mut self, frontend: &Frontend) -> Option<(u32, Service)> {
        let hash = self.hasher.hash_one(frontend);
        let Self { entries, numbers, hasher: _, of_family: _ } = self;
        let is_it = |number: &u32| matches!(entries.get(*number as usize), Some(Some((it, _))) if it == frontend);
        let (number, _) = numbers.find_entry(hash, is_it).ok()?.remove();
        let (_, service) = entries.get_mut(number as usize)?.take()?;
        *self.of_family.get_mut(frontend.family()) -= 1;
        Some((number, service))
    }

    fn entry(&self, number: u32) -> Option<&(Frontend, Service)> {
        self.entries.get(number as usize)?.as_ref()
    }
}
