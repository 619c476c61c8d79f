//! What the agent says of itself, for the subcommands: the pinned maps are the only way to ask it.

use crate::{TEXT, layout};

/// A flag of [`State`]: Services and EndpointSlices have been listed completely since the agent started.
pub const SYNCED: u32 = 1;

/// A flag of [`State`]: hooks can set the error of a call (kernel 5.18 and newer).
pub const SETS_ERRORS: u32 = 2;

/// A flag of [`State`]: the kernel can destroy sockets for the agent.
pub const DESTROYS_SOCKETS: u32 = 4;

/// A flag of [`State`]: there is no Node of the agent's name, while a Service keeps traffic on the node.
pub const LACKS_NODE: u32 = 8;

/// The maps whose entries in use [`State::used`] tells, in its order.
pub const MEASURED: [&str; 10] = [
    "FRONTENDS_V4",
    "FRONTENDS_V6",
    "SERVICES",
    "BACKENDS_V4",
    "BACKENDS_V6",
    "ENDPOINTS_V4",
    "ENDPOINTS_V6",
    "MEMBERS",
    "SOURCE_RANGES_V4",
    "SOURCE_RANGES_V6",
];

/// The one value of `STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// The agent's version, as text that ends with a 0 byte.
    pub version: [u8; TEXT],
    /// When the agent started, in seconds since the kernel did, as all times here (`CLOCK_BOOTTIME`): no clock that is set matters.
    pub started: u64,
    /// When tables and objects last agreed; 0 before the first time.
    pub last_sync: u64,
    /// The agent's process.
    pub pid: u32,
    /// [`SYNCED`], [`SETS_ERRORS`], [`DESTROYS_SOCKETS`], [`LACKS_NODE`].
    pub flags: u32,
    /// How many frontends are wanted but not in the tables.
    pub left_out: u32,
    /// How many addresses and ports several Services claim.
    pub contested: u32,
    /// How many writes undid what somebody else had changed in the tables, since they were made.
    pub repairs: u64,
    /// Since when the source has been silent on some kind of objects; 0 if it is not.
    pub silent_since: u64,
    /// On which kinds: one bit each.
    pub silent_on: u32,
    /// How many entries beside frontends (endpoints, members, source ranges, ClusterIPs) are wanted, and found no room in their map.
    pub without_room: u32,
    /// How many entries the agent has in use of each map of [`MEASURED`].
    pub used: [u32; MEASURED.len()],
    /// How many Services ask for something that they do not get.
    pub faulty: u32,
    /// How many network namespaces the agent could not look into, or had no room for, while there were source ranges.
    pub namespaces_left_out: u32,
}

layout!(State, 168);
