//! The nodes and pods of the measurement, and the command that measures.

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use portmap_harness::agent::Agent;
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Listen;
use portmap_harness::pod_bench::{self, Work};
use portmap_harness::topology::{Firewall, Node, Topology, addresses};
use portmap_harness::world::{Group, Pod, program};
use serde_json::{Value, json};
use tokio::process::Command;

use super::objects::{TARGET_PORT, other_service, service};
use super::peer::KubeProxy;
use super::{NODE_PORTS, NorthSouthArguments, Peer, Place};
use crate::progress;

/// The host parts of the addresses of pod c that are routed through node 1 and node 3.
const ROUTED: u8 = 200;

/// Calls before the timed ones of a block.
const WARM_UP: u32 = 20;

/// The nodes, pods, the agent and the other proxy. The fields are dropped in this order.
pub struct Scene {
    peer: Option<KubeProxy>,
    _agent: Agent,
    pods: [Pod; 3],
    _third: Node,
    topology: Topology,
}

impl Scene {
    /// Makes the nodes and pods, and starts the proxies. Returns when they serve.
    ///
    /// With another proxy, the calling thread is in the network namespace of that proxy's node afterwards.
    pub async fn set(arguments: &NorthSouthArguments) -> Result<Self> {
        if arguments.peer == Some(Peer::KubeProxy) {
            KubeProxy::build()?;
        }
        progress(&format!("starting an agent with {} Services", arguments.services));
        let firewall = if arguments.firewall { Firewall::Stateful } else { Firewall::None };
        let topology = Topology::new("bench-north-south", firewall)?;
        let third = topology.add_node(3, Firewall::None)?;
        let [one, two] = &topology.nodes;
        let pods = [serving(one, "a")?, serving(two, "c")?, serving(&third, "e")?];
        route_through(&pods[1], two, &[one, &third])?;
        let agent = start_agent(arguments, one, [(&pods[0], one), (&pods[1], two)])?;
        let peer = match arguments.peer {
            None => None,
            Some(Peer::KubeProxy) => {
                progress("starting kube-proxy with an API server");
                Some(KubeProxy::start(topology.add_node(4, firewall)?, (&pods[1], two)).await?)
            }
        };
        Ok(Self { peer, _agent: agent, pods, _third: third, topology })
    }

    /// Measures one call to the node port of a place, in all arms.
    pub async fn measure(
        &self,
        arguments: &NorthSouthArguments,
        work: Work,
        place: Place,
        port: u16,
    ) -> Result<pod_bench::Report> {
        let NorthSouthArguments { rounds, per_round, .. } = arguments;
        let count = if self.peer.is_some() { 4 } else { 3 };
        progress(&format!("measuring {work}, {} backend: {rounds} rounds of {count} × {per_round}", place.text()));
        let mut command = Command::from(self.command(arguments, work, place, port)?);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let Output { status, stdout, stderr } = command.output().await.context("failed to run portmap-pod bench")?;
        ensure!(status.success(), "portmap-pod bench failed: {}", String::from_utf8_lossy(&stderr).trim_end());
        serde_json::from_slice(&stdout).context("failed to parse the output of portmap-pod bench")
    }

    fn command(&self, arguments: &NorthSouthArguments, work: Work, place: Place, port: u16) -> Result<std::process::Command> {
        let name = work.to_possible_value().context("the call has no name on the command line")?;
        let cgroup = self.topology.router().cgroup(Group::Clean);
        let mut command = self.topology.client.command_on_first_processor();
        command.arg(program::find("portmap-pod")?).args(["bench", "--json", "--work", name.get_name()]);
        for (flag, address) in self.addresses(place, port) {
            command.args([flag, &address.to_string()]);
        }
        command.arg("--cgroup-clean").arg(&cgroup).arg("--cgroup-portmap").arg(&cgroup);
        command.args(["--rounds", &arguments.rounds.to_string(), "--per-round", &arguments.per_round.to_string()]);
        command.args(["--warm-up", &WARM_UP.to_string()]);
        Ok(command)
    }

    /// The address of each arm, with its option of `portmap-pod bench`.
    fn addresses(&self, place: Place, port: u16) -> Vec<(&'static str, SocketAddr)> {
        let [local, _, other] = self.pods.each_ref().map(|pod| SocketAddr::new(pod.ipv4().into(), TARGET_PORT));
        let through = |node: u8| addresses::pod(node, ROUTED).at(Via::V4, TARGET_PORT);
        let (clean, miss) = match place {
            Place::Local => (other, local),
            Place::Remote => (through(3), through(1)),
        };
        let node_port = |node: &Node| node.addresses().at(Via::V4, port);
        let peer = self.peer.as_ref().map(|peer| ("--peer", node_port(peer.node())));
        let arms = [("--direct", clean), ("--miss", miss), ("--service", node_port(&self.topology.nodes[0]))];
        arms.into_iter().chain(peer).collect()
    }
}

/// Starts the agent on a node. The backends of the node ports are pods, each with its node.
fn start_agent(arguments: &NorthSouthArguments, node: &Node, backends: [(&Pod, &Node); 2]) -> Result<Agent> {
    let mut objects: Vec<Value> = (0..arguments.services).map(other_service).collect();
    for ((_, port), (pod, home)) in NODE_PORTS.into_iter().zip(backends) {
        objects.extend(service(port, pod, home));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Agent::write(node, "objects.yaml", &list.to_string())?;
    let shortcut = if arguments.no_shortcut { "off" } else { "on" };
    let half_open = arguments.half_open.map(|count| format!("--half-open-flows={count}"));
    let mut options = vec!["--devices", "eth0", "--north-south-shortcut", shortcut];
    options.extend(half_open.as_deref());
    Agent::start(node, &options)
}

/// A pod with a server for TCP and UDP.
pub fn serving(node: &Node, name: &str) -> Result<Pod> {
    let mut pod = node.pod(name)?;
    pod.serve_in_turn(&[Listen::tcp(TARGET_PORT), Listen::udp(TARGET_PORT)])?;
    Ok(pod)
}

/// Gives the pod an address in the range of each node `through`, and routes its packets through that node, both ways.
fn route_through(pod: &Pod, home: &Node, through: &[&Node]) -> Result<()> {
    for node in through {
        let (address, via) = (addresses::pod(node.number(), ROUTED).v4, home.addresses().v4);
        pod.ip(&format!("addr add {address}/32 dev eth0"))?;
        node.ip(&format!("route add {address}/32 via {via}"))?;
        let (table, back, pod) = (100 + u32::from(node.number()), node.addresses().v4, pod.ipv4());
        home.ip(&format!(
            "route add {address}/32 via {pod} onlink dev pod2\n\
             rule add from {address} lookup {table}\n\
             route add default via {back} table {table}"
        ))?;
    }
    Ok(())
}
