//! The objects as last heard of, and what an event concerns. Between `source` and `resolve`; decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    collections::HashMap,
    object::{Node, OtherService, Service, Slice},
    source::{Event, Kind, Object},
    table::{Family, ObjectName},
};

/// All objects that count.
#[derive(Debug, Default)]
pub struct Store {
    // In boxes: a hash map of tens of thousands may be as good as half empty.
    services: HashMap<ObjectName, Box<Service>>,
    slices: HashMap<ObjectName, Box<Slice>>,
    /// Service → its slices, in the order of their names; nearly every one has few. A slice may come before its Service and stay
    /// after it.
    slices_of: HashMap<ObjectName, Vec<ObjectName>>,
    others: HashMap<ObjectName, OtherService>,
    nodes: HashMap<ObjectName, Node>,
    cidrs: BTreeMap<ObjectName, Vec<IpNet>>,
    dirty: Dirty,
    /// When the changes happened that slices were written for, of each Service.
    triggers: HashMap<ObjectName, Vec<(Family, Timestamp)>>,
    /// Older ones are those of an agent before.
    since: Option<Timestamp>,
    listed: BTreeSet<Kind>,
}

/// What events have concerned.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services to resolve anew.
    pub services: BTreeSet<ObjectName>,
    /// Services of other proxies.
    pub others: BTreeSet<ObjectName>,
    /// Whether the own Node may be another.
    pub node: bool,
    /// Whether the ServiceCIDRs may be others.
    pub cidrs: bool,
}

impl Store {
    /// Takes in an event.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Changed(object) => self.set(object),
            Event::Removed(kind, name) => self.remove(kind, &name),
            Event::Listed(kind, objects) => self.replace(kind, objects),
        }
    }

    /// Whether a kind has been listed completely at least once. Before, nothing may be concluded from an absence.
    pub fn has_listed(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    /// What events have concerned since the last call.
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// Notes from now on when the changes happened that slices are written for.
    pub fn note_triggers(&mut self, since: Timestamp) {
        self.since = Some(since);
    }

    /// When the changes happened that slices were written for since the last call.
    pub fn take_triggers(&mut self) -> Vec<(Family, Timestamp)> {
        std::mem::take(&mut self.triggers).into_values().flatten().collect()
    }

    /// Has all Services resolved anew.
    pub fn mark_all(&mut self) {
        self.dirty.services.extend(self.services.keys().cloned());
    }

    /// A Service.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name).map(AsRef::as_ref)
    }

    /// A Service of another proxy.
    pub fn other(&self, name: &ObjectName) -> Option<&OtherService> {
        self.others.get(name)
    }

    /// A Service's slices, in the order of their names.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> + Clone {
        self.slices_of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name)).map(AsRef::as_ref)
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
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Service => self.services.len(),
            Kind::Slice => self.slices.len(),
            Kind::OtherService => self.others.len(),
            Kind::Node => self.nodes.len(),
            Kind::ServiceCidr => self.cidrs.len(),
        }
    }

    fn set(&mut self, object: Object) {
        match object {
            Object::Service(service) => self.set_service(service),
            Object::Slice(slice) => self.set_slice(slice),
            Object::OtherService(service) => {
                self.dirty.others.insert(service.name.clone());
                self.others.insert(service.name.clone(), service);
            }
            Object::Node(name, node) => {
                self.dirty.node = true;
                self.nodes.insert(name, node);
            }
            Object::ServiceCidr(name, ranges) => {
                self.dirty.cidrs = true;
                self.cidrs.insert(name, ranges);
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::Service => self.remove_service(name),
            Kind::Slice => self.remove_slice(name),
            Kind::OtherService => {
                self.others.remove(name);
                self.dirty.others.insert(name.clone());
            }
            Kind::Node => {
                self.nodes.remove(name);
                self.dirty.node = true;
            }
            Kind::ServiceCidr => {
                self.cidrs.remove(name);
                self.dirty.cidrs = true;
            }
        }
    }

    fn set_service(&mut self, service: Service) {
        if self.services.get(&service.name).is_none_or(|known| **known != service) {
            self.dirty.services.insert(service.name.clone());
            self.services.insert(service.name.clone(), Box::new(service));
        }
    }

    fn remove_service(&mut self, name: &ObjectName) {
        if self.services.remove(name).is_some() {
            self.dirty.services.insert(name.clone());
        }
    }

    fn set_slice(&mut self, slice: Slice) {
        if self.slices.get(&slice.name).is_some_and(|known| **known == slice) {
            return;
        }
        self.unlink_slice(&slice.name);
        if let Some(service) = &slice.service {
            if let (Some(family), Some(triggered), Some(since)) = (slice.family, slice.triggered, self.since)
                && triggered > since
            {
                self.triggers.entry(service.clone()).or_default().push((family, triggered));
            }
            let all = self.slices_of.entry(service.clone()).or_insert_with(|| Vec::with_capacity(1));
            if let Err(index) = all.binary_search(&slice.name) {
                all.insert(index, slice.name.clone());
            }
            self.dirty.services.insert(service.clone());
        }
        self.slices.insert(slice.name.clone(), Box::new(slice));
    }

    /// What a slice was written for that is gone does not count any more.
    fn remove_slice(&mut self, name: &ObjectName) {
        if let Some(service) = self.unlink_slice(name) {
            self.triggers.remove(&service);
        }
    }

    fn unlink_slice(&mut self, name: &ObjectName) -> Option<ObjectName> {
        let service = self.slices.remove(name).and_then(|slice| slice.service)?;
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.retain(|slice| slice != name);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.dirty.services.insert(service.clone());
        Some(service)
    }

    /// Makes the objects of a kind exactly these: what vanished while nobody watched is noticed here.
    fn replace(&mut self, kind: Kind, objects: Vec<Object>) {
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

    fn names(&self, kind: Kind) -> BTreeSet<ObjectName> {
        match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Slice => self.slices.keys().cloned().collect(),
            Kind::OtherService => self.others.keys().cloned().collect(),
            Kind::Node => self.nodes.keys().cloned().collect(),
            Kind::ServiceCidr => self.cidrs.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Faults;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    fn slice(slice: &str, service: &str) -> Slice {
        Slice {
            name: name(slice),
            service: Some(name(service)),
            family: Some(Family::V4),
            ports: Box::default(),
            endpoints: Box::default(),
            triggered: None,
            faults: Faults::default(),
        }
    }

    #[test]
    fn what_vanished_from_a_list_is_removed() {
        let mut store = Store::default();
        store.apply(Event::Listed(Kind::Slice, vec![Object::Slice(slice("a", "web")), Object::Slice(slice("b", "db"))]));
        store.take_dirty();
        store.apply(Event::Listed(Kind::Slice, vec![Object::Slice(slice("a", "web"))]));
        assert_eq!(store.take_dirty().services, BTreeSet::from([name("db")]));
        assert_eq!(store.slices_of(&name("db")).count(), 0);
        assert!(!store.has_listed(Kind::Service), "Services were never listed");
    }

    #[test]
    fn a_slice_that_moves_concerns_both_services() {
        let mut store = Store::default();
        store.apply(Event::Changed(Object::Slice(slice("a", "web"))));
        store.take_dirty();
        store.apply(Event::Changed(Object::Slice(slice("a", "db"))));
        assert_eq!(store.take_dirty().services, BTreeSet::from([name("web"), name("db")]));
    }

    #[test]
    fn an_object_that_did_not_change_concerns_nobody() {
        let mut store = Store::default();
        store.apply(Event::Changed(Object::Slice(slice("a", "web"))));
        store.take_dirty();
        store.apply(Event::Changed(Object::Slice(slice("a", "web"))));
        assert!(store.take_dirty().services.is_empty());
    }
}
