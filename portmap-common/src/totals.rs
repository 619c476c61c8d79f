//! Counters of the whole node: over all services, and for events that belong to no service entry.

use crate::layout;

/// The one value of `TOTALS`, per CPU: number of events since the maps were created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Totals {
    /// Calls forwarded to a backend, over all services.
    pub forwarded: u64,
    /// Calls to frontends that failed with `ECONNREFUSED` (with `EPERM` for UDP before kernel 5.18), over all services.
    pub refused: u64,
    /// Calls to frontends that failed with `ETIMEDOUT` (with `EPERM` before kernel 5.18), over all services. Includes calls
    /// outside of source ranges.
    pub dropped: u64,
    /// Calls refused because the Service of the ClusterIP does not define the port.
    pub undefined_port: u64,
    /// Calls dropped because the address is in a `ServiceCIDR` and no Service has it.
    pub unallocated: u64,
    /// Calls dropped by source ranges because the addresses of the client's network namespace were unknown or none, or because
    /// the source address that the socket named is not among them.
    pub unknown_namespace: u64,
    /// Calls dropped by source ranges because the client's address, or one of its possible addresses, is in no range, or
    /// because it has more than [`crate::ADDRESSES`] possible addresses.
    pub not_admitted: u64,
    /// Calls translated without a note on the socket, because the kernel could not create the note, usually for lack of memory.
    pub forgotten_sockets: u64,
    /// Entries added to `AFFINITY`: one per client and service port.
    pub affinity_clients: u64,
    /// Calls that got no session, because their cgroup had already added its share of clients to `AFFINITY`, or because the
    /// kernel could not store the cgroup's count.
    pub affinity_over_share: u64,
    /// Flows of clients outside the node that were opened to a backend, over all services.
    pub outside_forwarded: u64,
    /// Connections and datagrams of clients outside the node to frontends that were refused.
    pub outside_refused: u64,
    /// Packets of clients outside the node to frontends that were dropped: by a traffic policy or a source range, or because their
    /// source port is 0.
    pub outside_dropped: u64,
    /// Packets that were dropped because no port was free to tell the flow from others.
    pub outside_without_port: u64,
    /// Flows that were opened in `OPENING` because too many flows were half open.
    pub outside_overflowed: u64,
}

layout!(Totals, 120);
