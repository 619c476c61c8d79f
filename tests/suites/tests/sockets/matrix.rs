//! Every combination of transport, kind of Service address and action, for clients in a pod and on the node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use portmap_harness::listen::Listen;
use portmap_harness::patience::patience;
use portmap_harness::process::{Met, Process};
use portmap_harness::world::World;
use portmap_suites::service_objects::{
    Both, Endpoint, PORT, Service, Via, cluster_ip, endpoints, external_ip, load_balancer_ip, node_port,
};
use portmap_suites::service_stage::{Reached, Stage, Transport, answer, dropped, reach, refused};
use serde_json::json;

/// The time limit of each call, before scaling by [`patience`]. The kernel repeats a SYN only after one second.
const AT_ONCE: Duration = Duration::from_millis(900);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancer,
}

impl Kind {
    const ALL: [Self; 4] = [Self::ClusterIp, Self::NodePort, Self::ExternalIp, Self::LoadBalancer];

    fn address(self, world: &World, service: u8, via: Via) -> SocketAddr {
        match self {
            Self::ClusterIp => cluster_ip(service).at(via, PORT),
            Self::NodePort => Both { v4: world.ipv4(), v6: world.ipv6() }.at(via, node_port(service)),
            Self::ExternalIp => external_ip(service).at(via, PORT),
            Self::LoadBalancer => load_balancer_ip(service).at(via, PORT),
        }
    }
}

/// The action of a Service. The discriminant is the number of the Service, which determines its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Forward = 1,
    Refuse = 2,
    Drop = 3,
}

impl Action {
    const ALL: [Self; 3] = [Self::Forward, Self::Refuse, Self::Drop];

    /// The action of the Service at this kind of address, for clients in pods and on the node. The internal policy affects only
    /// ClusterIPs, and source ranges affect only load balancer addresses. The external policy affects only clients outside the
    /// node. So external IPs and node ports never drop.
    fn at(self, kind: Kind) -> Self {
        match (self, kind) {
            (Self::Drop, Kind::NodePort | Kind::ExternalIp) => Self::Forward,
            (action, Kind::ClusterIp | Kind::NodePort | Kind::ExternalIp | Kind::LoadBalancer) => action,
        }
    }

    fn expects(self, transport: Transport, address: SocketAddr) -> [Met<Reached>; 2] {
        ["a", "b"].map(|pod| match self {
            Self::Forward => Ok(Reached { who: answer(pod, transport), shown: address }),
            Self::Refuse => refused(transport),
            Self::Drop => dropped(),
        })
    }
}

fn services(stage: &Stage) -> [Service; 3] {
    let nobody = json!({
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": ["203.0.113.0/24", "2001:db8:113::/48"],
    });
    let elsewhere = stage.pods.iter().map(|pod| Endpoint::of(pod).node("elsewhere"));
    [
        Service::new("forward", 1).exposed(1).endpoints(endpoints(&stage.pods)),
        Service::new("refuse", 2).exposed(2),
        Service::new("drop", 3).exposed(3).spec(nobody).endpoints(elsewhere),
    ]
}

/// The node listens on the node ports itself. Its answer shows a connection that was not translated.
fn listens() -> Vec<Listen> {
    Action::ALL
        .iter()
        .flat_map(|action| [Listen::tcp(node_port(*action as u8)), Listen::udp(node_port(*action as u8))])
        .collect()
}

fn check(process: &Process, from: &str, world: &World, wrong: &mut Vec<String>) {
    for (via, kind) in Via::ALL.iter().flat_map(|via| Kind::ALL.map(|kind| (*via, kind))) {
        for (transport, action) in Transport::ALL.iter().flat_map(|transport| Action::ALL.map(|action| (*transport, action))) {
            let address = kind.address(world, action as u8, via);
            let start = Instant::now();
            let met = reach(process, transport, address);
            let took = start.elapsed();
            let expected = action.at(kind).expects(transport, address);
            if !expected.contains(&met) || took > patience(AT_ONCE) {
                wrong.push(format!(
                    "{from}, {via:?}, {transport:?}, {kind:?} of {action:?} ({address}): {met:?} after {took:?}, expected {:?}",
                    expected[0]
                ));
            }
        }
    }
}

#[test]
fn every_combination_has_its_action() -> Result<()> {
    let mut stage = Stage::new("matrix", &["a", "b"], &[])?;
    let _node = stage.world.serve(&listens())?;
    stage.apply(&services(&stage))?;
    let mut wrong = Vec::new();
    check(&stage.process()?, "from a pod", &stage.world, &mut wrong);
    check(&Process::on_node(&stage.world)?, "from the node", &stage.world, &mut wrong);
    assert!(wrong.is_empty(), "{} combinations are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
