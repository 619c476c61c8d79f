//! A little world on one Linux machine: a node, pods, clients, and a cgroup to attach portmap to.
//!
//! ```text
//!  pod-a                pod-b               client            network namespaces, one address of each family
//!  10.244.0.2           10.244.0.3          10.244.0.4
//!     └────────────────────┼───────────────────┘
//!                  node: bridge 10.244.0.1                    a network namespace
//! ```
//!
//! Nothing in it has a route off the machine, and pods know no way but to each other: a connection to an address that
//! portmap should have translated fails at once with `ENETUNREACH`. The host's own namespace, routes and sysctls are not
//! touched, nor are its cgroups: everything is in a child cgroup of the world's own ([`Group`]). Dropping the last handle
//! removes it all; [`World::sweep`] removes what a killed process left. All names begin with `portmap-<pid>-`.

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

/// A node with room for 253 pods and clients. Cheap to clone; the last clone, pod or client to go takes everything with it.
#[derive(Clone)]
pub struct World {
    land: Arc<Land>,
}

/// What pods and clients share. The order is that of the removal: first everything that runs.
struct Land {
    cgroups: Cgroups,
    pins: Pins,
    node: Namespace,
    directory: TempDir,
    identity: Identity,
    families: Families,
    last_address: AtomicU16,
}

impl World {
    /// Makes an empty world. `name` is for people who look at the machine meanwhile.
    pub fn new(name: &str) -> Result<Self> {
        Self::of(name, Families::here())
    }

    /// As [`Self::new`], with addresses of these families only.
    pub fn of(name: &str, families: Families) -> Result<Self> {
        ensure!(geteuid().is_root(), "a world of network namespaces and cgroups takes root: run this as root");
        let identity = Identity::next(name)?;
        let land = Land {
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
        Ok(Self { land: Arc::new(land) })
    }

    /// Removes what is left of worlds whose process is gone; each failure is a warning.
    pub fn sweep() {
        sweep::sweep();
    }

    /// A new pod at the next free address. It serves nothing yet.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let host = self.land.last_address.fetch_add(1, Ordering::Relaxed) + 1;
        let host = u8::try_from(host).ok().filter(|host| *host < u8::MAX).context("the world is full: no address is left")?;
        Pod::join(Arc::clone(&self.land), name, host)
    }

    /// A new client: a place like a pod's, to run programs in.
    pub fn client(&self, name: &str) -> Result<Client> {
        self.pod(name)
    }

    /// A program in the node's network namespace, outside of the cgroup that portmap is attached to. It dies with the world.
    ///
    /// For everything that belongs to the node, as the agent does.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_in(Group::Clean, program)
    }

    /// A program in the node's network namespace, in the given group.
    #[must_use]
    pub fn command_in(&self, group: Group, program: impl AsRef<Path>) -> Command {
        self.land.cgroups.command(group, &self.land.node, program.as_ref())
    }

    /// Moves the calling thread into the node's network namespace, and with it the threads and programs that it starts from now
    /// on: for what has to be on one network with them, such as a control plane with a kube-proxy.
    pub fn enter(&self) -> Result<()> {
        self.land.node.enter()
    }

    /// Opens ports of the node that answer with `node`, as long as the result is kept.
    pub fn serve(&self, listens: &[Listen]) -> Result<Server> {
        let mut command = self.command(program::find("portmap-pod")?);
        command.args(server::serve("node", self.land.families, listens));
        Server::start(command, &self.land.log("node")).context("failed to start a server of the node")
    }

    /// Runs `ip` commands in the node's network namespace, one a line; all or an error.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.land.node.ip(script)
    }

    /// The directory of a group of processes.
    #[must_use]
    pub fn cgroup(&self, group: Group) -> PathBuf {
        self.land.cgroups.directory(group)
    }

    /// Where the agent may pin its maps: a path on a mounted bpffs. The agent makes the directory, the world removes it.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        self.land.pins.directory()
    }

    /// A directory for manifests and logs, empty at first but for the logs of the pods.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.land.directory.path()
    }

    /// The path of the node's network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        self.land.node.path()
    }

    /// The node's address in the pods' network.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        ipv4(NODE)
    }

    /// The node's address in the pods' network.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        ipv6(NODE)
    }
}

impl Land {
    /// Where the servers of this name write what goes wrong.
    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }
}

const NODE: u8 = 1;

/// In 10.244.0.0/24.
fn ipv4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, host)
}

/// In `fd00:10:244::/64`.
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
    // A bridge that knows who listens to multicast would have to learn it first: neighbour discovery would wait for that.
    node.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0\n{}\nlink set {BRIDGE} up", families.script(v4, v6)))?;
    Ok(node)
}
