//! The tables in the kernel's maps, as the agent writes and reads them: the last stage of the event walk, after `apply`.
//!
//! [`Maps`] is the interface to the tables: [`bpf::BpfMaps`] uses the pinned maps, [`fake::MemoryMaps`] keeps the tables in
//! memory for tests. [`sources`] has the maps of client addresses, [`devices`] the map of network devices, and [`flows`] the
//! flows of clients outside the node. This module does not decide which entries of the tables are written: `plan` does.
//! `docs/maps.md` describes every map.

mod backends;
pub mod bpf;
mod capacity;
pub mod devices;
pub(crate) mod directory;
pub mod encode;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod flows;
pub mod grace;
mod mapped;
pub mod pin;
mod snapshot;
pub mod sources;
pub mod trace;

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use portmap_common::{Choice, Member, Service, V4, V6};

pub use backends::Backends;
pub use capacity::{Capacity, Fullness, Room, flows_for};
pub use snapshot::{FollowedFrontend, Snapshot};

use crate::model::{AddressOwner, Endpoint, Family, Frontend, ServicePort};

/// Upper limit of [`NextNumbers`]. No node assigns as many numbers: a larger one in a map was not written by an agent, and
/// is invalid.
pub const LAST_NUMBER: u64 = u64::MAX / 2;

/// A value of BACKENDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The backend's address and port.
    pub endpoint: Endpoint,
    /// The endpoint's number. An endpoint that is removed and returns gets another number.
    pub number: u64,
}

/// An entry of a set-like map: it is present or absent, and is never updated in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// FRONTENDS: the owner of a ClusterIP, for all ports without a frontend.
    Address(IpAddr, AddressOwner),
    /// ENDPOINTS: a serving endpoint, under its number.
    Endpoint(u64, Endpoint),
    /// MEMBERS: an endpoint that a service port with session affinity may choose.
    Member(Member),
    /// SOURCE_RANGES: a source range of the service port with this id.
    Range(u64, IpNet),
}

/// A key of a hash map or trie that no agent writes. It can only be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignKey {
    /// `FRONTENDS_V4`: the protocol is unknown, or a byte that must be 0 is not 0.
    FrontendV4(portmap_common::FrontendKey<V4>),
    /// `FRONTENDS_V6`: the protocol is unknown, or a byte that must be 0 is not 0.
    FrontendV6(portmap_common::FrontendKey<V6>),
    /// SOURCE_RANGES: a prefix that ends within the id. The fields are the family, the prefix length in bits, and the id.
    SourceRange(Family, u32, u64),
}

/// An address range of PREFIXES. Programs look up a destination in it that is no frontend once more, as a whole ClusterIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The address range, as in `10.96.0.0/16`.
    pub range: IpNet,
    /// Whether programs drop calls to addresses of the range that belong to no Service. True only for a `ServiceCIDR`, and
    /// only while every Service is in the tables.
    pub allocated: bool,
}

/// The clients that a [`Choice`] of a service entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLocation {
    /// Sockets on this node.
    Inside,
    /// Clients outside the node.
    Outside,
}

/// The next numbers to assign. A smaller number may have been assigned before, and is never assigned again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextNumbers {
    /// The next `id` of a service port.
    pub id: u64,
    /// The next number of an endpoint.
    pub endpoint: u64,
}

/// The reads and writes of the tables. After each write, the tables are valid for the BPF programs that read them at any
/// moment.
///
/// An entry that programs can no longer reach may still be in use by a program that began earlier. It is retired, and may be
/// written again only after a grace period ([`grace::Grace::wait`]). After an error the caller reads the tables again.
pub trait Maps {
    /// Writes values into consecutive slots of BACKENDS, from slot `first` on.
    ///
    /// No choice of a service entry in use may hold these slots, and a grace period must have passed since they were retired.
    /// Programs do not read the slots until [`Self::store_choice`], or [`Self::insert_frontend`], makes them reachable.
    fn write_backends(&mut self, first: u32, backends: &Backends) -> Result<()>;

    /// Writes an entry of SERVICES, and sets its counters to 0.
    ///
    /// No frontend may have this service number, and a grace period must have passed since the entry was retired. The backends
    /// of both choices must be in BACKENDS. Programs do not read the entry until [`Self::insert_frontend`] makes it reachable.
    fn write_service(&mut self, number: u32, service: &Service) -> Result<()>;

    /// Replaces one choice of an entry of SERVICES in use.
    ///
    /// The backends of the choice must be in BACKENDS. A program reads the old choice or the new one, never a mixture: the
    /// choice is one 8-byte word. A program that began earlier may still read the backends of the old choice.
    fn store_choice(&mut self, number: u32, location: ClientLocation, choice: Choice) -> Result<()>;

    /// Replaces the `id`, `affinity_timeout`, `kind` and `flags` of an entry of SERVICES in use. The choices stay as they are.
    ///
    /// The new id must have its name, its members and its source ranges. The fields are two 8-byte words, stored one after the
    /// other: a program may read the new id together with the old timeout, kind and flags.
    fn describe_service(&mut self, number: u32, service: &Service) -> Result<()>;

    /// Inserts or replaces the names of service ports' ids in NAMES.
    ///
    /// [`Self::set_next_numbers`] must have recorded the ids. Programs do not read NAMES; the subcommands and the next agent
    /// do.
    fn insert_names(&mut self, names: &[(u64, ServicePort)]) -> Result<()>;

    /// Removes the name of an id from NAMES. Fails if the id has no name.
    ///
    /// No frontend may lead to a service entry with this id. Programs do not read NAMES.
    fn remove_name(&mut self, id: u64) -> Result<()>;

    /// Inserts a key into FRONTENDS with this service number. Fails if the key is present: a frontend is never updated in
    /// place.
    ///
    /// The entry of SERVICES must have been written. A program finds no frontend, or the frontend with its whole service
    /// entry.
    fn insert_frontend(&mut self, frontend: &Frontend, number: u32) -> Result<()>;

    /// Removes a key from FRONTENDS. Fails if the key is absent.
    ///
    /// A program that has found the frontend may still read its service entry and its backends: they are retired by this call.
    fn remove_frontend(&mut self, frontend: &Frontend) -> Result<()>;

    /// Inserts items into their maps. Fails if the key of an endpoint or member is present; a source range or ClusterIP that is
    /// present gets the new value.
    ///
    /// [`Self::set_next_numbers`] must have recorded the numbers of endpoints. A program may find some of the items present and
    /// the others absent until the call returns.
    fn insert(&mut self, items: &[Item]) -> Result<()>;

    /// Removes an item from its map. Fails if its key is absent.
    ///
    /// A program finds the item present or absent.
    fn remove(&mut self, item: &Item) -> Result<()>;

    /// Replaces all prefixes of a family in PREFIXES. There must be at most [`portmap_common::PREFIXES`], all of this
    /// family.
    ///
    /// May block for a grace period. A program reads all old prefixes or all new ones: the new ones are written beside the old
    /// ones, then one 8-byte word is stored.
    fn set_prefixes(&mut self, family: Family, prefixes: &[Prefix]) -> Result<()>;

    /// Removes a key that no agent writes from its map.
    ///
    /// The key must come from [`Snapshot::foreign`]. A program finds the key present or absent.
    fn remove_foreign(&mut self, key: &ForeignKey) -> Result<()>;

    /// Records the next numbers in NUMBERS.
    ///
    /// Both must be larger than every assigned number. Must come before the first write that uses a new number: a later agent
    /// must not assign that number again. Programs do not read NUMBERS.
    fn set_next_numbers(&mut self, next: NextNumbers) -> Result<()>;

    /// Reads all tables. An agent may write at the same time: then each frontend is read with the choices and backends of one
    /// moment, but the snapshot as a whole may mix several moments.
    fn read(&self) -> Result<Snapshot>;
}
