//! Measures connections of a client outside the node to a node port, compared with plain routing to a pod. Runs `portmap-pod
//! bench` in the namespace of the client ([`scene`]). Then it measures the programs alone ([`crate::packets`]).
//!
//! ```text
//! client ── router ──┬── node-1, portmap ──── pod a
//!                    ├── node-2 ───────────── pod c
//!                    ├── node-3 ───────────── pod e
//!                    └── node-4, kube-proxy ─ pod g      with --peer kube-proxy
//! ```
//!
//! Local backends: clean is pod e through node 3, miss is pod a through node 1, hit is the node port on node 1 with backend a,
//! peer is the node port on node 4 with backend g. Remote backends: clean is an address of pod c that is routed through node 3
//! and node 2, both ways; miss is the same through node 1; hit is the node port on node 1 with backend c; peer is the node port
//! on node 4 with backend c.

mod objects;
mod peer;
mod scene;

use anyhow::Result;
use clap::{Args, ValueEnum};
use portmap_harness::pod_bench::{Arm, Work};

use crate::figures::Aim;
use crate::machine::Machine;
use crate::{Report, Size, packets, progress};
use scene::Scene;

/// The node ports, each with the place of its backend.
const NODE_PORTS: [(Place, u16); 2] = [(Place::Local, 30_001), (Place::Remote, 30_002)];

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
/// a node port). A fourth arm, peer, is optional: to a node port of another proxy. Each round gives a ratio to its clean arm; the
/// report shows the median of these ratios. Afterwards the programs run alone, and their times are in nanoseconds per packet.
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
    /// Something else on the nodes with a proxy tracks connections: a stateful firewall
    #[arg(long)]
    firewall: bool,
    /// Let this many flows be half open per second before new ones are opened in the map OPENING: 0 opens all of them there
    #[arg(long, value_name = "COUNT")]
    half_open: Option<u32>,
    /// Measure another proxy on a node of its own, too; the first run builds Kubernetes, which takes minutes
    #[arg(long, value_enum)]
    peer: Option<Peer>,
}

/// Another Service proxy to compare portmap with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// kube-proxy of Kubernetes, in its nftables mode
    KubeProxy,
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
    progress("measuring the programs alone");
    let packets = packets::measure(arguments.services)?;
    let scene = Scene::set(&arguments).await?;
    let (mut connect, mut aims) = (Vec::new(), Vec::new());
    for (place, node_port) in NODE_PORTS {
        for work in WORKS {
            let report = scene.measure(&arguments, work, place, node_port).await?;
            let of_place = AIMS.iter().filter(|(of, at, _, _)| (*of, *at) == (work, place));
            aims.extend(of_place.filter_map(|(_, _, arm, limit)| {
                let measured = report.arms.get(arm)?.ratio.p50;
                Some(Aim::at_most(&format!("{work}, {} backend, ratio of {arm} to clean, p50", place.text()), *limit, measured))
            }));
            connect.push(report);
        }
    }
    aims.extend(packets.aims);
    let peer = arguments.peer.map_or("", |_| ", and a node port of kube-proxy (peer)");
    Ok(Report {
        bench: "north-south",
        about: format!(
            "a client outside the node calls a pod by plain routing (clean), a pod through portmap's node (miss), a node port \
             (hit){peer}; first with a local backend, then with a backend on another node"
        ),
        machine,
        size: Size { services: arguments.services, endpoints: 1 },
        aims,
        connect,
        programs: Vec::new(),
        sections: packets.sections,
    })
}
