//! The tables as the agent writes them: one trait, with the kernel's maps and a copy in memory behind it.

mod backends;
pub mod bpf;
pub(crate) mod directory;
pub mod encode;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod grace;
mod mapped;
pub mod pin;
pub mod sources;

use std::{collections::BTreeSet, fmt, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use portmap_common::{Choice, Member, Service, V4, V6};
use serde::Serialize;

pub use backends::Backends;

use crate::model::{AddressOwner, Endpoint, Family, Frontend, PerFamily, ServicePort};

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
        self.services.saturating_mul(2)
    }

    /// Clients of session affinity that the processes of one cgroup may add in an hour: a sixteenth, but no fewer than 64.
    pub fn affinity_share(self) -> u64 {
        u64::from(self.affinity_clients / 16).max(64)
    }

    /// Entries of each of the maps that hold an [`Item`] of a backend.
    pub fn items(self) -> u32 {
        (self.backends / 4).max(1_024)
    }

    /// Entries of the map with this name.
    pub fn of_map(self, name: &str) -> u32 {
        match name {
            "AFFINITY" => self.affinity_clients,
            "FRONTENDS_V4" | "FRONTENDS_V6" => self.frontends(),
            "BACKENDS_V4" | "BACKENDS_V6" => self.backends,
            "ENDPOINTS_V4" | "ENDPOINTS_V6" | "MEMBERS" => self.items(),
            _ => self.services,
        }
    }
}

/// No node gives more ids or endpoint numbers than this: whatever says so was written by somebody else, and is not believed.
pub const LAST_NUMBER: u64 = u64::MAX / 2;

impl Default for Capacity {
    fn default() -> Self {
        Self { services: 65_536, backends: 524_288, affinity_clients: 65_536 }
    }
}

/// A value of BACKENDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Where it leads.
    pub endpoint: Endpoint,
    /// The number of this incarnation of the endpoint.
    pub number: u64,
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

/// Something that is in a map or not: inserted once, removed once, never updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// FRONTENDS: whose a ClusterIP is, for the ports that have no frontend.
    Address(IpAddr, AddressOwner),
    /// ENDPOINTS: an endpoint that serves, by its number.
    Endpoint(u64, Endpoint),
    /// MEMBERS: an endpoint that a service port with session affinity chooses from.
    Member(Member),
    /// SOURCE_RANGES: whom the load balancer addresses of the service port with this id admit.
    Range(u64, IpNet),
}

/// A key in a hash or trie that the agent would never write. It stands for nothing, and can only be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignKey {
    /// `FRONTENDS_V4`: of an unknown protocol, or with bytes that should be 0.
    FrontendV4(portmap_common::FrontendKey<V4>),
    /// `FRONTENDS_V6`: of an unknown protocol, or with bytes that should be 0.
    FrontendV6(portmap_common::FrontendKey<V6>),
    /// SOURCE_RANGES: a prefix of so many bits, which ends within the id.
    SourceRange(Family, u32, u64),
}

/// An address range that ClusterIPs lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The range.
    pub range: IpNet,
    /// Whether addresses in it are Services' or nobody's.
    pub allocated: bool,
}

/// For whom a [`Choice`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLocation {
    /// Sockets on this node.
    Inside,
    /// Clients outside the node.
    Outside,
}

/// Numbers that are given once: the next of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextNumbers {
    /// The next `id` of a service port.
    pub id: u64,
    /// The next number of an endpoint.
    pub endpoint: u64,
}

/// The writes that a plan is made of. Each is whole by itself: between any two of them the tables are valid.
pub trait Maps {
    /// Writes consecutive slots that no program reads.
    fn write_backends(&mut self, first: u32, backends: &Backends) -> Result<()>;

    /// Writes a service entry that no frontend leads to, and sets its counters to zero.
    fn write_service(&mut self, number: u32, service: &Service) -> Result<()>;

    /// Replaces a choice of a service entry in use, atomically.
    fn store_choice(&mut self, number: u32, side: ClientLocation, choice: Choice) -> Result<()>;

    /// Replaces everything but the choices of a service entry in use.
    fn describe_service(&mut self, number: u32, service: &Service) -> Result<()>;

    /// Names an id.
    fn insert_name(&mut self, id: u64, owner: &ServicePort) -> Result<()>;

    /// Forgets the name of an id.
    fn remove_name(&mut self, id: u64) -> Result<()>;

    /// Leads a frontend to a service entry.
    fn insert_frontend(&mut self, frontend: &Frontend, number: u32) -> Result<()>;

    /// Ends a frontend.
    fn remove_frontend(&mut self, frontend: &Frontend) -> Result<()>;

    /// Adds an item that is not there.
    fn insert(&mut self, item: &Item) -> Result<()>;

    /// Adds source ranges, each of the service port with this id: as many [`Item::Range`]s, by fewer calls.
    fn insert_ranges(&mut self, ranges: &[(u64, IpNet)]) -> Result<()>;

    /// Takes an item away.
    fn remove(&mut self, item: &Item) -> Result<()>;

    /// Replaces the prefixes of a family, all at once. At most [`portmap_common::PREFIXES`].
    fn set_prefixes(&mut self, family: Family, prefixes: &[Prefix]) -> Result<()>;

    /// Removes a key that the agent would never write.
    fn remove_foreign(&mut self, key: &ForeignKey) -> Result<()>;

    /// Records the numbers given so far, before any of them is used.
    fn set_marks(&mut self, marks: NextNumbers) -> Result<()>;

    /// Reads everything back.
    fn read(&self) -> Result<Snapshot>;
}

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Each frontend and what it leads to, in order.
    pub frontends: Vec<(Frontend, FollowedFrontend)>,
    /// Each id that has a name, in order; `None` where the name is not one that the agent would write.
    pub names: Vec<(u64, Option<ServicePort>)>,
    /// Everything that is in a map or not.
    pub items: BTreeSet<Item>,
    /// Items whose value is not one that the agent would write.
    pub spoiled: BTreeSet<Item>,
    /// Keys that the agent would never write.
    pub foreign: BTreeSet<ForeignKey>,
    /// The prefixes of each family; `None` where they are not what the agent would write.
    pub prefixes: PerFamily<Option<Vec<Prefix>>>,
    /// Numbers given so far.
    pub marks: NextNumbers,
}

/// Where a frontend leads, followed through all three tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedFrontend {
    /// The service entry's number.
    pub number: u32,
    /// The service entry; `None` if the frontend's value is not one that the agent would write.
    pub service: Option<Service>,
    /// The backends of the inside choice; `None` if it leaves the map.
    pub inside: Option<Vec<Slot>>,
    /// The backends of the outside choice; `None` if it leaves the map.
    pub outside: Option<Vec<Slot>>,
}
