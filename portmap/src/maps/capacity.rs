//! Capacities of the maps, and the share of them that is in use.
//!
//! The command line sets the largest [`Capacity`]. The first set of maps is smaller ([`Capacity::first`]), and the agent makes
//! larger sets as it needs them ([`Capacity::grown`]). `plan` leaves out entries beyond the capacity of the set.

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

/// The factor between the capacities of a set and of the next larger one.
const GROWTH: u32 = 4;

/// The percentage of entries in use from which on a larger set is made. It is below [`NEARLY_FULL`], which is reported.
const GROWS_AT: u64 = 75;

/// The default of [`Capacity::flows`] on a machine with this memory, in bytes: FLOWS of both families take at most a thousandth
/// of it. The number is a power of two, and has bounds.
pub fn flows_for(memory: u64) -> u32 {
    let entries = memory / 1_000 / FLOW_SIZE;
    let exponent = entries.max(1).ilog2().clamp(MIN_FLOWS.ilog2(), MAX_FLOWS.ilog2());
    1 << exponent
}

/// Memory of one entry of `FLOWS_V4` and one of `FLOWS_V6`, in bytes.
const FLOW_SIZE: u64 = 296;
/// Bounds of [`flows_for`].
const MIN_FLOWS: u32 = 32_768;
const MAX_FLOWS: u32 = 1_048_576;

impl Capacity {
    /// The capacity of a first set, within this limit.
    #[must_use]
    pub fn first(self) -> Self {
        let Self { services, backends, .. } = self;
        Self { services: services.min(capacity::FIRST_SERVICES), backends: backends.min(capacity::FIRST_BACKENDS), ..self }
    }

    /// The capacity within this limit for an agent that finds a set of capacity `found`: that of the set, if the set could
    /// have grown to it within the limit; else that of a first set.
    #[must_use]
    pub fn continued(self, found: Self) -> Self {
        let first = self.first();
        Self {
            services: continued(first.services, found.services, self.services),
            backends: continued(first.backends, found.backends, self.backends),
            ..self
        }
    }

    /// The capacity of the set that should replace a set of this capacity, which its maps fill as given. `is_lacking` tells
    /// whether an entry has found no room. `None` if the set suffices, or is as large as the limit.
    #[must_use]
    pub fn grown(self, fullness: &[Fullness], is_lacking: impl Fn(Room) -> bool, limit: Self) -> Option<Self> {
        let is_filled = |room| fullness.iter().any(|map| map.room() == Some(room) && map.percent() >= GROWS_AT);
        let of = |room, entries, limit| if is_lacking(room) || is_filled(room) { next(entries, limit) } else { entries };
        let grown = Self {
            services: of(Room::Services, self.services, limit.services),
            backends: of(Room::Backends, self.backends, limit.backends),
            ..self
        };
        (grown != self).then_some(grown)
    }

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

/// The next larger number of entries, within a limit.
fn next(entries: u32, limit: u32) -> u32 {
    entries.saturating_mul(GROWTH).min(limit).max(entries)
}

fn continued(first: u32, found: u32, limit: u32) -> u32 {
    let mut entries = first;
    while entries < found && entries < limit {
        entries = next(entries, limit);
    }
    if entries == found { found } else { first }
}

/// The option that limits the size of a map which grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// `--max-services`
    Services,
    /// `--max-backends`
    Backends,
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

    /// The option that limits the size of the map; `None` for a map that does not grow.
    fn room(&self) -> Option<Room> {
        match self.name {
            "AFFINITY" => None,
            name if name.starts_with("OPENING") || name.starts_with("FLOWS") => None,
            name if name.starts_with("BACKENDS") || name.starts_with("ENDPOINTS") || name == "MEMBERS" => Some(Room::Backends),
            _ => Some(Room::Services),
        }
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
            _ => match self.room()? {
                Room::Backends => Some("restart the agent with a larger --max-backends"),
                Room::Services => Some("restart the agent with a larger --max-services"),
            },
        }
    }
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} % full ({} of {} entries)", self.name, self.percent(), self.used, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn flows_follow_the_memory() {
        for (memory, flows) in
            [(1, 32_768), (8 * GIB, 32_768), (24 * GIB, 65_536), (128 * GIB, 262_144), (4_096 * GIB, 1_048_576)]
        {
            assert_eq!(flows_for(memory), flows, "{memory} bytes");
        }
    }

    fn capacity(services: u32, backends: u32) -> Capacity {
        Capacity { services, backends, ..Capacity::default() }
    }

    #[test]
    fn a_set_grows_where_room_is_missing_up_to_the_limit() {
        let limit = capacity(100_000, 1_000);
        let first = limit.first();
        assert_eq!((first.services, first.backends), (8_192, 1_000));
        let fullness = |name, used, capacity| [Fullness { name, used, capacity }];
        let (none, all) = (|_| false, |_| true);
        assert_eq!(first.grown(&fullness("FRONTENDS_V6", 12_287, 16_384), none, limit), None);
        assert_eq!(first.grown(&fullness("FRONTENDS_V6", 12_288, 16_384), none, limit), Some(capacity(32_768, 1_000)));
        assert_eq!(first.grown(&[], all, limit), Some(capacity(32_768, 1_000)));
        assert_eq!(capacity(32_768, 1_000).grown(&fullness("SERVICES", 1, 1), none, limit), Some(limit));
        assert_eq!(limit.grown(&fullness("MEMBERS", 1, 1), all, limit), None);
        assert_eq!(first.grown(&fullness("FLOWS_V4", 1, 1), none, limit), None, "flows keep their size");
    }

    #[test]
    fn a_set_is_kept_if_it_could_have_grown_to_its_size() {
        let limit = capacity(100_000, 524_288);
        for services in [8_192, 32_768, 100_000] {
            assert_eq!(limit.continued(capacity(services, 131_072)), capacity(services, 131_072));
        }
        for services in [0, 1_000, 65_536, 400_000] {
            assert_eq!(limit.continued(capacity(services, 32_768)), limit.first(), "{services}");
        }
        assert_eq!(capacity(500, 10).continued(capacity(8_192, 32_768)), capacity(500, 10));
    }
}
