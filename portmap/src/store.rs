//! The objects as last heard of, and what an event concerns. Between `source` and `resolve`; decides nothing.

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

/// All objects that count.
///
/// It keeps copies of what a source sends, and lets a list go only when all of it is copied. That lies in memory between all the text
/// that was read for it; the copies lie side by side, and the rest can be given back.
#[derive(Debug, Default)]
pub struct Store {
    // In boxes: a hash map of tens of thousands may be as good as half empty.
    records: HashMap<ObjectName, Box<Record>>,
    /// Slice → its Service.
    slices: HashMap<ObjectName, ObjectName>,
    services: usize,
    others: BTreeMap<ObjectName, OtherService>,
    nodes: BTreeMap<ObjectName, Node>,
    cidrs: BTreeMap<ObjectName, Vec<IpNet>>,
    dirty: Dirty,
    /// When the changes happened that slices were written for, of each Service.
    triggers: HashMap<ObjectName, Vec<(Family, Timestamp)>>,
    /// Older ones are those of an agent before.
    since: Option<Timestamp>,
    listed: BTreeSet<ObjectKind>,
}

/// A Service with its slices; nearly every one has few. A slice may come before its Service and stay after it.
#[derive(Debug, Default)]
struct Record {
    service: Option<Packed<Service>>,
    /// In the order of their names.
    slices: SmallVec<[(ObjectName, Packed<Slice>); 1]>,
}

/// What a Service's part of the table follows from, beside the node.
#[derive(Clone, Debug)]
pub struct ServiceObjects {
    /// The Service's name.
    pub name: ObjectName,
    /// The Service.
    pub service: Service,
    /// Its slices.
    pub slices: Vec<Slice>,
}

/// What events have concerned.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services to resolve anew, and what they were before.
    pub services: HashMap<ObjectName, Option<Packed<Service>>>,
    /// Services of other proxies, and what they were before.
    pub others: BTreeMap<ObjectName, Option<OtherService>>,
}

impl Store {
    /// Takes in an event. True if the terms may be others under which all Services are resolved: the own Node and the ServiceCIDRs.
    pub fn apply(&mut self, event: Event) -> bool {
        let concerns_all = matches!(event.kind(), ObjectKind::Node | ObjectKind::ServiceCidr);
        match event {
            Event::Changed(object) => self.set(&object),
            Event::Removed(kind, name) => self.remove(kind, &name),
            Event::Listed(kind, objects) => self.replace(kind, &objects),
        }
        concerns_all
    }

    /// Whether a kind has been listed completely at least once. Before, nothing may be concluded from an absence.
    pub fn has_listed(&self, kind: ObjectKind) -> bool {
        self.listed.contains(&kind)
    }

    /// What events have concerned since the last call.
    pub fn take_dirty(&mut self) -> Dirty {
        mem::take(&mut self.dirty)
    }

    /// Notes from now on when the changes happened that slices are written for.
    pub fn note_triggers(&mut self, since: Timestamp) {
        self.since = Some(since);
    }

    /// When the changes happened that slices were written for since the last call.
    pub fn take_triggers(&mut self) -> Vec<(Family, Timestamp)> {
        mem::take(&mut self.triggers).into_values().flatten().collect()
    }

    /// Has all Services resolved anew.
    pub fn mark_all(&mut self) {
        for (name, record) in &self.records {
            self.dirty.mark(name, record);
        }
    }

    /// Has those Services resolved anew of which this holds.
    pub fn mark_where(&mut self, is_concerned: impl Fn(&Service) -> bool) {
        for (name, record) in &self.records {
            if record.service.as_ref().is_some_and(|service| is_concerned(&service.unpack())) {
                self.dirty.mark(name, record);
            }
        }
    }

    /// A Service and its slices, in the order of their names.
    pub fn service_objects(&self, name: &ObjectName) -> Option<ServiceObjects> {
        let (name, record) = self.records.get_key_value(name)?;
        let service = record.service.as_ref()?.unpack();
        let slices = record.slices.iter().map(|(_, slice)| slice.unpack()).collect();
        Some(ServiceObjects { name: name.clone(), service, slices })
    }

    /// A Service of another proxy.
    pub fn other(&self, name: &ObjectName) -> Option<&OtherService> {
        self.others.get(name)
    }

    /// The own Node.
    pub fn node(&self) -> Option<&Node> {
        self.nodes.values().next()
    }

    /// The ranges of all ServiceCIDRs.
    pub fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.cidrs.values().flatten().copied()
    }

    /// How many objects of a kind are held.
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
        // All that belongs to a Service shares its name.
        let service = self.records.get_key_value(service).map_or_else(|| service.copy(), |(name, _)| name.clone());
        let record = self.records.entry(service.clone()).or_default();
        let place = record.slices.binary_search_by(|(known, _)| known.cmp(name));
        if place.is_ok_and(|index| record.slices.get(index).is_some_and(|(_, known)| known == slice)) {
            return;
        }
        self.dirty.mark(&service, record);
        let family = slice.unpack().family;
        match place.map(|index| record.slices.get_mut(index)) {
            Ok(Some(known)) => known.1 = slice.clone(),
            Ok(None) => {}
            Err(index) => {
                let name = name.copy();
                record.slices.insert(index, (name.clone(), slice.clone()));
                self.slices.insert(name, service.clone());
            }
        }
        if let (Some(family), Some(triggered), Some(since)) = (family, triggered, self.since)
            && *triggered > since
        {
            self.triggers.entry(service).or_default().push((family, *triggered));
        }
    }

    /// What a slice was written for that is gone does not count any more.
    fn remove_slice(&mut self, name: &ObjectName) {
        if let Some(service) = self.unlink_slice(name) {
            self.triggers.remove(&service);
        }
    }

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

    /// Makes the objects of a kind exactly these: what vanished while nobody watched is noticed here.
    fn replace(&mut self, kind: ObjectKind, objects: &[Object]) {
        let mut gone = self.names(kind);
        for object in objects {
            gone.remove(object.name());
            self.set(object);
        }
        for name in gone {
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
    /// A Service is about to change, or its slices.
    fn mark(&mut self, name: &ObjectName, record: &Record) {
        if !self.services.contains_key(name) {
            self.services.insert(name.clone(), record.service.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collections::sorted, model::object::Faults};

    fn name(name: &str) -> ObjectName {
        ObjectName::new("default", name)
    }

    fn slice(slice: &str, service: &str) -> Object {
        let head = SliceHead { name: name(slice), service: Some(name(service)), triggered: None };
        let (ports, endpoints, faults) = (Box::default(), Box::default(), Faults::default());
        Object::Slice(head, Packed::new(&Slice { family: Some(Family::V4), ports, endpoints, faults }))
    }

    /// The Services that have been concerned.
    fn concerned(store: &mut Store) -> Vec<String> {
        let services = store.take_dirty().services.into_keys();
        sorted(services.map(|service| service.name().to_owned()))
    }

    #[test]
    fn what_vanished_from_a_list_is_removed() {
        let mut store = Store::default();
        store.apply(Event::Listed(ObjectKind::Slice, vec![slice("a", "web"), slice("b", "db")]));
        store.take_dirty();
        store.apply(Event::Listed(ObjectKind::Slice, vec![slice("a", "web")]));
        assert_eq!(concerned(&mut store), ["db"]);
        assert_eq!((store.count(ObjectKind::Slice), store.records.len()), (1, 1));
        assert!(!store.has_listed(ObjectKind::Service), "Services were never listed");
    }

    #[test]
    fn a_slice_that_moves_concerns_both_services() {
        let mut store = Store::default();
        store.apply(Event::Changed(slice("a", "web")));
        store.take_dirty();
        store.apply(Event::Changed(slice("a", "db")));
        assert_eq!(concerned(&mut store), ["db", "web"]);
    }

    #[test]
    fn an_object_that_did_not_change_concerns_nobody() {
        let mut store = Store::default();
        store.apply(Event::Changed(slice("a", "web")));
        store.take_dirty();
        store.apply(Event::Changed(slice("a", "web")));
        assert!(concerned(&mut store).is_empty());
    }
}
