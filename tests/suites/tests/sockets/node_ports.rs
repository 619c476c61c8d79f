//! Node ports: the addresses of the node that serve them, and addresses and sockets that must not be translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use portmap_harness::kernel::Features;
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::process::{Met, Process};
use portmap_harness::say;
use portmap_harness::world::{Server, World};
use portmap_suites::service_objects::{Both, PORT, Service, Via, cluster_ip, endpoints, node, node_port};
use portmap_suites::service_stage::{Stage, Transport, answer, eventually, reach, refused, serving, who};

const NUMBER: u8 = 80;
/// The addresses 0.0.0.0 and [::]. A `connect()` to them reaches [`LOCALHOST`].
const UNSPECIFIED: Both = Both { v4: Ipv4Addr::UNSPECIFIED, v6: Ipv6Addr::UNSPECIFIED };
const LOCALHOST: Both = Both { v4: Ipv4Addr::LOCALHOST, v6: Ipv6Addr::LOCALHOST };

/// A second address of the node in each family.
fn second() -> Both {
    Both { v4: Ipv4Addr::new(10, 244, 0, 250), v6: "fd00:10:244::fa".parse().unwrap_or(Ipv6Addr::UNSPECIFIED) }
}

fn add_second(world: &World) -> Result<()> {
    let [v4, v6] = second().addresses();
    world.ip(&format!("addr add {v4}/24 dev pods\naddr add {v6}/64 dev pods nodad"))
}

fn first(world: &World) -> Both {
    Both { v4: world.ipv4(), v6: world.ipv6() }
}

fn listens() -> [Listen; 2] {
    [Listen::tcp(node_port(NUMBER)), Listen::udp(node_port(NUMBER))]
}

/// A node with a Service that has a node port. From [`Self::new`], it has two addresses of each family, and the Node object has
/// the first. A server of the node listens on the node port too, so that an untranslated connection is recognisable.
struct Node {
    stage: Stage,
    _own: Server,
}

impl Node {
    fn new(name: &str, arguments: &[&str]) -> Result<Self> {
        let world = World::new(name)?;
        add_second(&world)?;
        let objects = vec![node(&first(&world).addresses())];
        Self::complete(Stage::in_world(world, &["a"], arguments, objects)?)
    }

    fn complete(mut stage: Stage) -> Result<Self> {
        let own = stage.world.serve(&listens())?;
        stage.apply(&[Service::new("web", 1).exposed(NUMBER).endpoints(endpoints(&stage.pods))])?;
        Ok(Self { stage, _own: own })
    }

    /// The answers at the node port of an address: IPv4, then IPv6.
    fn met(process: &Process, address: Both) -> [Met<String>; 2] {
        [Via::V4, Via::V6].map(|via| who(process, Transport::Tcp, address.at(via, node_port(NUMBER))))
    }

    /// Expects these answers (IPv4, IPv6) for a client in a pod and for a client on the node.
    fn expect(&self, address: Both, expected: [&str; 2]) -> Result<()> {
        let expected = expected.map(|name| Ok(name.to_owned()));
        for (from, process) in [("a pod", self.stage.process()?), ("the node", Process::on_node(&self.stage.world)?)] {
            assert_eq!(Self::met(&process, address), expected, "from {from} to {address:?}");
        }
        Ok(())
    }
}

const POD: &str = "a 8080/TCP";
const OWN: &str = "node 30080/TCP";

#[test]
fn by_default_node_ports_are_on_the_addresses_of_the_node_object() -> Result<()> {
    let node = Node::new("primary", &[])?;
    node.expect(first(&node.stage.world), [POD, POD])?;
    node.expect(second(), [OWN, OWN])
}

#[test]
fn without_a_node_object_node_ports_are_on_all_addresses_but_loopback() -> Result<()> {
    let node = Node::complete(Stage::new("no-node", &["a"], &[])?)?;
    node.expect(first(&node.stage.world), [POD, POD])?;
    let process = Process::on_node(&node.stage.world)?;
    assert_eq!(Node::met(&process, LOCALHOST), [Ok(OWN.to_owned()), Ok(OWN.to_owned())]);
    assert_eq!(Node::met(&process, first(&node.stage.world)), [Ok(POD.to_owned()), Ok(POD.to_owned())]);
    // An address that is added while the agent runs gets the node port too.
    add_second(&node.stage.world)?;
    eventually("the new address has the node port", || {
        Ok((Node::met(&process, second()) == [Ok(POD.to_owned()), Ok(POD.to_owned())]).then_some(()))
    })?;
    node.expect(second(), [POD, POD])
}

/// A family without a range has node ports on all its addresses except loopback and link-local IPv6 addresses.
#[test]
fn ranges_select_addresses_of_their_family() -> Result<()> {
    let node = Node::new("cidr", &["--nodeport-addresses", "10.244.0.250/32"])?;
    node.expect(first(&node.stage.world), [OWN, POD])?;
    node.expect(second(), [POD, POD])?;
    let node = Node::new("cidrs", &["--nodeport-addresses", "10.244.0.248/29,fd00:10:244::fa/128"])?;
    node.expect(first(&node.stage.world), [OWN, OWN])?;
    node.expect(second(), [POD, POD])
}

#[test]
fn all_selects_all_addresses_but_loopback() -> Result<()> {
    let node = Node::new("all", &["--nodeport-addresses", "all"])?;
    node.expect(first(&node.stage.world), [POD, POD])?;
    node.expect(second(), [POD, POD])
}

/// Loopback addresses have node ports only if the flag selects them, and only in the host's network namespace. A pod's loopback
/// addresses are the pod's own.
#[test]
fn loopback_node_ports_are_for_the_hosts_namespace() -> Result<()> {
    if !Features::here().tells_namespaces {
        say::skipped("loopback node ports", "before 5.14 only the kernel's initial network namespace is known as the host's");
        return Ok(());
    }
    let mut node = Node::new("localhost", &["--nodeport-addresses", "primary,localhost"])?;
    node.stage.client.serve(&listens())?;
    let [on_node, in_pod] = [Process::on_node(&node.stage.world)?, node.stage.process()?];
    for address in [LOCALHOST, UNSPECIFIED] {
        assert_eq!(Node::met(&on_node, address), [Ok(POD.to_owned()), Ok(POD.to_owned())], "{address:?}");
        let own = "client 30080/TCP".to_owned();
        assert_eq!(Node::met(&in_pod, address), [Ok(own.clone()), Ok(own)], "{address:?}");
    }
    node.expect(first(&node.stage.world), [POD, POD])?;
    for address in [Via::V4, Via::V6, Via::Mapped].map(|via| LOCALHOST.at(via, node_port(NUMBER))) {
        for transport in Transport::ALL {
            let reached = reach(&on_node, transport, address)?;
            assert_eq!((reached.who, reached.shown), (answer("a", transport), address), "{transport:?}");
        }
    }
    Ok(())
}

#[test]
fn a_range_may_select_loopback_of_one_family() -> Result<()> {
    if !Features::here().tells_namespaces {
        say::skipped("loopback node ports", "before 5.14 only the kernel's initial network namespace is known as the host's");
        return Ok(());
    }
    let node = Node::new("localhost-v6", &["--nodeport-addresses", "primary,::1/128"])?;
    let on_node = Process::on_node(&node.stage.world)?;
    for address in [LOCALHOST, UNSPECIFIED] {
        assert_eq!(Node::met(&on_node, address), [Ok(OWN.to_owned()), Ok(POD.to_owned())], "{address:?}");
    }
    Ok(())
}

/// Some programs add ClusterIPs to an interface of the node: kube-proxy in IPVS mode (kube-ipvs0) and `NodeLocal DNSCache`.
#[test]
fn a_service_address_on_an_interface_has_no_node_ports() -> Result<()> {
    let world = World::new("ipvs")?;
    let [v4, v6] = cluster_ip(1).addresses();
    world.ip(&format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad"))?;
    let node = Node::complete(Stage::in_world(world, &["a"], &["--nodeport-addresses", "all"], Vec::new())?)?;
    node.expect(first(&node.stage.world), [POD, POD])?;
    let process = Process::on_node(&node.stage.world)?;
    assert_eq!(Node::met(&process, cluster_ip(1)), [refused(Transport::Tcp), refused(Transport::Tcp)]);
    Ok(())
}

/// A `connect()` to 0.0.0.0 or [::] reaches a loopback address. By default, loopback addresses have no node ports.
#[test]
fn loopback_is_left_alone_by_default() -> Result<()> {
    let node = Node::new("no-localhost", &[])?;
    let process = Process::on_node(&node.stage.world)?;
    for address in [LOCALHOST, UNSPECIFIED] {
        assert_eq!(Node::met(&process, address), [Ok(OWN.to_owned()), Ok(OWN.to_owned())], "{address:?}");
    }
    Ok(())
}

/// The port number of a node port is not translated on the addresses of another node or of a pod.
#[test]
fn the_node_port_on_other_addresses_is_left_alone() -> Result<()> {
    let mut node = Node::new("elsewhere", &[])?;
    let mut other = serving(&node.stage.world, "other-node")?;
    other.serve(&listens())?;
    node.expect(Both::of(&other), ["other-node 30080/TCP", "other-node 30080/TCP"])?;
    node.stage.pods[0].serve(&listens())?;
    node.expect(Both::of(&node.stage.pods[0]), ["a 30080/TCP", "a 30080/TCP"])?;
    // The Service's port is not served on addresses of the node.
    let process = node.stage.process()?;
    let address: SocketAddr = (node.stage.world.ipv4(), PORT).into();
    assert_eq!(who(&process, Transport::Tcp, address), refused(Transport::Tcp));
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), Ok(POD.to_owned()));
    Ok(())
}

/// Servers can bind to the numbers of node ports and Service ports.
#[test]
fn bind_and_listen_are_not_affected() -> Result<()> {
    let world = World::new("bind")?;
    let objects = vec![node(&first(&world).addresses())];
    let mut stage = Stage::in_world(world, &["a"], &[], objects)?;
    stage.apply(&[
        Service::new("web", 1).exposed(NUMBER).endpoints(endpoints(&stage.pods)),
        Service::new("empty", 2).exposed(81),
    ])?;
    let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let (on_node, in_pod) = (Process::on_node(&stage.world)?, stage.process()?);
    for (process, own) in [(&on_node, first(&stage.world)), (&in_pod, Both::of(&stage.client))] {
        for (address, port) in own
            .addresses()
            .iter()
            .chain(&unspecified)
            .flat_map(|own| [node_port(NUMBER), node_port(81), PORT].map(|port| (*own, port)))
        {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let address = SocketAddr::new(address, port);
                let socket = process.open_for(address, protocol)?;
                assert_eq!(socket.bind(address), Ok(()), "{protocol} {address}");
                assert_eq!(socket.local(), Ok(address));
                if protocol == Protocol::Tcp {
                    assert_eq!(socket.listen(), Ok(()), "{address}");
                }
            }
        }
    }
    Ok(())
}

/// If the node port is removed from the Service, the node does not serve it any more. It may be added again.
#[test]
fn node_ports_follow_their_service() -> Result<()> {
    let mut node = Node::new("comes", &[])?;
    let own = first(&node.stage.world);
    let endpoints = endpoints(&node.stage.pods);
    node.expect(own, [POD, POD])?;
    node.stage.apply(&[Service::new("web", 1).endpoints(endpoints.clone())])?;
    node.expect(own, [OWN, OWN])?;
    node.stage.apply(&[Service::new("web", 1).exposed(NUMBER).endpoints(endpoints)])?;
    node.expect(own, [POD, POD])
}

/// Other frontends are served while the agent waits for an address of the Node.
#[test]
fn node_ports_wait_for_an_address_of_the_node() -> Result<()> {
    let mut stage = Stage::in_world(World::new("no-address")?, &["a"], &[], vec![node(&[])])?;
    let services = [Service::new("web", 1).exposed(NUMBER).endpoints(endpoints(&stage.pods))];
    stage.apply(&services)?;
    let process = stage.process()?;
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), Ok(POD.to_owned()));
    stage.agent.wait_until("the log says that the node has no address", |agent| {
        Ok(agent.log().lines().any(|line| line.contains("WARN") && line.contains("address") && line.contains("node")))
    })?;
    let own = first(&stage.world);
    stage.apply_with(vec![node(&own.addresses())], &services)?;
    assert_eq!(Node::met(&process, own), [Ok(POD.to_owned()), Ok(POD.to_owned())]);
    Ok(())
}

/// Node ports move when the addresses of the Node object change.
#[test]
fn node_ports_follow_the_addresses_of_the_node_object() -> Result<()> {
    let mut node_with_two = Node::new("moves", &[])?;
    let services = [Service::new("web", 1).exposed(NUMBER).endpoints(endpoints(&node_with_two.stage.pods))];
    node_with_two.stage.apply_with(vec![node(&second().addresses())], &services)?;
    node_with_two.expect(first(&node_with_two.stage.world), [OWN, OWN])?;
    node_with_two.expect(second(), [POD, POD])
}
