//! A desired table with given entries instead of entries derived from objects. For tests of later stages.

use std::collections::BTreeMap;

use super::{
    changes::{ChangedEntries, ChangedEntry, Changes},
    claims::{Rank, Table},
};
use crate::model::{AddressKind, Entry, Frontend, FrontendSpec, ObjectName, Precedence};

/// A desired table without ClusterIP owners, and a given entry for each claim.
#[derive(Debug, Default)]
pub struct EntryTable {
    table: Table,
    entries: BTreeMap<(FrontendSpec, ObjectName), Entry>,
}

impl EntryTable {
    /// Replaces the entries of a Service for the frontends `before`, and returns the changes.
    pub fn replace(
        &mut self,
        precedence: &Precedence,
        before: &[FrontendSpec],
        entries: Vec<(FrontendSpec, Entry)>,
    ) -> Changes {
        let service = &precedence.service;
        for spec in before {
            self.entries.remove(&(*spec, service.clone()));
        }
        let claims = entries.iter().map(|(spec, entry)| (*spec, rank(entry))).collect();
        self.entries.extend(entries.into_iter().map(|(spec, entry)| ((spec, service.clone()), entry)));
        self.table.replace(precedence, before, claims)
    }

    /// All claimed frontends, as changes.
    pub fn everything(&self) -> Changes {
        self.table.everything()
    }

    /// All frontends with their winning Service and its entry, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&FrontendSpec, &ObjectName, &Entry)> {
        self.table.iter().filter_map(|(spec, service)| {
            let entry = self.entries.get(&(*spec, service.clone()))?;
            Some((spec, service, entry))
        })
    }

    /// The entries of changed frontends and the owners of changed addresses: the input of `plan`.
    pub fn changed(&self, changes: &Changes) -> ChangedEntries<impl Iterator<Item = ChangedEntry>> {
        self.table.changed(changes, |frontend| self.entry(frontend))
    }

    fn entry(&self, frontend: &Frontend) -> Option<Entry> {
        let (spec, service) = self.table.winner(frontend)?;
        self.entries.get(&(spec, service.clone())).cloned()
    }
}

fn rank(entry: &Entry) -> Rank {
    match entry.kind {
        AddressKind::ClusterIp => Rank::ClusterIp,
        AddressKind::ExternalIp | AddressKind::LoadBalancer => Rank::External,
        AddressKind::NodePort => Rank::NodePort,
    }
}
