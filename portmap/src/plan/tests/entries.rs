//! Plans for single changes, and for tables that another program has changed.

use super::*;

/// If another program changes NUMBERS, the agent continues with the numbers that it has assigned itself.
#[test]
fn given_numbers_stay_given() {
    let mut agent = Agent::new(ROOM);
    let changed = agent.replace(0, one(0, &[1, 2]));
    agent.change(&changed).expect("applies");
    let changed = agent.replace(0, one(0, &[3, 4]));
    agent.change(&changed).expect("applies");
    for tampered in [NextNumbers::default(), NextNumbers { id: 1 << 40, endpoint: 1 << 40 }] {
        let mut snapshot = agent.maps.read().expect("reads");
        snapshot.next_numbers = tampered;
        let mut found = Planner::new(ROOM, snapshot);
        assert!(!agent.planner.is_confirmed_by(&found));
        found.continue_numbers_of(&agent.planner);
        let plan = plan(&mut found, &agent.table, &Changes::default());
        assert_eq!(plan.steps, [Step::SetNextNumbers(agent.planner.ports.next_numbers())]);
    }
}

/// Without enough free endpoint numbers, a frontend is left out with the reason [`Full::Numbers`].
#[test]
fn numbers_that_are_used_up_are_said() {
    let snapshot =
        Snapshot { next_numbers: NextNumbers { id: 0, endpoint: crate::maps::LAST_NUMBER - 1 }, ..Snapshot::default() };
    let mut agent = Agent::new(ROOM);
    agent.planner = Planner::new(ROOM, snapshot);
    let changed = agent.replace(0, one(0, &[1, 2]));
    agent.change(&changed).expect("applies");
    assert_eq!(agent.planner.left_out.values().copied().collect::<Vec<_>>(), [Full::Numbers]);
}

/// A Service that gains the label of another proxy looks deleted. Its address must not count as unallocated in between.
#[test]
fn nothing_is_nobodys_before_a_frontend_goes() {
    let mut agent = Agent::new(ROOM);
    let cidrs = ["10.0.0.0/16".parse().expect("a range")];
    agent.planner.set_cidrs(&cidrs, Owners::Known);
    let changed = agent.replace(0, one(0, &[1, 2]));
    agent.change(&changed).expect("applies");
    agent.planner.set_cidrs(&cidrs, Owners::Unknown);
    let changed = agent.replace(0, Vec::new());
    let plan = plan(&mut agent.planner, &agent.table, &changed);
    assert!(matches!(plan.steps.as_slice(), [Step::SetPrefixes(Family::V4, _), Step::RemoveFrontend(_), ..]), "{plan:?}");
}

#[test]
fn frontends_of_one_service_port_share_their_backends() {
    let mut agent = Agent::new(capacity(8, 3));
    let shape = Shape {
        addresses: vec![1, 2, 3],
        inside: vec![1, 2, 3],
        outside: vec![1, 2, 3],
        v6: false,
        protocol: Protocol::Tcp,
        affinity_timeout: 0,
    };
    let changed = agent.replace(0, entries(0, &shape));
    agent.change(&changed).expect("applies");
    assert!(agent.planner.left_out.is_empty());
}

#[test]
fn a_broken_entry_is_removed_and_written_anew() {
    let mut agent = Agent::new(ROOM);
    let changed = agent.replace(0, one(0, &[1, 2]));
    agent.change(&changed).expect("applies");
    let mut snapshot = agent.maps.read().expect("reads");
    for (_, found) in &mut snapshot.frontends {
        found.inside = None;
    }
    let found = Planner::new(ROOM, snapshot);
    assert!(!agent.planner.is_confirmed_by(&found));
    agent.planner = found;
    let plan = plan(&mut agent.planner, &agent.table, &changed);
    assert!(
        matches!(
            plan.steps.as_slice(),
            [Step::SetNextNumbers(_), Step::RemoveFrontend(_), Step::RemoveName(_), .., Step::InsertFrontend(..)]
        ),
        "{plan:?}"
    );
}
