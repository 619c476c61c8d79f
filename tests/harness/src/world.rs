//! A "world" simulates a part of a cluster: a node, pods and clients as network namespaces on one Linux machine. It has cgroups
//! to which tests attach portmap.
//!
//! ```text
//!  pod-a                pod-b               client            network namespaces, one address of each family
//!  10.244.0.2           10.244.0.3          10.244.0.4
//!     └────────────────────┼───────────────────┘
//!                  node: bridge 10.244.0.1                    a network namespace
//! ```
//!
//! A world has no route off the machine, and at first pods have routes to each other and to the node only. So a connection to
//! an address that portmap should have translated fails at once with `ENETUNREACH`. The host's network namespace, routes,
//! sysctls and existing cgroups are not changed: the processes run in new child cgroups ([`Group`]). Dropping the last handle
//! removes the world. [`World::sweep`] removes the worlds of killed processes. The names of its namespaces, its parent cgroup
//! and its directories begin with `portmap-<pid>-`.

mod bpffs;
mod cgroup;
mod families;
mod identity;
mod namespace;
mod pod;
pub mod program;
mod server;
mod sweep;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::listen::Listen;
use bpffs::Pins;
use cgroup::Cgroups;
use identity::Identity;
use namespace::Namespace;

pub use cgroup::Group;
pub use families::Families;
pub use pod::{Client, Pod};
pub use server::Server;

const BRIDGE: &str = "pods";

/// A node with addresses for 253 pods and clients. Clones, pods and clients share it. Dropping the last of them removes
/// everything.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

/// The parts that all clones of a [`World`], its pods and its clients share. The fields are dropped in this order, running
/// processes first.
struct Shared {
    cgroups: Cgroups,
    pins: Pins,
    node: Namespace,
    directory: TempDir,
    identity: Identity,
    families: Families,
    last_address: AtomicU16,
}

impl World {
    /// Makes a node without pods, with addresses of the families that the kernel supports. `name` becomes part of all names, as
    /// a help for debugging.
    pub fn new(name: &str) -> Result<Self> {
        Self::of(name, Families::here())
    }

    /// As [`Self::new`], with addresses of these families only.
    pub fn of(name: &str, families: Families) -> Result<Self> {
        ensure!(geteuid().is_root(), "only root can make network namespaces and cgroups: run this as root");
        let identity = Identity::next(name)?;
        let shared = Shared {
            cgroups: Cgroups::create(&identity)?,
            pins: Pins::name(&identity)?,
            node: make_node(&identity, families)?,
            directory: tempfile::Builder::new()
                .prefix(&identity.member(""))
                .tempdir()
                .context("failed to make a temporary directory")?,
            identity,
            families,
            last_address: AtomicU16::new(1),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Removes each [`World`] whose process no longer runs. Prints a warning for each failure.
    pub fn sweep() {
        sweep::sweep();
    }

    /// Makes a pod with the next free address. It has no server yet.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let host = self.shared.last_address.fetch_add(1, Ordering::Relaxed) + 1;
        let host = u8::try_from(host)
            .ok()
            .filter(|host| *host < u8::MAX)
            .context("the world has no free address for another pod: 253 are the most")?;
        Pod::join(Arc::clone(&self.shared), name, host)
    }

    /// Makes a client, which is a pod without a server.
    pub fn client(&self, name: &str) -> Result<Client> {
        self.pod(name)
    }

    /// A command that runs in the node's network namespace, in a cgroup without portmap.
    ///
    /// This is for programs of the node, such as the agent. Dropping the last handle of this [`World`] kills them.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_in(Group::Clean, program)
    }

    /// As [`Self::command`], but in the cgroup `group`.
    #[must_use]
    pub fn command_in(&self, group: Group, program: impl AsRef<Path>) -> Command {
        self.shared.cgroups.command(group, &self.shared.node, program.as_ref())
    }

    /// Moves the calling thread into the node's network namespace. Its later threads and child processes start there too.
    ///
    /// This is for programs that need the pods' network, such as a control plane with a kube-proxy.
    pub fn enter(&self) -> Result<()> {
        self.shared.node.enter()
    }

    /// Starts a server on the node that replies with the name `node`. It listens on these ports. Dropping the result kills it.
    pub fn serve(&self, listens: &[Listen]) -> Result<Server> {
        let mut command = self.command(program::find("portmap-pod")?);
        command.args(server::serve("node", self.shared.families, listens));
        Server::start(command, &self.shared.log("node")).context("failed to start a server of the node")
    }

    /// Runs `ip` commands in the node's network namespace, one per line. Fails at the first error.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.shared.node.ip(script)
    }

    /// The directory of this cgroup in the mounted cgroup v2 tree.
    #[must_use]
    pub fn cgroup(&self, group: Group) -> PathBuf {
        self.shared.cgroups.directory(group)
    }

    /// The directory for the agent's pinned maps, on a mounted bpffs. The agent or the benchmark makes it; dropping the last
    /// handle of this [`World`] removes it.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        self.shared.pins.directory()
    }

    /// A temporary directory for manifests and for the logs of agent and servers. Dropping the last handle of this [`World`]
    /// removes it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.shared.directory.path()
    }

    /// The path of the node's network namespace, for example for `nsenter --net`.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        self.shared.node.path()
    }

    /// The node's IPv4 address in the pods' network, 10.244.0.1. It exists unless the node has IPv6 only.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        ipv4(NODE)
    }

    /// The node's IPv6 address in the pods' network, `fd00:10:244::1`. It exists unless the node has IPv4 only.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        ipv6(NODE)
    }
}

impl Shared {
    /// The log file of the servers of the pod `name`, or of the node.
    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }
}

/// The host part of the node's addresses.
const NODE: u8 = 1;

/// The address with this host part in 10.244.0.0/24.
fn ipv4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, host)
}

/// The address with this host part in `fd00:10:244::/64`.
fn ipv6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, host.into())
}

fn make_node(identity: &Identity, families: Families) -> Result<Namespace> {
    let node = Namespace::create(identity.member("node"), families)?;
    node.write_sysctls(&["ipv4/ip_forward"], "1")?;
    if families != Families::V4 {
        node.write_sysctls(&["ipv6/conf/all/forwarding"], "1")?;
    }
    let v4 = format!("addr add {}/24 dev {BRIDGE}", ipv4(NODE));
    let v6 = format!("addr add {}/64 dev {BRIDGE} nodad", ipv6(NODE));
    // With multicast snooping the bridge first learns the group members, and neighbour discovery waits for that.
    node.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0\n{}\nlink set {BRIDGE} up", families.script(v4, v6)))?;
    Ok(node)
}
