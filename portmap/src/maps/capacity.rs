//! How many entries the maps hold, and how full they are.

use std::fmt;

use portmap_common::capacity;
use serde::Serialize;

/// How many entries each map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends of each family; and of both together, which is the size of SERVICES.
    pub services: u32,
    /// Slots of BACKENDS, for each family.
    pub backends: u32,
    /// Clients that session affinity remembers.
    pub affinity_clients: u32,
}

impl Capacity {
    /// Entries of FRONTENDS, for each family: those of ClusterIPs as such lie there too.
    pub fn frontends(self) -> u32 {
        capacity::frontends(self.services)
    }

    /// Clients of session affinity that the processes of one cgroup may add in an hour: a sixteenth, but no fewer than 64.
    pub fn affinity_share(self) -> u64 {
        u64::from(self.affinity_clients / 16).max(64)
    }

    /// Entries of each of the maps that hold an [`Item`] of a backend.
    pub fn items(self) -> u32 {
        capacity::items(self.backends)
    }

    /// Entries of the map with this name.
    pub fn of_map(self, name: &str) -> u32 {
        self.entries(name).unwrap_or(self.services)
    }

    /// Entries of the map with this name; `None` for maps whose size no option decides.
    pub(crate) fn entries(self, name: &str) -> Option<u32> {
        match name {
            "SERVICES" | "COUNTERS" | "SOURCE_RANGES_V4" | "SOURCE_RANGES_V6" => Some(self.services),
            "FRONTENDS_V4" | "FRONTENDS_V6" | "NAMES" => Some(self.frontends()),
            "BACKENDS_V4" | "BACKENDS_V6" => Some(self.backends),
            "ENDPOINTS_V4" | "ENDPOINTS_V6" | "MEMBERS" => Some(self.items()),
            "AFFINITY" => Some(self.affinity_clients),
            _ => None,
        }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { services: capacity::SERVICES, backends: capacity::BACKENDS, affinity_clients: capacity::AFFINITY_CLIENTS }
    }
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fullness {
    /// The map's name.
    pub name: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries in all.
    pub capacity: u32,
}

/// From so many percent on a map counts as nearly full.
const NEARLY_FULL: u64 = 80;

impl Fullness {
    /// How full, in percent.
    pub fn percent(&self) -> u64 {
        u64::from(self.used) * 100 / u64::from(self.capacity.max(1))
    }

    /// Whether more may soon find no room.
    pub fn is_nearly_full(&self) -> bool {
        self.percent() >= NEARLY_FULL
    }

    /// The flag that decides the map's size.
    pub fn flag(&self) -> &'static str {
        match self.name {
            "AFFINITY" => "--max-affinity-clients",
            name if name.starts_with("BACKENDS") || name.starts_with("ENDPOINTS") || name == "MEMBERS" => "--max-backends",
            _ => "--max-services",
        }
    }
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} % full ({} of {} entries)", self.name, self.percent(), self.used, self.capacity)
    }
}
