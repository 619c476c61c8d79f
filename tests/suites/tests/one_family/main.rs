//! A node of one IP family: the other family is switched off in the kernel, or no address of it is in use. The agent starts and
//! attaches all programs, and translates the remaining family.
//!
//! Needs: root and BPF.

use std::net::SocketAddr;

use anyhow::Result;
use portmap_harness::kernel::Features;
use portmap_harness::process::Process;
use portmap_harness::world::{Families, World};
use portmap_suites::service_objects::{
    Both, PORT, Service, Via, cluster_ip, endpoints, external_ip, load_balancer_ip, node, node_port,
};
use portmap_suites::service_stage::{Reached, Stage, Transport, answer, dropped, reach, refused};
use serde_json::json;

const CIDRS: [&str; 2] = ["--service-cidr", "10.96.0.0/24,fd00:10:96::/112"];

/// The families of the Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    /// Single-stack Services of the node's family.
    Single,
    /// Dual-stack Services, as in a cluster whose other nodes have both families.
    Dual,
}

/// Service 1 has a pod as its endpoint, Service 2 has none.
fn stage(name: &str, families: Families, stack: Stack) -> Result<Stage> {
    let world = World::of(name, families)?;
    let own = if families == Families::V6 { world.ipv6().into() } else { world.ipv4().into() };
    let mut stage = Stage::in_world(world, &["a"], &CIDRS, vec![node(&[own])])?;
    let service = |name, number| {
        let service = Service::new(name, number).exposed(number);
        if stack == Stack::Dual { service } else { service.spec(single(number, families)) }
    };
    stage.apply(&[service("web", 1).endpoints(endpoints(&stage.pods)), service("empty", 2)])?;
    Ok(stage)
}

/// Fields of a single-stack Service of this family, as the API server sets them.
fn single(number: u8, families: Families) -> serde_json::Value {
    let Both { v4, v6 } = cluster_ip(number);
    let (ip, family) = if families == Families::V6 { (v6.to_string(), "IPv6") } else { (v4.to_string(), "IPv4") };
    json!({"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": [family]})
}

/// The addresses of the Service with this number: ClusterIP, external IP, load balancer address and node port of the node.
fn addresses(world: &World, number: u8, via: Via) -> [SocketAddr; 4] {
    let node = Both { v4: world.ipv4(), v6: world.ipv6() };
    let [cluster, external, balancer] = [cluster_ip(number), external_ip(number), load_balancer_ip(number)];
    [cluster.at(via, PORT), external.at(via, PORT), balancer.at(via, PORT), node.at(via, node_port(number))]
}

fn check(name: &str, families: Families, stack: Stack, via: Via) -> Result<()> {
    let stage = stage(name, families, stack)?;
    for process in [stage.process()?, Process::on_node(&stage.world)?] {
        for transport in Transport::ALL {
            for address in addresses(&stage.world, 1, via) {
                let reached = Reached { who: answer("a", transport), shown: address };
                assert_eq!(reach(&process, transport, address), Ok(reached), "{stack:?} {transport:?} {address}");
            }
            for address in addresses(&stage.world, 2, via) {
                assert_eq!(reach(&process, transport, address), refused(transport), "{stack:?} {transport:?} {address}");
            }
            assert_eq!(reach(&process, transport, cluster_ip(200).at(via, PORT)), dropped(), "{stack:?} {transport:?}");
        }
    }
    Ok(())
}

/// IPv4-mapped addresses on `AF_INET6` sockets are tested too, if the kernel has IPv6.
#[test]
fn a_node_without_ipv6_translates_ipv4() -> Result<()> {
    let mapped = Features::here().has_ipv6.then_some(Via::Mapped);
    for via in [Some(Via::V4), mapped].into_iter().flatten() {
        check("v4-single", Families::V4, Stack::Single, via)?;
        check("v4-dual", Families::V4, Stack::Dual, via)?;
    }
    Ok(())
}

#[test]
fn a_node_without_ipv4_translates_ipv6() -> Result<()> {
    if !Features::here().has_ipv6 {
        // The kernel has no IPv6, so there is nothing to test.
        return Ok(());
    }
    check("v6-single", Families::V6, Stack::Single, Via::V6)?;
    check("v6-dual", Families::V6, Stack::Dual, Via::V6)
}

/// A connection to the missing family fails at once with an error of the kernel, so that the client can try its next address.
#[test]
fn the_other_family_fails_at_once() -> Result<()> {
    let others = [(Families::V4, Via::V6), (Families::V6, Via::V4)];
    for (families, via) in others.into_iter().filter(|(families, _)| *families == Families::V4 || Features::here().has_ipv6) {
        let stage = stage("other", families, Stack::Dual)?;
        let process = stage.process()?;
        for transport in Transport::ALL {
            let address = cluster_ip(1).at(via, PORT);
            let error = reach(&process, transport, address).err().map(|error| error.to_string()).unwrap_or_default();
            let is_the_kernels = ["ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EACCES"].contains(&error.as_str());
            assert!(is_the_kernels, "{transport:?} {address}: {error}");
        }
    }
    Ok(())
}
