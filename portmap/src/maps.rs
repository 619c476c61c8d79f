//! The tables as the agent writes them: one trait, with the kernel's maps and a copy in memory behind it.

mod backends;
pub mod bpf;
mod capacity;
pub(crate) mod directory;
pub mod encode;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod grace;
mod mapped;
pub mod pin;
mod snapshot;
pub mod sources;

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use portmap_common::{Choice, Member, Service, V4, V6};

pub use backends::Backends;
pub use capacity::{Capacity, Fullness};
pub use snapshot::{FollowedFrontend, Snapshot};

use crate::model::{AddressOwner, Endpoint, Family, Frontend, ServicePort};

/// No node gives more ids or endpoint numbers than this: whatever says so was written by somebody else, and is not believed.
pub const LAST_NUMBER: u64 = u64::MAX / 2;

/// A value of BACKENDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Where it leads.
    pub endpoint: Endpoint,
    /// The number of this incarnation of the endpoint.
    pub number: u64,
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
    fn set_marks(&mut self, next: NextNumbers) -> Result<()>;

    /// Reads everything back.
    fn read(&self) -> Result<Snapshot>;
}
