//! The log of problems that last: one line when a problem begins, and for missing frontends a line when all have room again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    maps::{Capacity, Fullness, flows::sweep::UNANSWERED},
    model::{Frontend, ObjectName},
    plan::{Full, Plan},
    resolve::claims::Table,
};

/// The problems that were logged and still last.
#[derive(Default)]
pub struct Problems {
    /// The frontends without room, and the reason for each.
    left_out: BTreeMap<Frontend, Full>,
    /// The number of secondary entries (endpoints, members, source ranges, ClusterIPs) that were left out because their map
    /// is full.
    without_room: usize,
    /// The names of nearly full maps.
    nearly_full: BTreeSet<&'static str>,
    /// The number of refused connections of clients outside the node without an answer.
    unanswered: u32,
    /// The Services whose `healthCheckNodePort` another Service has.
    port_conflicts: Vec<ObjectName>,
}

impl Problems {
    /// The number of frontends without room after the last plan.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// The number of secondary entries (endpoints, members, source ranges, ClusterIPs) without room after the last plan.
    pub fn without_room(&self) -> usize {
        self.without_room
    }

    /// Logs frontends that are left out now and were not after the last plan, and the first secondary entries that are left
    /// out. Logs when all frontends have room again.
    pub fn plan(&mut self, plan: Plan, table: &Table, capacity: Capacity) {
        let Plan { steps: _, left_out, without_room } = plan;
        if without_room > 0 && self.without_room == 0 {
            tracing::error!(
                "{without_room} endpoints, source ranges or ClusterIPs have no room in their maps: UDP sockets may \
                 change their backend, and source ranges may drop calls; restart with a larger --max-backends or --max-services"
            );
        }
        self.without_room = without_room;
        for (frontend, full) in left_out.iter().filter(|(frontend, _)| !self.left_out.contains_key(*frontend)) {
            let owner = table.winner(frontend).map(|(_, service)| service.to_string()).unwrap_or_default();
            tracing::error!("Service {owner}: {frontend} is left out: {}", full.advice(capacity));
        }
        if left_out.is_empty() && !self.left_out.is_empty() {
            tracing::info!("all frontends have room again");
        }
        self.left_out = left_out;
    }

    /// Logs each of these maps once when it becomes nearly full.
    pub fn fullness(&mut self, maps: &[Fullness]) {
        for map in maps {
            let is_known = self.nearly_full.contains(map.name);
            match map.remedy() {
                Some(remedy) if map.is_nearly_full() => {
                    if !is_known {
                        tracing::warn!("{map}; {remedy}");
                    }
                    self.nearly_full.insert(map.name);
                }
                Some(_) | None => drop(self.nearly_full.remove(map.name)),
            }
        }
    }

    /// Logs when the first refused connections of clients outside the node get no answer.
    pub fn unanswered(&mut self, unanswered: u32) {
        if unanswered > 0 && self.unanswered == 0 {
            tracing::warn!("{unanswered} {UNANSWERED}");
        }
        self.unanswered = unanswered;
    }

    /// Logs each Service when another Service begins to keep its `healthCheckNodePort`. `services`: all such Services.
    pub fn port_conflicts(&mut self, services: Vec<ObjectName>) {
        for service in services.iter().filter(|service| !self.port_conflicts.contains(service)) {
            tracing::warn!(
                "Service {service}: another Service has the same healthCheckNodePort and keeps it; give this Service another"
            );
        }
        self.port_conflicts = services;
    }
}
