//! What the agent was asked for.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    datapath::load::Switches,
    maps::{Capacity, pin::Mounting},
    model::event::Wanted,
    resolve::node_ports::Eligible,
    serve,
};

/// Where the objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The API server, of this kubeconfig or of the environment.
    Kube(Option<PathBuf>),
    /// Files and directories.
    Manifests(Vec<PathBuf>),
}

/// What to do while another agent writes to the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Fail.
    No,
    /// Wait for its end.
    ForLock,
}

/// What to leave behind at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The tables and programs, in force.
    Datapath,
    /// Nothing.
    Nothing,
}

/// What `portmap run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the objects come from.
    pub source: Source,
    /// Which of them count.
    pub wanted: Wanted,
    /// The directory of the pins.
    pub bpffs: PathBuf,
    /// The ABI version of the maps: this build's, but in tests of upgrades.
    pub abi: u32,
    /// Whether a missing BPF file system is mounted.
    pub mounting: Mounting,
    /// What to do while another agent writes to the tables.
    pub waiting: Waiting,
    /// What to leave behind after SIGTERM or SIGINT.
    pub leaving: Leaving,
    /// How often the kernel's tables are compared with what they should hold; none: never.
    pub compare_every: Option<Duration>,
    /// The cgroup to attach to; the root of the hierarchy if not given.
    pub cgroup: Option<PathBuf>,
    /// The sizes of the maps.
    pub capacity: Capacity,
    /// What the programs are told.
    pub switches: Switches,
    /// The ranges that ClusterIPs are given from, where no ServiceCIDR says so.
    pub service_cidrs: Vec<IpNet>,
    /// On which addresses node ports are served.
    pub node_port_addresses: Vec<Eligible>,
    /// Where to answer over HTTP.
    pub serve: serve::Addresses,
}
