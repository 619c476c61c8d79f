//! An agent that crashes between any two stores of a plan: the tables stay valid, and the next agent completes the plan.

use super::*;

/// Splits a step into its stores. An agent may crash between any two stores.
fn stores(maps: &MemoryMaps, step: &Step) -> Vec<Step> {
    match step {
        Step::WriteBackends(first, backends) => {
            let one = |slot| Backends::new(backends.family(), std::iter::once(slot));
            (*first..).zip(backends.iter()).map(|(index, slot)| Step::WriteBackends(index, one(slot))).collect()
        }
        Step::DescribeService(number, service) => {
            let snapshot = maps.read().expect("reads");
            let found = snapshot.frontends.iter().find(|(_, found)| found.number == *number);
            let before = found.and_then(|(_, found)| found.service).expect("a service in use");
            let Service { affinity_timeout, kind, flags, .. } = before;
            vec![Step::DescribeService(*number, Service { affinity_timeout, kind, flags, ..*service }), step.clone()]
        }
        Step::SetNextNumbers(_)
        | Step::WriteService(..)
        | Step::StoreChoice(..)
        | Step::InsertName(..)
        | Step::RemoveName(_)
        | Step::InsertFrontend(..)
        | Step::RemoveFrontend(_)
        | Step::Insert(_)
        | Step::Remove(_)
        | Step::SetPrefixes(..)
        | Step::RemoveForeign(_) => vec![step.clone()],
    }
}

fn apply_one(maps: &mut MemoryMaps, step: Step) -> Result<(), TestCaseError> {
    let plan = Plan { steps: vec![step], ..Plan::default() };
    apply::apply(maps, &plan).map_err(|error| TestCaseError::fail(format!("{error:#}")))
}

/// Starts another agent on the maps, and checks that it brings them to the desired table.
fn recover(table: &EntryTable, mut maps: MemoryMaps) -> Result<(), TestCaseError> {
    let snapshot = maps.read().expect("reads");
    let mut planner = Planner::new(ROOM, snapshot);
    maps.grace();
    maps.guard();
    let mut everything = table.everything();
    everything.extend(planner.everything());
    for step in plan(&mut planner, table, &everything).steps {
        apply_one(&mut maps, step)?;
    }
    prop_assert!(planner.left_out.is_empty(), "there is room for two of everything");
    let snapshot = maps.read().expect("reads");
    prop_assert_eq!(snapshot.frontends.len(), table.iter().count());
    for (place, _, entry) in table.iter() {
        let frontend = place.on(place.address.expect("no node port"));
        let seen = [ClientLocation::Inside, ClientLocation::Outside].map(|side| maps.look_up(&frontend, side));
        prop_assert_eq!(seen, [Some(answer(&entry.inside)), Some(answer(&entry.outside))]);
    }
    let ids: BTreeSet<u64> = snapshot.frontends.iter().filter_map(|(_, found)| Some(found.service?.id)).collect();
    prop_assert_eq!(snapshot.names.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), ids);
    let recorded = recorded(&snapshot);
    prop_assert!(snapshot.items.is_superset(&recorded), "{:?} lack some of {recorded:?}", snapshot.items);
    // An entry of ENDPOINTS whose number no backend has may stay while a service port has the endpoint.
    let serving: Vec<&Endpoint> = table.iter().filter_map(|(_, _, entry)| entry.serving.as_deref()).flatten().collect();
    let is_served = |endpoint: &Endpoint| serving.iter().any(|it| (it.address, it.port) == (endpoint.address, endpoint.port));
    for item in snapshot.items.difference(&recorded) {
        prop_assert!(matches!(item, Item::Endpoint(_, endpoint) if is_served(endpoint)), "{item:?} belongs to no service port");
    }
    Ok(())
}

impl Agent {
    /// Applies a change store by store, with a crash after each store.
    fn change_with_crashes(&mut self, changed: &Changes) -> Result<(), TestCaseError> {
        let plan = plan(&mut self.planner, &self.table, changed);
        recover(&self.table, self.maps.clone())?;
        for step in &plan.steps {
            for store in stores(&self.maps, step) {
                apply_one(&mut self.maps, store)?;
                recover(&self.table, self.maps.clone())?;
            }
        }
        if self.planner.seal() {
            self.maps.grace();
            self.planner.release();
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_crash_at_any_write_is_completed_by_the_next_start(events in prop::collection::vec(event(), 1..12)) {
        let mut agent = Agent::new(ROOM);
        for event in &events {
            let changed = match event {
                Event::Set(service, shape) => agent.replace(*service, entries(*service, shape)),
                Event::Remove(service) => agent.replace(*service, Vec::new()),
                Event::Grace | Event::Restart => continue,
            };
            agent.change_with_crashes(&changed)?;
        }
    }
}
