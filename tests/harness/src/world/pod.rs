//! Pods and clients. Each has a network namespace, with an address of each family of the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::namespace::Namespace;
use super::server::{Server, serve};
use super::{Group, Machine, identity, program};
use crate::dual_stack::Both;
use crate::listen::{Listen, Protocol};
use crate::pod_client::Answers;

/// A client is a pod without a server.
pub type Client = Pod;

/// A pod. Dropping it ends its servers and removes its network namespace.
pub struct Pod {
    // The fields are dropped in this order: servers first.
    servers: Vec<Server>,
    namespace: Namespace,
    machine: Arc<Machine>,
    name: String,
    addresses: Both,
    gateway: Both,
}

impl Pod {
    /// Makes a pod of a machine, without interfaces. The node has the addresses `gateway` in the pods' network.
    pub(crate) fn new(machine: Arc<Machine>, name: &str, addresses: Both, gateway: Both) -> Result<Self> {
        identity::check(name)?;
        let namespace = machine.pod_namespace(name)?;
        Ok(Self { servers: Vec::new(), namespace, machine, name: name.to_owned(), addresses, gateway })
    }

    /// Connects the pod to the interface `device` of the node, in a subnet with the node and all other pods that are connected
    /// so. The node's interface is new, and has no addresses.
    pub(crate) fn join_subnet(&self, device: &str) -> Result<()> {
        self.add_interface(device)?;
        self.machine.ip(&format!("link set {device} up"))?;
        let Both { v4, v6 } = self.addresses;
        let [v4, v6] = [format!("addr add {v4}/24 dev eth0"), format!("addr add {v6}/64 dev eth0 nodad")];
        self.namespace.ip(&format!("{}\nlink set eth0 up", self.machine.families().script(v4, v6)))
    }

    /// Connects the pod to the interface `device` of the node as the CNI plugin `ptp` does: no bridge, no subnet, and host
    /// routes only. All packets of the pod go through the node. Needs both IP families.
    pub(crate) fn join_node(&self, device: &str) -> Result<()> {
        self.add_interface(device)?;
        let ([pod4, pod6], [node4, node6]) = (self.addresses.texts(), self.gateway.texts());
        self.machine.ip(&format!(
            "addr add {node4}/32 dev {device}\n\
             addr add {node6}/128 dev {device} nodad\n\
             link set {device} up\n\
             route add {pod4}/32 dev {device}\n\
             route add {pod6}/128 dev {device}"
        ))?;
        self.namespace.ip(&format!(
            "addr add {pod4}/32 dev eth0\n\
             addr add {pod6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {node4}/32 dev eth0\n\
             route add {node6}/128 dev eth0"
        ))?;
        self.route_through_node()
    }

    /// Adds the interface `eth0`, whose peer is the interface `device` of the node.
    fn add_interface(&self, device: &str) -> Result<()> {
        self.machine.ip(&format!("link add {device} type veth peer name eth0 netns {}", self.namespace.name()))
    }

    /// The pod's name, which its servers put into every reply.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod's address in 10.244.0.0/24. It exists unless the node has IPv6 only.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.addresses.v4
    }

    /// The pod's address in `fd00:10:244::/64`. It exists unless the node has IPv4 only.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        self.addresses.v6
    }

    /// The path of the pod's network namespace, for example for `nsenter --net`.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        self.namespace.path()
    }

    /// Starts a server on these ports, in all address families of the node. The ports are open when this returns.
    pub fn serve(&mut self, listens: &[Listen]) -> Result<()> {
        let command = self.command_in(Group::Clean, program::find("portmap-pod")?);
        self.start(command, &serve(&self.name, self.machine.families(), listens))
    }

    /// As [`Self::serve`], on processor 0 with `SCHED_BATCH`. A client on processor 0 is then not preempted by the server that
    /// it wakes.
    ///
    /// A preemption or a wake-up on another processor would take more time than everything else in a `connect()`.
    pub fn serve_in_turn(&mut self, listens: &[Listen]) -> Result<()> {
        let mut command = self.command_on_first_processor();
        command.args(["chrt", "--batch", "0"]).arg(program::find("portmap-pod")?);
        self.start(command, &serve(&self.name, self.machine.families(), listens))
    }

    /// Starts a name server for these records on port 53, UDP and TCP ([`crate::pod_dns`]).
    pub fn serve_dns(&mut self, records: &[(&str, IpAddr)]) -> Result<()> {
        let mut arguments = ["dns", "--name", &self.name].map(str::to_owned).to_vec();
        arguments.extend(records.iter().map(|(name, address)| format!("{name}={address}")));
        let command = self.command_in(Group::Clean, program::find("portmap-pod")?);
        self.start(command, &arguments)
    }

    /// A command that runs its first argument as a program in the pod, on processor 0, in the cgroup without portmap.
    pub fn command_on_first_processor(&self) -> Command {
        let mut command = self.command_in(Group::Clean, "taskset");
        command.args(["--cpu-list", "0"]);
        command
    }

    fn start(&mut self, mut command: Command, arguments: &[String]) -> Result<()> {
        command.args(arguments);
        let server = Server::start(command, &self.machine.log(&self.name))
            .with_context(|| format!("failed to start the server of the pod {}", self.name))?;
        self.servers.push(server);
        Ok(())
    }

    /// Kills the pod's servers, as in a crash: all ports and connections close.
    pub fn stop(&mut self) {
        self.servers.clear();
    }

    /// A command that runs in the pod, in the cgroup that portmap is attached to. Dropping the last handle of the
    /// [`World`](super::World) kills the process.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_in(Group::Clients, program)
    }

    /// As [`Self::command`], but in the cgroup `group`.
    #[must_use]
    pub fn command_in(&self, group: Group, program: impl AsRef<Path>) -> Command {
        self.machine.command_of(group, &self.namespace, program.as_ref())
    }

    /// Runs `portmap-pod connect` in the pod: `count` requests to the address, each through a new socket.
    pub fn connect(&self, address: SocketAddr, protocol: Protocol, count: u32) -> Result<Answers> {
        let mut command = self.command(program::find("portmap-pod")?);
        command.args(["connect", "--json", "--count", &count.to_string(), &address.to_string()]);
        if protocol == Protocol::Udp {
            command.arg("--udp");
        }
        let output = command.stdin(Stdio::null()).output().context("failed to run portmap-pod connect")?;
        ensure!(output.status.success(), "portmap-pod connect failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        serde_json::from_slice(&output.stdout).context("failed to parse the output of portmap-pod connect")
    }

    /// Removes the path MTUs that the network namespace has learnt.
    pub fn forget_path_mtus(&self) -> Result<()> {
        self.namespace.forget_exceptions()
    }

    /// Writes a value to sysctls below `net/` of the pod's network namespace.
    pub(crate) fn write_sysctls(&self, names: &[&str], value: &str) -> Result<()> {
        self.namespace.write_sysctls(names, value)
    }

    /// Runs `ip` commands in the pod's network namespace, one per line. Fails at the first error.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.namespace.ip(script)
    }

    /// Adds default routes through the node, as pods of a real node have them. At first a pod has no default route.
    ///
    /// The node has no route to addresses outside of its pods' network, and answers with an ICMP error. The error arrives while
    /// `connect()` holds the socket's lock, so the kernel only records it. The caller waits for the next SYN: one second, or
    /// seven if ICMP is rate limited.
    pub fn route_through_node(&self) -> Result<()> {
        let [v4, v6] = self.gateway.texts().map(|node| format!("route add default via {node}"));
        self.namespace.ip(&self.machine.families().script(v4, v6))
    }
}
