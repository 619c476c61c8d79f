//! Plans for maps that are too small.

use super::*;

#[test]
fn what_worked_keeps_working_when_the_maps_are_full() {
    let mut agent = Agent::new(capacity(2, 8));
    for service in 0..3 {
        let changed = agent.replace(service, one(service, &[1, 2]));
        agent.change(&changed).expect("applies");
    }
    let full: Vec<Full> = agent.planner.left_out.values().copied().collect();
    assert_eq!(full, [Full::Services]);
    let changed = agent.replace(0, Vec::new());
    agent.change(&changed).expect("applies");
    assert_eq!(agent.planner.left_out.len(), 1, "not before the grace period");
    agent.grace().expect("applies");
    assert!(agent.planner.left_out.is_empty(), "served as soon as there is room");
}

/// Frontends without room must cause no steps and use up no numbers, however often they are planned.
#[test]
fn full_maps_rest() {
    let mut shape = Shape {
        addresses: vec![0],
        inside: vec![1, 2],
        outside: vec![3, 4, 5, 6, 7, 8],
        v6: false,
        protocol: Protocol::Udp,
        affinity_timeout: 60,
    };
    // The full map is in turn: SERVICES, BACKENDS for the first set of backends, BACKENDS for the second set.
    for (reserved, full) in [
        (capacity(1, 64), Full::Services),
        (capacity(8, 9), Full::Backends(Family::V4, 2)),
        (capacity(8, 13), Full::Backends(Family::V4, 6)),
    ] {
        let mut agent = Agent::new(reserved);
        for service in 0..3 {
            shape.addresses = vec![service];
            let changed = agent.replace(service, entries(service, &shape));
            agent.change(&changed).expect("applies");
        }
        assert_eq!(agent.planner.left_out.values().copied().collect::<Vec<_>>(), [full, full]);
        let (next_numbers, used) = (agent.planner.ports.next_numbers(), agent.planner.numbers.used());
        for _ in 0..3 {
            assert!(!agent.planner.seal(), "{full:?}: nothing was given up");
            let plan = plan(&mut agent.planner, &agent.table, &agent.table.everything());
            assert!(plan.steps.is_empty(), "{full:?}: {:?}", plan.steps);
        }
        assert_eq!((agent.planner.ports.next_numbers(), agent.planner.numbers.used()), (next_numbers, used), "{full:?}");
        let snapshot = agent.maps.read().expect("reads");
        assert_eq!(snapshot.items, recorded(&snapshot), "{full:?}: a left-out frontend has no secondary entries");
    }
}

/// Endpoints without room in ENDPOINTS are inserted when other endpoints are removed.
#[test]
fn what_is_remembered_finds_room_later() {
    let reserved = capacity(8, 64);
    let mut agent = Agent::new(reserved);
    let shape = |service: u8, first: u8| Shape {
        addresses: vec![service],
        inside: (first..first + 30).collect(),
        outside: (first..first + 30).collect(),
        v6: false,
        protocol: Protocol::Udp,
        affinity_timeout: 0,
    };
    // Two sets of 30 backends fit into BACKENDS, but only one set fits into ENDPOINTS.
    agent.planner.items = Items::of_room(reserved, 30);
    for service in 0..2 {
        let changed = agent.replace(service, entries(service, &shape(service, service * 40)));
        agent.change(&changed).expect("applies");
    }
    assert_eq!(agent.planner.items.without_room(), 30);
    let changed = agent.replace(0, Vec::new());
    agent.change(&changed).expect("applies");
    agent.grace().expect("applies");
    assert_eq!(agent.planner.items.without_room(), 0);
    let snapshot = agent.maps.read().expect("reads");
    assert_eq!(snapshot.items, recorded(&snapshot));
}

/// ClusterIPs displace node ports when SERVICES is full, because clients can use a node port at another node.
#[test]
fn node_ports_give_way_when_room_is_short() {
    let mut agent = Agent::new(capacity(3, 8));
    let mut node_ports = one(0, &[1, 2]);
    for (last, copy) in [(1, node_ports[0].clone()), (2, node_ports[0].clone())] {
        node_ports.push((FrontendSpec { address: Some(address(false, 100 + last)), ..copy.0 }, copy.1));
    }
    for (_, entry) in &mut node_ports {
        entry.kind = AddressKind::NodePort;
    }
    let changed = agent.replace(0, node_ports);
    agent.change(&changed).expect("applies");
    assert!(agent.planner.left_out.is_empty());
    for service in [1, 2] {
        let changed = agent.replace(service, one(service, &[1, 2]));
        agent.change(&changed).expect("applies");
    }
    agent.grace().expect("applies");
    agent.grace().expect("applies");
    for service in [1, 2] {
        let (place, entry) = one(service, &[1, 2]).remove(0);
        let frontend = place.on(place.address.expect("an address"));
        assert_eq!(agent.see(&frontend)[0], Some(answer(&entry.inside)), "{frontend}");
    }
    assert_eq!(agent.planner.left_out.len(), 2, "one node port is served still");
    let plan = plan(&mut agent.planner, &agent.table, &Changes::default());
    assert!(plan.steps.is_empty(), "it comes to rest: {plan:?}");
}
