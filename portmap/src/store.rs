//! The objects as last heard of, and which Services an event concerns. Between `source` and `resolve`; decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    object::{Service, Slice},
    source::{Event, Kind, Object},
    table::ObjectName,
};

/// All Services and EndpointSlices.
#[derive(Debug, Default)]
pub struct Store {
    services: HashMap<ObjectName, Service>,
    slices: HashMap<ObjectName, Slice>,
    /// Service → its slices, in the order of their names. A slice may come before its Service and stay after it.
    slices_of: HashMap<ObjectName, BTreeSet<ObjectName>>,
    dirty: BTreeSet<ObjectName>,
    listed: BTreeSet<Kind>,
}

impl Store {
    /// Takes in an event.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Changed(Object::Service(service)) => self.set_service(service),
            Event::Changed(Object::Slice(slice)) => self.set_slice(slice),
            Event::Removed(Kind::Service, name) => self.remove_service(&name),
            Event::Removed(Kind::Slice, name) => self.remove_slice(&name),
            Event::Listed(kind, objects) => self.replace(kind, objects),
        }
    }

    /// Whether both kinds have been listed completely at least once. Before, nothing may be concluded from an absence.
    pub fn synced(&self) -> bool {
        self.listed.contains(&Kind::Service) && self.listed.contains(&Kind::Slice)
    }

    /// The Services that events have concerned since the last call, in order.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty)
    }

    /// A Service.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// A Service's slices, in the order of their names.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> + Clone {
        self.slices_of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name))
    }

    /// How many objects are held, by kind.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        BTreeMap::from([(Kind::Service, self.services.len()), (Kind::Slice, self.slices.len())])
    }

    fn set_service(&mut self, service: Service) {
        if self.services.get(&service.name) != Some(&service) {
            self.dirty.insert(service.name.clone());
            self.services.insert(service.name.clone(), service);
        }
    }

    fn remove_service(&mut self, name: &ObjectName) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    fn set_slice(&mut self, slice: Slice) {
        if self.slices.get(&slice.name) == Some(&slice) {
            return;
        }
        self.remove_slice(&slice.name);
        if let Some(service) = &slice.service {
            self.slices_of.entry(service.clone()).or_default().insert(slice.name.clone());
            self.dirty.insert(service.clone());
        }
        self.slices.insert(slice.name.clone(), slice);
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        let Some(service) = self.slices.remove(name).and_then(|slice| slice.service) else {
            return;
        };
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.dirty.insert(service);
    }

    /// Makes the objects of a kind exactly these: what vanished while nobody watched is noticed here.
    fn replace(&mut self, kind: Kind, objects: Vec<Object>) {
        let mut gone: BTreeSet<ObjectName> = match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Slice => self.slices.keys().cloned().collect(),
        };
        for object in objects {
            gone.remove(match &object {
                Object::Service(service) => &service.name,
                Object::Slice(slice) => &slice.name,
            });
            self.apply(Event::Changed(object));
        }
        for name in gone {
            self.apply(Event::Removed(kind, name));
        }
        self.listed.insert(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    fn slice(slice: &str, service: &str) -> Slice {
        Slice {
            name: name(slice),
            service: Some(name(service)),
            address_type: "IPv4".into(),
            ports: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    #[test]
    fn what_vanished_from_a_list_is_removed() {
        let mut store = Store::default();
        store.apply(Event::Listed(Kind::Slice, vec![Object::Slice(slice("a", "web")), Object::Slice(slice("b", "db"))]));
        store.take_dirty();
        store.apply(Event::Listed(Kind::Slice, vec![Object::Slice(slice("a", "web"))]));
        assert_eq!(store.take_dirty(), BTreeSet::from([name("db")]));
        assert_eq!(store.slices_of(&name("db")).count(), 0);
        assert!(!store.synced(), "Services were never listed");
    }

    #[test]
    fn a_slice_that_moves_concerns_both_services() {
        let mut store = Store::default();
        store.apply(Event::Changed(Object::Slice(slice("a", "web"))));
        store.take_dirty();
        store.apply(Event::Changed(Object::Slice(slice("a", "db"))));
        assert_eq!(store.take_dirty(), BTreeSet::from([name("web"), name("db")]));
    }

    #[test]
    fn an_object_that_did_not_change_concerns_nobody() {
        let mut store = Store::default();
        store.apply(Event::Changed(Object::Slice(slice("a", "web"))));
        store.take_dirty();
        store.apply(Event::Changed(Object::Slice(slice("a", "web"))));
        assert!(store.take_dirty().is_empty());
    }
}
