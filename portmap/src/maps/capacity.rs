//! Capacities of the maps, and the share of them that is in use.
//!
//! The command line sets a [`Capacity`]; `datapath::load` creates the maps with it, and `plan` leaves out entries beyond it.

use std::fmt;

use portmap_common::capacity;
use serde::Serialize;

/// The capacity of the maps that options decide, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Entries of SERVICES: the frontends of both families together.
    pub services: u32,
    /// Slots of BACKENDS, of each family.
    pub backends: u32,
    /// Entries of AFFINITY: one per client and service port with session affinity.
    pub affinity_clients: u32,
    /// Entries of FLOWS, of each family: two per flow of a client outside the node, four if the client is hidden.
    pub flows: u32,
}

impl Capacity {
    /// Entries of FRONTENDS, of each family: the frontends and the whole ClusterIPs.
    pub fn frontends(self) -> u32 {
        capacity::frontends(self.services)
    }

    /// Entries of AFFINITY that the processes of one cgroup may add in an hour: a sixteenth of all, and 64 at least.
    pub fn affinity_share(self) -> u64 {
        u64::from(self.affinity_clients / 16).max(64)
    }

    /// The flows that may be half open in FLOWS, per second, before others are opened in OPENING. They live for 60 s, and a flow
    /// has up to four entries. So half-open flows take at most a quarter of FLOWS.
    pub fn half_open_flows(self) -> u32 {
        (self.flows / 960).max(1)
    }

    /// Entries of each of `ENDPOINTS_V4`, `ENDPOINTS_V6` and MEMBERS.
    pub fn items(self) -> u32 {
        capacity::items(self.backends)
    }

    /// Entries of one of the maps in [`portmap_common::MEASURED`].
    pub fn of_map(self, name: &str) -> u32 {
        match name {
            "OPENING_V4" | "OPENING_V6" => capacity::OPENING,
            name => self.entries(name).unwrap_or(self.services),
        }
    }

    /// Entries of the map with this name; `None` if no option decides the map's capacity.
    pub(crate) fn entries(self, name: &str) -> Option<u32> {
        match name {
            "SERVICES" | "COUNTERS" | "SOURCE_RANGES_V4" | "SOURCE_RANGES_V6" => Some(self.services),
            "FRONTENDS_V4" | "FRONTENDS_V6" | "NAMES" => Some(self.frontends()),
            "BACKENDS_V4" | "BACKENDS_V6" => Some(self.backends),
            "ENDPOINTS_V4" | "ENDPOINTS_V6" | "MEMBERS" => Some(self.items()),
            "AFFINITY" | "OUTSIDE_AFFINITY" => Some(self.affinity_clients),
            "FLOWS_V4" | "FLOWS_V6" => Some(self.flows),
            _ => None,
        }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            services: capacity::SERVICES,
            backends: capacity::BACKENDS,
            affinity_clients: capacity::AFFINITY_CLIENTS,
            flows: capacity::FLOWS,
        }
    }
}

/// The number of entries in use of one map, and its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fullness {
    /// The map's name.
    pub name: &'static str,
    /// Number of entries in use.
    pub used: u32,
    /// Entries that the map has room for.
    pub capacity: u32,
}

/// The percentage of entries in use from which on a map is nearly full.
const NEARLY_FULL: u64 = 80;

impl Fullness {
    /// Entries in use, in percent of the capacity, rounded down.
    pub fn percent(&self) -> u64 {
        u64::from(self.used) * 100 / u64::from(self.capacity.max(1))
    }

    /// Whether 80 percent of the entries or more are in use.
    pub fn is_nearly_full(&self) -> bool {
        self.percent() >= NEARLY_FULL
    }

    /// The action that gives the map more room; `None` for OPENING, which needs none: a flood fills it, and the kernel then
    /// evicts its oldest entries.
    pub fn remedy(&self) -> Option<&'static str> {
        match self.name {
            "AFFINITY" => Some("restart the agent with a larger --max-affinity-clients"),
            name if name.starts_with("OPENING") => None,
            name if name.starts_with("FLOWS") => Some(
                "to get more room, stop the agent, run portmap cleanup, and start the agent with a larger --max-flows; this ends \
                 the connections of clients outside the node",
            ),
            name if name.starts_with("BACKENDS") || name.starts_with("ENDPOINTS") || name == "MEMBERS" => {
                Some("restart the agent with a larger --max-backends")
            }
            _ => Some("restart the agent with a larger --max-services"),
        }
    }
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} % full ({} of {} entries)", self.name, self.percent(), self.used, self.capacity)
    }
}
