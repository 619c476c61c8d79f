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

/// The names of the Services that the store has marked for resolution, sorted.
fn marked(store: &mut Store) -> Vec<String> {
    let services = store.take_dirty().services.into_keys();
    sorted(services.map(|service| service.name().to_owned()))
}

#[test]
fn an_object_that_is_missing_from_a_list_is_removed() {
    let mut store = Store::default();
    store.apply(Event::Listed(ObjectKind::Slice, vec![slice("a", "web"), slice("b", "db")]));
    store.take_dirty();
    store.apply(Event::Listed(ObjectKind::Slice, vec![slice("a", "web")]));
    assert_eq!(marked(&mut store), ["db"]);
    assert_eq!((store.count(ObjectKind::Slice), store.records.len()), (1, 1));
    assert!(!store.has_listed(ObjectKind::Service), "Services were never listed");
}

#[test]
fn a_slice_that_moves_affects_both_services() {
    let mut store = Store::default();
    store.apply(Event::Changed(slice("a", "web")));
    store.take_dirty();
    store.apply(Event::Changed(slice("a", "db")));
    assert_eq!(marked(&mut store), ["db", "web"]);
}

#[test]
fn an_unchanged_object_affects_no_service() {
    let mut store = Store::default();
    store.apply(Event::Changed(slice("a", "web")));
    store.take_dirty();
    store.apply(Event::Changed(slice("a", "web")));
    assert!(marked(&mut store).is_empty());
}
