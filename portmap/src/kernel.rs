//! The host and its kernel: system calls, netlink, network namespaces, and the limits of this process.
//!
//! Nothing here knows Services; the maps are in `maps`, the programs in `datapath`.

pub mod addresses;
pub mod bpf;
pub mod cgroups;
pub mod descriptors;
pub mod devices;
pub mod exhaustion;
pub mod heap;
pub mod limits;
pub mod listeners;
pub mod memory;
pub mod namespaces;
mod netlink;
pub mod notifications;
pub mod port_ranges;
pub mod privileges;
pub mod processes;
pub mod readiness;
pub mod routes;
pub mod sock_diag;
pub mod tc;
pub mod uptime;

/// The `SO_PRIORITY` of sockets whose connections the eBPF programs do not translate. The agent sets it for its untranslated
/// connections to the API server.
///
/// The programs compare it in the host's network namespace only. All versions of portmap have the same number, because the
/// programs of an earlier agent may still be attached. No queueing discipline uses this number as its handle by default.
pub const OWN_PRIORITY: u32 = u32::from_be_bytes(*b"pmap");
