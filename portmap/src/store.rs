//! Keeps the last known Kubernetes objects, and records the Services that events affect.
//!
//! `source` sends the events; `resolve::desired` takes the affected Services and resolves them. The store does not derive
//! frontends or endpoints from the objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use ipnet::IpNet;
use jiff::Timestamp;
use smallvec::SmallVec;

use crate::{
    collections::HashMap,
    model::{
        Family, ObjectName,
        event::{Event, Object, ObjectKind},
        object::{Node, OtherService, Packed, Service, Slice, SliceHead},
    },
};

/// The last known objects of all kinds, and the Services that have changed.
///
/// The store keeps copies instead of the objects that a source sends. The objects of a source lie in memory between the buffers
/// of its input. The copies are contiguous, so that the allocator can return the other memory to the kernel.
#[derive(Debug, Default)]
pub struct Store {
    /// Services and their EndpointSlices. Boxed, so that an empty slot is small: a large hash map may have more empty slots
    /// than records.
    records: HashMap<ObjectName, Box<Record>>,
    /// The Service of each EndpointSlice. An EndpointSlice without a Service is not stored.
    slices: HashMap<ObjectName, ObjectName>,
    /// The number of records with a Service.
    services: usize,
    others: BTreeMap<ObjectName, OtherService>,
    nodes: BTreeMap<ObjectName, Node>,
    cidrs: BTreeMap<ObjectName, Vec<IpNet>>,
    dirty: Dirty,
    /// For each Service the trigger times ([`SliceHead::triggered`]) since the last [`Self::take_triggers`], or since one of
    /// its slices was deleted.
    triggers: HashMap<ObjectName, Vec<(Family, Timestamp)>>,
    /// Trigger times up to this time are ignored: they belong to changes before the start of the agent. `None` ignores all.
    since: Option<Timestamp>,
    /// The kinds of which a source has sent a complete list.
    listed: BTreeSet<ObjectKind>,
}

/// A Service and its EndpointSlices. `service` is `None` while only slices exist: a slice may exist before and after its
/// Service.
#[derive(Debug, Default)]
struct Record {
    service: Option<Packed<Service>>,
    /// Sorted by name. Nearly every Service has one slice per family.
    slices: SmallVec<[(ObjectName, Packed<Slice>); 1]>,
}

/// The objects from which a Service is resolved.
#[derive(Clone, Debug)]
pub struct ServiceObjects {
    /// The Service's name.
    pub name: ObjectName,
    /// The Service's fields, decoded.
    pub service: Service,
    /// The EndpointSlices of the Service, sorted by name.
    pub slices: Vec<Slice>,
}

/// The Services that events have affected since the last [`Store::take_dirty`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services to resolve, with their state at the last resolution; `None` if the Service did not exist.
    pub services: HashMap<ObjectName, Option<Packed<Service>>>,
    /// Services of other proxies that were written or deleted, with their former state; `None` if they did not exist.
    pub others: BTreeMap<ObjectName, Option<OtherService>>,
}

impl Store {
    /// Stores or removes the objects of an event. Returns whether the Node or a ServiceCIDR may have changed, which may affect
    /// all Services.
    pub fn apply(&mut self, event: Event) -> bool {
        let affects_all = matches!(event.kind(), ObjectKind::Node | ObjectKind::ServiceCidr);
        match event {
            Event::Changed(object) => self.set(&object),
            Event::Removed(kind, name) => self.remove(kind, &name),
            Event::Listed(kind, objects) => self.replace(kind, &objects),
        }
        affects_all
    }

    /// Whether a source has sent a complete list of the kind. Before that, an object may exist that the store does not have.
    pub fn has_listed(&self, kind: ObjectKind) -> bool {
        self.listed.contains(&kind)
    }

    /// Returns the Services that events or marks have affected since the last call, and forgets them.
    pub fn take_dirty(&mut self) -> Dirty {
        mem::take(&mut self.dirty)
    }

    /// Starts to collect trigger times of EndpointSlices, see [`SliceHead::triggered`]. Times up to `since` are ignored.
    pub fn note_triggers(&mut self, since: Timestamp) {
        self.since = Some(since);
    }

    /// Returns the trigger times that were stored since the last call, each with the family of its slice, and forgets them. The
    /// times of a Service are discarded earlier if one of its slices is deleted.
    pub fn take_triggers(&mut self) -> Vec<(Family, Timestamp)> {
        mem::take(&mut self.triggers).into_values().flatten().collect()
    }

    /// Marks all Services for resolution.
    pub fn mark_all(&mut self) {
        for (name, record) in &self.records {
            self.dirty.mark(name, record);
        }
    }

    /// Marks the Services that match `is_affected` for resolution.
    pub fn mark_where(&mut self, is_affected: impl Fn(&Service) -> bool) {
        for (name, record) in &self.records {
            if record.service.as_ref().is_some_and(|service| is_affected(&service.unpack())) {
                self.dirty.mark(name, record);
            }
        }
    }

    /// A Service and its slices; `None` if the Service does not exist.
    pub fn service_objects(&self, name: &ObjectName) -> Option<ServiceObjects> {
        let (name, record) = self.records.get_key_value(name)?;
        let service = record.service.as_ref()?.unpack();
        let slices = record.slices.iter().map(|(_, slice)| slice.unpack()).collect();
        Some(ServiceObjects { name: name.clone(), service, slices })
    }

    /// A Service of another proxy; `None` if it does not exist.
    pub fn other(&self, name: &ObjectName) -> Option<&OtherService> {
        self.others.get(name)
    }

    /// The Node of the agent; `None` if it does not exist.
    pub fn node(&self) -> Option<&Node> {
        self.nodes.values().next()
    }

    /// The valid ranges of all ServiceCIDRs.
    pub fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.cidrs.values().flatten().copied()
    }

    /// The number of stored objects of a kind. EndpointSlices without a Service are not stored.
    pub fn count(&self, kind: ObjectKind) -> usize {
        match kind {
            ObjectKind::Service => self.services,
            ObjectKind::Slice => self.slices.len(),
            ObjectKind::OtherService => self.others.len(),
            ObjectKind::Node => self.nodes.len(),
            ObjectKind::ServiceCidr => self.cidrs.len(),
        }
    }

    fn set(&mut self, object: &Object) {
        match object {
            Object::Service(name, service) => self.set_service(name, Some(service)),
            Object::Slice(head, slice) => self.set_slice(head, slice),
            Object::OtherService(name, service) => self.set_other(name, Some(*service)),
            Object::Node(name, node) => drop(self.nodes.insert(name.copy(), node.clone())),
            Object::ServiceCidr(name, ranges) => drop(self.cidrs.insert(name.copy(), ranges.clone())),
        }
    }

    fn remove(&mut self, kind: ObjectKind, name: &ObjectName) {
        match kind {
            ObjectKind::Service => self.set_service(name, None),
            ObjectKind::Slice => self.remove_slice(name),
            ObjectKind::OtherService => self.set_other(name, None),
            ObjectKind::Node => drop(self.nodes.remove(name)),
            ObjectKind::ServiceCidr => drop(self.cidrs.remove(name)),
        }
    }

    fn set_service(&mut self, name: &ObjectName, service: Option<&Packed<Service>>) {
        if !self.records.contains_key(name) {
            self.records.insert(name.copy(), Box::default());
        }
        let Some(record) = self.records.get_mut(name) else { return };
        if record.service.as_ref() != service {
            self.dirty.mark(name, record);
            self.services += usize::from(service.is_some());
            self.services -= usize::from(record.service.is_some());
            record.service = service.cloned();
        }
        self.drop_if_empty(name);
    }

    fn set_other(&mut self, name: &ObjectName, service: Option<OtherService>) {
        let before = match service {
            Some(service) => self.others.insert(name.copy(), service),
            None => self.others.remove(name),
        };
        self.dirty.others.entry(name.clone()).or_insert(before);
    }

    fn set_slice(&mut self, head: &SliceHead, slice: &Packed<Slice>) {
        let SliceHead { name, service, triggered } = head;
        if self.slices.get(name) != service.as_ref() {
            self.unlink_slice(name);
        }
        let Some(service) = service else { return };
        // The record's key and the other maps share one allocation of the Service's name.
        let service = self.records.get_key_value(service).map_or_else(|| service.copy(), |(name, _)| name.clone());
        let record = self.records.entry(service.clone()).or_default();
        let position = record.slices.binary_search_by(|(known, _)| known.cmp(name));
        if position.is_ok_and(|index| record.slices.get(index).is_some_and(|(_, known)| known == slice)) {
            return;
        }
        self.dirty.mark(&service, record);
        match position.map(|index| record.slices.get_mut(index)) {
            Ok(Some(known)) => known.1 = slice.clone(),
            Ok(None) => {}
            Err(index) => {
                let name = name.copy();
                record.slices.insert(index, (name.clone(), slice.clone()));
                self.slices.insert(name, service.clone());
            }
        }
        if let (Some(triggered), Some(since)) = (triggered, self.since)
            && *triggered > since
            && let Some(family) = slice.unpack().family
        {
            self.triggers.entry(service).or_default().push((family, *triggered));
        }
    }

    /// Removes a deleted slice, and discards the collected trigger times of its Service.
    fn remove_slice(&mut self, name: &ObjectName) {
        if let Some(service) = self.unlink_slice(name) {
            self.triggers.remove(&service);
        }
    }

    /// Removes a slice from the record of its Service, and returns the Service's name. `None` if the slice is unknown.
    fn unlink_slice(&mut self, name: &ObjectName) -> Option<ObjectName> {
        let service = self.slices.remove(name)?;
        if let Some(record) = self.records.get_mut(&service) {
            self.dirty.mark(&service, record);
            record.slices.retain(|(slice, _)| slice != name);
            self.drop_if_empty(&service);
        }
        Some(service)
    }

    fn drop_if_empty(&mut self, name: &ObjectName) {
        if self.records.get(name).is_some_and(|record| record.service.is_none() && record.slices.is_empty()) {
            self.records.remove(name);
        }
    }

    /// Replaces all objects of a kind with a complete list. Objects that are missing from the list are removed.
    fn replace(&mut self, kind: ObjectKind, objects: &[Object]) {
        let mut missing = self.names(kind);
        for object in objects {
            missing.remove(object.name());
            self.set(object);
        }
        for name in missing {
            self.remove(kind, &name);
        }
        self.listed.insert(kind);
    }

    fn names(&self, kind: ObjectKind) -> BTreeSet<ObjectName> {
        match kind {
            ObjectKind::Service => {
                let services = self.records.iter().filter(|(_, record)| record.service.is_some());
                services.map(|(name, _)| name.clone()).collect()
            }
            ObjectKind::Slice => self.slices.keys().cloned().collect(),
            ObjectKind::OtherService => self.others.keys().cloned().collect(),
            ObjectKind::Node => self.nodes.keys().cloned().collect(),
            ObjectKind::ServiceCidr => self.cidrs.keys().cloned().collect(),
        }
    }
}

impl Dirty {
    /// Marks a Service for resolution, with its present state. Called before its record changes; keeps the state of an earlier
    /// mark.
    fn mark(&mut self, name: &ObjectName, record: &Record) {
        if !self.services.contains_key(name) {
            self.services.insert(name.clone(), record.service.clone());
        }
    }
}

#[cfg(test)]
mod tests;
