//! What happened, whichever service's, and what is none's.

use crate::layout;

/// The one value of `TOTALS`, per CPU: events since the maps were created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Totals {
    /// Calls sent on to a backend, of any service.
    pub forwarded: u64,
    /// Calls that a service refused.
    pub refused: u64,
    /// Calls that a service dropped.
    pub dropped: u64,
    /// Calls to a port that a Service's address does not have, refused.
    pub undefined_port: u64,
    /// Calls to an address that no Service has, inside a `ServiceCIDR`, dropped.
    pub unallocated: u64,
    /// Calls dropped because of source ranges, from a network namespace whose addresses the agent did not know.
    pub unknown_namespace: u64,
    /// Calls dropped because of source ranges, by the addresses that the agent knew of the client's network namespace.
    pub not_admitted: u64,
    /// Calls translated without a note on the socket, because the kernel had no memory for one.
    pub forgotten_sockets: u64,
    /// Clients that session affinity has begun to remember.
    pub affinity_clients: u64,
    /// Clients that session affinity did not remember, because their cgroup had used up its share.
    pub affinity_over_share: u64,
}

layout!(Totals, 80);
