//! Pods and clients: a network namespace each, with an address of each family on the node's bridge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::namespace::Namespace;
use super::server::{Server, serve};
use super::{BRIDGE, Group, Land, NODE, identity, ipv4, ipv6, program};
use crate::listen::{Listen, Protocol};
use crate::pod_client::Answers;

/// A pod without a server is a client.
pub type Client = Pod;

/// Goes with its servers and its network namespace when dropped.
pub struct Pod {
    // Dropped in this order.
    servers: Vec<Server>,
    namespace: Namespace,
    land: Arc<Land>,
    name: String,
    host: u8,
}

impl Pod {
    pub(super) fn join(land: Arc<Land>, name: &str, host: u8) -> Result<Self> {
        identity::check(name)?;
        let namespace = Namespace::create(land.identity.member(name), land.families)?;
        let outside = format!("pod{host}");
        land.node.ip(&format!(
            "link add {outside} type veth peer name eth0 netns {}\n\
             link set {outside} master {BRIDGE} up",
            namespace.name()
        ))?;
        let v4 = format!("addr add {}/24 dev eth0", ipv4(host));
        let v6 = format!("addr add {}/64 dev eth0 nodad", ipv6(host));
        namespace.ip(&format!("{}\nlink set eth0 up", land.families.script(v4, v6)))?;
        Ok(Self { servers: Vec::new(), namespace, land, name: name.to_owned(), host })
    }

    /// The name that its servers answer with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address in 10.244.0.0/24.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        ipv4(self.host)
    }

    /// Its address in `fd00:10:244::/64`.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        ipv6(self.host)
    }

    /// The path of its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        self.namespace.path()
    }

    /// Opens ports that answer with the pod's name, on both families; they are open when this returns.
    pub fn serve(&mut self, listens: &[Listen]) -> Result<()> {
        let command = self.command_in(Group::Clean, program::find("portmap-pod")?);
        self.start(command, &serve(&self.name, self.land.families, listens))
    }

    /// As [`Self::serve`], on the first processor, and never taking it from a client that it was woken by (`SCHED_BATCH`). Whether
    /// it did, or had to be woken on another processor, would count for more in the time of a `connect()` than anything else.
    pub fn serve_in_turn(&mut self, listens: &[Listen]) -> Result<()> {
        let mut command = self.command_on_first_processor();
        command.args(["chrt", "--batch", "0"]).arg(program::find("portmap-pod")?);
        self.start(command, &serve(&self.name, self.land.families, listens))
    }

    /// Opens port 53 for queries, on both protocols and families, for these records ([`crate::pod_dns`]).
    pub fn serve_dns(&mut self, records: &[(&str, IpAddr)]) -> Result<()> {
        let mut arguments = ["dns", "--name", &self.name].map(str::to_owned).to_vec();
        arguments.extend(records.iter().map(|(name, address)| format!("{name}={address}")));
        let command = self.command_in(Group::Clean, program::find("portmap-pod")?);
        self.start(command, &arguments)
    }

    /// What runs the program that is its first argument, outside of the cgroup that portmap is attached to.
    pub fn command_on_first_processor(&self) -> Command {
        let mut command = self.command_in(Group::Clean, "taskset");
        command.args(["--cpu-list", "0"]);
        command
    }

    fn start(&mut self, mut command: Command, arguments: &[String]) -> Result<()> {
        command.args(arguments);
        let server = Server::start(command, &self.land.log(&self.name))
            .with_context(|| format!("failed to start the server of the pod {}", self.name))?;
        self.servers.push(server);
        Ok(())
    }

    /// Closes all its ports and connections, as when the application crashes.
    pub fn stop(&mut self) {
        self.servers.clear();
    }

    /// A program in the pod, in the cgroup that portmap is attached to. It is killed with the world at the latest.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_in(Group::Clients, program)
    }

    /// A program in the pod, in the given group.
    #[must_use]
    pub fn command_in(&self, group: Group, program: impl AsRef<Path>) -> Command {
        self.land.cgroups.command(group, &self.namespace, program.as_ref())
    }

    /// Asks the address `count` times who answers there.
    pub fn connect(&self, address: SocketAddr, protocol: Protocol, count: u32) -> Result<Answers> {
        let mut command = self.command(program::find("portmap-pod")?);
        command.args(["connect", "--json", "--count", &count.to_string(), &address.to_string()]);
        if protocol == Protocol::Udp {
            command.arg("--udp");
        }
        let output = command.stdin(Stdio::null()).output().context("failed to run portmap-pod connect")?;
        ensure!(output.status.success(), "portmap-pod connect failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        serde_json::from_slice(&output.stdout).context("failed to read what portmap-pod connect prints")
    }

    /// Runs `ip` commands in its network namespace, one a line; all or an error.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.namespace.ip(script)
    }

    /// Sends what is not for another pod through the node, as on a real node; without this there is no route for it.
    ///
    /// The node has no route either, and its answer comes while `connect()` holds the socket, when the kernel only notes it:
    /// the caller waits for the next SYN, one second or, once ICMP is rate limited, seven.
    pub fn route_through_node(&self) -> Result<()> {
        let [v4, v6] = [ipv4(NODE).to_string(), ipv6(NODE).to_string()].map(|node| format!("route add default via {node}"));
        self.namespace.ip(&self.land.families.script(v4, v6))
    }
}
