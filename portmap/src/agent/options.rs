//! The agent's options: the arguments of `portmap run`, checked and with their defaults.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::devices::DeviceOptions;
use crate::{
    datapath::{devices::DeviceAttach, load::Switches},
    kernel::port_ranges::PortRange,
    maps::{Capacity, pin::Mounting},
    model::event::Wanted,
    resolve::node_ports::Eligible,
    serve,
    source::kube::ClusterConfig,
};

/// The source of the objects.
#[derive(Clone, Debug)]
pub enum Source {
    /// The API server of this configuration.
    Kube(ClusterConfig),
    /// These files and directories of manifests; `-` is standard input.
    Manifests(Vec<PathBuf>),
}

/// The reaction at the start to another agent that holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Fail at once if another agent holds the lock.
    No,
    /// Wait until the other agent ends.
    ForLock,
}

/// The state of the kernel after SIGTERM or SIGINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The tables and programs stay in force.
    Datapath,
    /// All pins of portmap are removed, and the kernel frees the tables and programs.
    Nothing,
}

/// Whether the agent writes Kubernetes Events about Services with mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventWriting {
    /// The agent only reads objects.
    No,
    /// The agent creates Events. Manifests have no place for them.
    Yes,
}

/// The ports that clients outside the node get towards backends.
#[derive(Clone, Copy, Debug)]
pub struct ClientPorts {
    /// The ports for clients.
    pub range: PortRange,
    /// The cluster's node ports.
    pub node_ports: PortRange,
    /// Whether the agent reserves the range, if the node's own connections would use it otherwise.
    pub sysctls: Sysctls,
}

/// Whether the agent may change sysctls of its network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sysctls {
    /// The agent adds its range to `net.ipv4.ip_local_reserved_ports`.
    Managed,
    /// The agent only warns.
    Left,
}

/// The options of an agent, from the arguments of `portmap run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The source of the objects.
    pub source: Source,
    /// The node's name, and the objects that the agent serves.
    pub wanted: Wanted,
    /// The directory of the pins, on a BPF file system.
    pub bpffs: PathBuf,
    /// The ABI version of the maps: that of this build, except in tests of upgrades.
    pub abi: u32,
    /// Whether the agent may mount a missing BPF file system.
    pub mounting: Mounting,
    /// The reaction to another agent that holds the lock.
    pub waiting: Waiting,
    /// The state of the kernel after SIGTERM or SIGINT.
    pub leaving: Leaving,
    /// The interval of comparisons of the kernel's tables with the model; none: no comparison.
    pub compare_every: Option<Duration>,
    /// The interval of checks that programs listen for the local backends; none: no check.
    pub listening_every: Option<Duration>,
    /// Whether the agent writes Kubernetes Events about Services.
    pub events: EventWriting,
    /// The cgroup v2 directory that the programs are attached to; none: the root of the node's cgroups.
    pub cgroup: Option<PathBuf>,
    /// The sizes of the maps.
    pub capacity: Capacity,
    /// The programs' scope, the peer names that they show, and their log level.
    pub switches: Switches,
    /// The ranges of ClusterIPs, for clusters without ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
    /// Selects the addresses of the node that serve node ports.
    pub node_port_addresses: Vec<Eligible>,
    /// The network devices at which packets of clients outside the node are translated.
    pub devices: DeviceOptions,
    /// The ports that clients outside the node get towards backends, and the ranges that must be disjoint from them.
    pub client_ports: ClientPorts,
    /// How programs are attached to network devices.
    pub device_attach: DeviceAttach,
    /// The addresses of the HTTP servers.
    pub serve: serve::Addresses,
}
