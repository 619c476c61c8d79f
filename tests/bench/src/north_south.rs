//! Measures connections of a client outside the node to a node port, compared with plain routing to a pod. Runs `portmap-pod
//! bench` in the namespace of the client.
//!
//! ```text
//! client ── router ──┬── node-1, portmap ── pod a
//!                    ├── node-2 ─────────── pod c
//!                    └── node-3 ─────────── pod e
//! ```
//!
//! Local backends: clean is pod e through node 3, miss is pod a through node 1, hit is the node port on node 1 with backend a.
//! Remote backends: clean is an address of pod c that is routed through node 3 and node 2, both ways; miss is the same through
//! node 1; hit is the node port on node 1 with backend c.

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum as _};
use portmap_harness::agent::Agent;
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Listen;
use portmap_harness::pod_bench::{self, Arm, Work};
use portmap_harness::topology::{Firewall, Node, Topology, addresses};
use portmap_harness::world::{Group, Pod, program};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::figures::Aim;
use crate::machine::Machine;
use crate::{Report, Size, progress};

/// The port of the pods, on TCP and UDP.
const TARGET_PORT: u16 = 8080;

/// The node ports with a backend on node 1 and on node 2.
const NODE_PORTS: [(Place, u16); 2] = [(Place::Local, 30_001), (Place::Remote, 30_002)];

/// The host parts of the addresses of pod c that are routed through node 1 and node 3.
const ROUTED: u8 = 200;

/// Calls before the timed ones of a block.
const WARM_UP: u32 = 20;

/// The calls that are measured.
const WORKS: [Work; 3] = [Work::TcpConnect, Work::TcpRequest, Work::UdpUnconnected];

/// Limits of time ratios: call, place of the backend, arm, limit.
const AIMS: [(Work, Place, Arm, f64); 5] = [
    (Work::TcpConnect, Place::Local, Arm::Hit, 1.35),
    (Work::TcpConnect, Place::Remote, Arm::Hit, 1.40),
    (Work::TcpRequest, Place::Local, Arm::Hit, 1.06),
    (Work::TcpRequest, Place::Remote, Arm::Hit, 1.10),
    (Work::TcpRequest, Place::Local, Arm::Miss, 1.02),
];

/// Measure connections of a client outside the node to node ports, compared with plain routing to a pod
///
/// Three arms take turns: clean (to a pod, through a node without portmap), miss (to a pod, through portmap's node) and hit (to
/// a node port). Each round gives a ratio to its clean arm; the report shows the median of these ratios.
#[derive(Args, Clone, Debug)]
pub struct NorthSouthArguments {
    /// Number of rounds; each arm is measured once per round
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Timed calls per arm and round
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    per_round: u32,
    /// Number of further Services in the maps
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    services: u32,
    /// Use the kernel's routing, netfilter and policies for packets to other nodes, too
    #[arg(long)]
    no_shortcut: bool,
    /// Something else on the nodes tracks connections: a stateful firewall
    #[arg(long)]
    firewall: bool,
}

/// The place of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Local,
    Remote,
}

impl Place {
    fn text(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// Runs the measurement. Dropping the future removes everything that it made.
pub async fn run(arguments: NorthSouthArguments) -> Result<Report> {
    let machine = Machine::look();
    let scene = Scene::set(&arguments)?;
    let (mut connect, mut aims) = (Vec::new(), Vec::new());
    for (place, node_port) in NODE_PORTS {
        for work in WORKS {
            // Lets the runtime handle a signal.
            tokio::task::yield_now().await;
            let report = scene.measure(&arguments, work, place, node_port).await?;
            let of_place = AIMS.iter().filter(|(of, at, _, _)| (*of, *at) == (work, place));
            aims.extend(of_place.filter_map(|(_, _, arm, limit)| {
                let measured = report.arms.get(arm)?.ratio.p50;
                Some(Aim::at_most(&format!("{work}, {} backend, ratio of {arm} to clean, p50", place.text()), *limit, measured))
            }));
            connect.push(report);
        }
    }
    Ok(Report {
        bench: "north-south",
        about: "a client outside the node calls a pod by plain routing (clean), a pod through portmap's node (miss), and a \
                node port (hit); first with a local backend, then with a backend on another node"
            .to_owned(),
        machine,
        size: Size { services: arguments.services, endpoints: 1 },
        aims,
        connect,
        programs: Vec::new(),
        sections: Vec::new(),
    })
}

/// The nodes, pods and the agent. The fields are dropped in this order.
struct Scene {
    _agent: Agent,
    pods: [Pod; 3],
    _third: Node,
    topology: Topology,
}

impl Scene {
    fn set(arguments: &NorthSouthArguments) -> Result<Self> {
        progress(&format!("starting an agent with {} Services", arguments.services));
        let firewall = if arguments.firewall { Firewall::Stateful } else { Firewall::None };
        let topology = Topology::new("bench-north-south", firewall)?;
        let third = topology.add_node(3)?;
        let [one, two] = &topology.nodes;
        let pods = [serving(one, "a")?, serving(two, "c")?, serving(&third, "e")?];
        route_through(&pods[1], two, &[one, &third])?;
        let mut objects: Vec<Value> = (0..arguments.services).map(other_service).collect();
        for ((_, port), (pod, node)) in NODE_PORTS.into_iter().zip([(&pods[0], one), (&pods[1], two)]) {
            objects.extend(service(port, pod, node));
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        Agent::write(one, "objects.yaml", &list.to_string())?;
        let shortcut = if arguments.no_shortcut { "off" } else { "on" };
        let agent = Agent::start(one, &["--devices", "eth0", "--north-south-shortcut", shortcut])?;
        Ok(Self { _agent: agent, pods, _third: third, topology })
    }

    async fn measure(&self, arguments: &NorthSouthArguments, work: Work, place: Place, port: u16) -> Result<pod_bench::Report> {
        let NorthSouthArguments { rounds, per_round, .. } = arguments;
        progress(&format!("measuring {work}, {} backend: {rounds} rounds of 3 × {per_round}", place.text()));
        let [local, _, other] = self.pods.each_ref().map(|pod| SocketAddr::new(pod.ipv4().into(), TARGET_PORT));
        let through = |node: u8| addresses::pod(node, ROUTED).at(Via::V4, TARGET_PORT);
        let (clean, miss) = match place {
            Place::Local => (other, local),
            Place::Remote => (through(3), through(1)),
        };
        let service = self.topology.nodes[0].addresses().at(Via::V4, port);
        let name = work.to_possible_value().context("the call has no name on the command line")?;
        let cgroup = self.topology.router().cgroup(Group::Clean);
        let mut command = self.topology.client.command_on_first_processor();
        command.arg(program::find("portmap-pod")?).args(["bench", "--json", "--work", name.get_name()]);
        for (flag, address) in [("--direct", clean), ("--miss", miss), ("--service", service)] {
            command.args([flag, &address.to_string()]);
        }
        command.arg("--cgroup-clean").arg(&cgroup).arg("--cgroup-portmap").arg(&cgroup);
        command.args(["--rounds", &rounds.to_string(), "--per-round", &per_round.to_string()]);
        command.args(["--warm-up", &WARM_UP.to_string()]);
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let Output { status, stdout, stderr } = command.output().await.context("failed to run portmap-pod bench")?;
        ensure!(status.success(), "portmap-pod bench failed: {}", String::from_utf8_lossy(&stderr).trim_end());
        serde_json::from_slice(&stdout).context("failed to parse the output of portmap-pod bench")
    }
}

fn serving(node: &Node, name: &str) -> Result<Pod> {
    let mut pod = node.pod(name)?;
    pod.serve_in_turn(&[Listen::tcp(TARGET_PORT)])?;
    pod.serve(&[Listen::udp(TARGET_PORT)])?;
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

/// A Service with this node port, and its EndpointSlice.
fn service(node_port: u16, pod: &Pod, node: &Node) -> [Value; 2] {
    let name = format!("s{node_port}");
    let ports: Vec<Value> = ["TCP", "UDP"].iter().map(|protocol| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": 80, "targetPort": TARGET_PORT, "nodePort": node_port})).collect();
    let slice_ports: Vec<Value> = ["TCP", "UDP"]
        .iter()
        .map(|protocol| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": TARGET_PORT}))
        .collect();
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "clusterIP": format!("10.96.255.{}", node_port - 30_000), "ports": ports},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": slice_ports,
            "endpoints": [{"addresses": [pod.ipv4().to_string()], "nodeName": node.name(), "conditions": {"ready": true}}],
        }),
    ]
}

/// One of the further Services.
fn other_service(number: u32) -> Value {
    let [_, _, high, low] = number.to_be_bytes();
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("other-{number}")},
        "spec": {"clusterIP": format!("10.97.{high}.{low}"), "ports": [{"port": 80}]},
    })
}
