//! The agent's own state, for the subcommands. The subcommands read it from the pinned map `STATE`, so they need no
//! connection to the agent.

use crate::{TEXT, layout};

/// A flag of [`State`]: hooks can set the error of a call (kernel 5.18 and newer).
pub const SETS_ERRORS: u32 = 2;

/// A flag of [`State`]: the kernel can find and destroy the UDP sockets of ended endpoints for the agent.
pub const DESTROYS_SOCKETS: u32 = 4;

/// A flag of [`State`]: there is no Node with the agent's `--node-name`, but a Service keeps traffic on the node.
pub const LACKS_NODE: u32 = 8;

/// The maps that [`State::used`] counts, in the order of its elements.
pub const MEASURED: [&str; 14] = [
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
    "FLOWS_V4",
    "OPENING_V4",
    "FLOWS_V6",
    "OPENING_V6",
];

/// The one value of `STATE`: the state of the agent that runs, or ran last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// The agent's version: a text that ends with a 0 byte.
    pub version: [u8; TEXT],
    /// Start of the agent, in seconds since boot (`CLOCK_BOOTTIME`); 0 before the first agent. All times of this type are in
    /// this clock, because nobody can set it.
    pub started: u64,
    /// Time when the tables were last compared with the objects or changed, in seconds since boot; 0 before the first time.
    pub last_sync: u64,
    /// The id of the agent's process.
    pub pid: u32,
    /// Bits: [`SETS_ERRORS`], [`DESTROYS_SOCKETS`], [`LACKS_NODE`].
    pub flags: u32,
    /// Number of desired frontends left out because the tables are full.
    pub left_out: u32,
    /// Number of conflicts: addresses and ports that several Services claim.
    pub contested: u32,
    /// Number of writes that repaired drift (changes by another process), since the tables were created.
    pub repairs: u64,
    /// Start of the outage of the API server (or other source of objects), in seconds since boot; 0 without an outage.
    pub silent_since: u64,
    /// Bits of the kinds of objects whose watches fail: 1 Services, 2 EndpointSlices, 4 Services of other proxies, 8 Nodes,
    /// 16 ServiceCIDRs.
    pub silent_on: u32,
    /// Number of secondary entries (endpoints, members, source ranges, ClusterIPs) left out because their map is full.
    pub without_room: u32,
    /// Number of entries in use, for each map of [`MEASURED`].
    pub used: [u32; MEASURED.len()],
    /// Number of Services with a fault: a field that the agent cannot serve.
    pub faulty: u32,
    /// Number of network namespaces that the agent could not open, or that did not fit into `NAMESPACES` or `SOURCES`; at least
    /// 1 after a failed survey of the namespaces. 0 without source ranges.
    pub namespaces_left_out: u32,
    /// Number of network devices that the user named and that do not exist.
    pub devices_absent: u32,
    /// Number of refused TCP connections of clients outside the node that had got no answer when flows were last swept.
    pub unanswered: u32,
    /// The inode of the agent's network namespace, in which the network devices are.
    pub network: u64,
}

layout!(State, 200);
