//! The entries of the desired table, derived from the objects when they are read.

use std::{collections::BTreeMap, net::SocketAddr};

use super::Desired;
use crate::{
    model::{Entry, Frontend, FrontendSpec, ObjectName},
    resolve::{
        ServiceEntries,
        changes::{ChangedEntries, ChangedEntry, Changes},
    },
};

impl Desired {
    /// The entries of changed frontends and the owners of changed addresses: the input of `plan`.
    pub fn changed(&self, changes: &Changes) -> ChangedEntries<impl Iterator<Item = ChangedEntry>> {
        let mut reader = EntryReader::new(self);
        self.table.changed(changes, move |frontend| reader.of_frontend(frontend))
    }

    /// The entries of all frontends and node ports with a winner, in order. All are in memory at once.
    pub fn entries(&self) -> impl Iterator<Item = (FrontendSpec, Entry)> {
        let mut specs: Vec<(&ObjectName, &FrontendSpec)> = self.table.iter().map(|(spec, service)| (service, spec)).collect();
        // Sorted by Service, because the reader keeps the unpacked objects of one Service.
        specs.sort_by_key(|(service, spec)| (*service, spec.port));
        let mut reader = EntryReader::new(self);
        let entry = |(service, spec): (&ObjectName, &FrontendSpec)| Some((*spec, reader.at(spec, service)?));
        let entries: BTreeMap<FrontendSpec, Entry> = specs.into_iter().filter_map(entry).collect();
        entries.into_iter()
    }
}

/// Reads entries. Keeps the unpacked objects of the last Service, because the next entry is usually one of the same Service.
pub struct EntryReader<'a> {
    desired: &'a Desired,
    last: Option<ServiceEntries>,
}

impl<'a> EntryReader<'a> {
    /// A reader that has no objects unpacked yet.
    pub fn new(desired: &'a Desired) -> Self {
        Self { desired, last: None }
    }

    /// The entry of a frontend; `None` if no Service wins the frontend. The objects may be newer than the table: `None` also if
    /// the winner has lost the frontend since.
    pub fn of_frontend(&mut self, frontend: &Frontend) -> Option<Entry> {
        let (spec, service) = self.desired.table.winner(frontend)?;
        self.at(&spec, service)
    }

    /// Whether `given` is in [`Entry::serving`] of the frontend: existing clients may keep this endpoint. False for TCP without
    /// session affinity, whose entries do not list serving endpoints.
    pub fn serves(&mut self, frontend: &Frontend, given: SocketAddr) -> bool {
        let serving = self.of_frontend(frontend).and_then(|entry| entry.serving);
        serving.is_some_and(|serving| serving.iter().any(|end| SocketAddr::new(end.address, end.port) == given))
    }

    fn at(&mut self, spec: &FrontendSpec, service: &ObjectName) -> Option<Entry> {
        let Desired { store, node, .. } = self.desired;
        let last = self.last.take().filter(|last| last.service() == service);
        let service_entries = match last {
            Some(last) => last,
            None => ServiceEntries::new(store.service_objects(service)?, node),
        };
        let entry = service_entries.entry(spec);
        self.last = Some(service_entries);
        entry
    }
}
