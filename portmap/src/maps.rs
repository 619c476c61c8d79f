//! The tables as the agent writes them: one trait, with the kernel's maps and a copy in memory behind it.

pub mod bpf;
pub mod grace;
mod mapped;
pub mod memory;

use anyhow::Result;
use portmap_common::{Choice, Service};

use crate::table::{Endpoint, Family, Frontend, ServicePort};

/// How many entries each map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends of each family; and of both together, which is the size of SERVICES.
    pub services: u32,
    /// Slots of BACKENDS, for each family.
    pub backends: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { services: 65_536, backends: 524_288 }
    }
}

/// A value of BACKENDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Where it leads.
    pub endpoint: Endpoint,
    /// The number of this incarnation of the endpoint.
    pub number: u32,
}

/// For whom a [`Choice`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sockets on this node.
    Inside,
    /// Clients outside the node.
    Outside,
}

/// Numbers that are given once: the next of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The next `id` of a service port.
    pub id: u32,
    /// The next number of an endpoint.
    pub endpoint: u32,
}

/// The writes that a plan is made of. Each is whole by itself: between any two of them the tables are valid.
pub trait Maps {
    /// Writes consecutive slots that no program reads.
    fn write_backends(&mut self, family: Family, first: u32, slots: &[Slot]) -> Result<()>;

    /// Writes a service entry that no frontend leads to, and sets its counters to zero.
    fn write_service(&mut self, number: u32, service: &Service) -> Result<()>;

    /// Replaces a choice of a service entry in use, atomically.
    fn store_choice(&mut self, number: u32, side: Side, choice: Choice) -> Result<()>;

    /// Replaces everything but the choices of a service entry in use.
    fn describe_service(&mut self, number: u32, service: &Service) -> Result<()>;

    /// Names an id.
    fn insert_name(&mut self, id: u32, owner: &ServicePort) -> Result<()>;

    /// Forgets the name of an id.
    fn remove_name(&mut self, id: u32) -> Result<()>;

    /// Leads a frontend to a service entry.
    fn insert_frontend(&mut self, frontend: &Frontend, number: u32) -> Result<()>;

    /// Ends a frontend.
    fn remove_frontend(&mut self, frontend: &Frontend) -> Result<()>;

    /// Records the numbers given so far, before any of them is used.
    fn set_marks(&mut self, marks: Marks) -> Result<()>;

    /// Reads everything back.
    fn read(&self) -> Result<Snapshot>;
}

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Each frontend and what it leads to, in order.
    pub frontends: Vec<(Frontend, Found)>,
    /// Each id that has a name, in order; `None` where the name is not one that the agent would write.
    pub names: Vec<(u32, Option<ServicePort>)>,
    /// Numbers given so far.
    pub marks: Marks,
}

/// Where a frontend leads, followed through all three tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The service entry's number.
    pub number: u32,
    /// The service entry; `None` if the frontend's value is not one that the agent would write.
    pub service: Option<Service>,
    /// The backends of the inside choice; `None` if it leaves the map.
    pub inside: Option<Vec<Slot>>,
    /// The backends of the outside choice; `None` if it leaves the map.
    pub outside: Option<Vec<Slot>>,
}
