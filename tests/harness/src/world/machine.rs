//! A simulated machine: the network namespace of a node, cgroups for its processes, and directories for its files and pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::bpffs::Pins;
use super::cgroup::{Cgroups, Group};
use super::families::Families;
use super::identity::Identity;
use super::namespace::Namespace;
use super::program;
use super::server::{self, Server};
use crate::listen::Listen;

/// A machine without network interfaces, other than the loopback interface. Dropping this ends its processes and removes
/// everything. The fields are dropped in this order, running processes first.
pub struct Machine {
    cgroups: Cgroups,
    pins: Pins,
    network: Namespace,
    directory: TempDir,
    identity: Identity,
    families: Families,
    name: String,
}

impl Machine {
    /// Makes a machine. `world` becomes part of the names of its parts, as a help for debugging. `name` is its name as a node.
    pub(crate) fn new(world: &str, name: &str, families: Families) -> Result<Self> {
        ensure!(geteuid().is_root(), "only root can make network namespaces and cgroups: run this as root");
        let identity = Identity::next(world)?;
        let network = Namespace::create(identity.member(name), families)?;
        network.write_sysctls(&["ipv4/ip_forward"], "1")?;
        if families != Families::V4 {
            network.write_sysctls(&["ipv6/conf/all/forwarding"], "1")?;
        }
        Ok(Self {
            cgroups: Cgroups::create(&identity)?,
            pins: Pins::name(&identity)?,
            network,
            directory: tempfile::Builder::new()
                .prefix(&identity.member(""))
                .tempdir()
                .context("failed to make a temporary directory")?,
            identity,
            families,
            name: name.to_owned(),
        })
    }

    /// The machine's name as a node of a cluster. Its servers put it into every reply.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs in the machine's network namespace, in a cgroup without portmap.
    ///
    /// This is for programs of the node, such as the agent. Dropping the last handle of the machine kills them.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_in(Group::Clean, program)
    }

    /// As [`Self::command`], but in the cgroup `group`.
    #[must_use]
    pub fn command_in(&self, group: Group, program: impl AsRef<Path>) -> Command {
        self.cgroups.command(group, &self.network, program.as_ref())
    }

    /// Moves the calling thread into the machine's network namespace. Its later threads and child processes start there too.
    ///
    /// This is for programs that need the pods' network, such as a control plane with a kube-proxy.
    pub fn enter(&self) -> Result<()> {
        self.network.enter()
    }

    /// Starts a server on the machine that replies with the machine's name. It listens on these ports. Dropping the result
    /// kills it.
    pub fn serve(&self, listens: &[Listen]) -> Result<Server> {
        let mut command = self.command(program::find("portmap-pod")?);
        command.args(server::serve(&self.name, self.families, listens));
        Server::start(command, &self.log(&self.name)).context("failed to start a server of the node")
    }

    /// Runs `ip` commands in the machine's network namespace, one per line. Fails at the first error.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.network.ip(script)
    }

    /// The directory of this cgroup in the mounted cgroup v2 tree.
    #[must_use]
    pub fn cgroup(&self, group: Group) -> PathBuf {
        self.cgroups.directory(group)
    }

    /// The directory for the agent's pinned maps, on a mounted bpffs. The agent or the benchmark makes it; dropping the last
    /// handle of the machine removes it.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        self.pins.directory()
    }

    /// A temporary directory for manifests and for the logs of agent and servers. Dropping the last handle of the machine
    /// removes it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path of the machine's network namespace, for example for `nsenter --net`.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        self.network.path()
    }

    /// Removes the path MTUs that the network namespace has learnt.
    pub fn forget_path_mtus(&self) -> Result<()> {
        self.network.forget_exceptions()
    }

    /// Writes a value to sysctls below `net/` of the machine's network namespace.
    pub(crate) fn write_sysctls(&self, names: &[&str], value: &str) -> Result<()> {
        self.network.write_sysctls(names, value)
    }

    /// Adds the interface `eth0`, whose peer is the interface `port` of the machine `other`. Both are down.
    pub(crate) fn connect_to(&self, other: &Self, port: &str) -> Result<()> {
        other.ip(&format!("link add {port} type veth peer name eth0 netns {}", self.network.name()))
    }

    /// The IP families of the machine and its pods.
    pub(super) fn families(&self) -> Families {
        self.families
    }

    /// Makes a network namespace without interfaces for a pod of this machine.
    pub(super) fn pod_namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::create(self.identity.member(name), self.families)
    }

    /// A command that runs in a network namespace of a pod, in the cgroup `group`.
    pub(super) fn command_of(&self, group: Group, namespace: &Namespace, program: &Path) -> Command {
        self.cgroups.command(group, namespace, program)
    }

    /// The log file of the servers of the pod `name`, or of the node.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }
}
