//! What the agent says of trouble that lasts: once when it begins, and once when it ends.

use std::collections::BTreeMap;

use crate::{
    maps::{Capacity, Fullness},
    model::{Frontend, ObjectName},
    plan::{Full, Plan},
    resolve::claims::Table,
};

/// What was said.
#[derive(Default)]
pub struct Problems {
    left_out: BTreeMap<Frontend, Full>,
    /// How much else found no room.
    without_room: usize,
    /// Maps that were nearly full.
    nearly_full: Vec<&'static str>,
    /// Services without a server at their `healthCheckNodePort`, which is another's.
    check_losers: Vec<ObjectName>,
}

impl Problems {
    /// How many frontends are left out.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// How much else found no room.
    pub fn without_room(&self) -> usize {
        self.without_room
    }

    /// Says what found no room.
    pub fn plan(&mut self, plan: Plan, table: &Table, capacity: Capacity) {
        let Plan { steps: _, left_out, without_room } = plan;
        if without_room > 0 && self.without_room == 0 {
            tracing::error!(
                "{without_room} endpoints, source ranges or ClusterIPs are not in their maps, which are full: UDP sockets may \
                 change their backend, and clients be kept out; restart with a larger --max-backends or --max-services"
            );
        }
        self.without_room = without_room;
        for (frontend, full) in left_out.iter().filter(|(frontend, _)| !self.left_out.contains_key(*frontend)) {
            let owner = table.winner(frontend).map(|(_, service)| service.to_string()).unwrap_or_default();
            tracing::error!("Service {owner}: {frontend} is left out: {}", full.advice(capacity));
        }
        if left_out.is_empty() && !self.left_out.is_empty() {
            tracing::info!("there is room again for all frontends");
        }
        self.left_out = left_out;
    }

    /// Warns of maps before they are full.
    pub fn fullness(&mut self, maps: &[Fullness]) {
        let nearly_full = || maps.iter().filter(|map| map.is_nearly_full());
        for map in nearly_full().filter(|map| !self.nearly_full.contains(&map.name)) {
            tracing::warn!("{map}; there is room for more after a restart with a larger {}", map.flag());
        }
        self.nearly_full = nearly_full().map(|map| map.name).collect();
    }

    /// Says who has no server at its `healthCheckNodePort`.
    pub fn check_losers(&mut self, losers: Vec<ObjectName>) {
        for loser in losers.iter().filter(|loser| !self.check_losers.contains(loser)) {
            tracing::warn!("Service {loser}: its healthCheckNodePort is another Service's, and is left to it");
        }
        self.check_losers = losers;
    }
}
