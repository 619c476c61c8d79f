//! Tests of the harness's topologies: plain routing between clients, nodes and pods, without portmap.

use anyhow::Result;
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::topology::{Firewall, HOST_PORT, Topology};
use portmap_harness::world::Pod;

const LISTENS: [Listen; 2] = [Listen { protocol: Protocol::Tcp, port: 8080 }, Listen { protocol: Protocol::Udp, port: 8080 }];

/// Expects answers from this server over both families and protocols.
fn expect(from: &Pod, to: Both, port: u16, server: &str) -> Result<()> {
    for via in [Via::V4, Via::V6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let answers = from.connect(to.at(via, port), protocol, 2)?;
            let expected = [(format!("{server} {port}/{protocol}"), 2)].into();
            assert_eq!(answers.replies, expected, "{} to {server} by {via:?} and {protocol}: {answers}", from.name());
        }
    }
    Ok(())
}

#[test]
fn everyone_reaches_pods_and_host_servers() -> Result<()> {
    for firewall in [Firewall::None, Firewall::Stateful] {
        let topology = Topology::new("routes", firewall)?;
        let [one, two] = &topology.nodes;
        let (mut a, mut b) = (one.pod("a")?, two.pod("b")?);
        a.serve(&LISTENS)?;
        b.serve(&LISTENS)?;
        let listens = [Listen::tcp(HOST_PORT), Listen::udp(HOST_PORT)];
        let _servers = [one.serve(&listens)?, two.serve(&listens)?];
        for (from, others) in [(&topology.client, [&a, &b]), (&topology.neighbour, [&a, &b]), (&a, [&a, &b]), (&b, [&a, &b])] {
            for pod in others {
                expect(from, Both::of(pod), 8080, pod.name())?;
            }
            for node in [one, two] {
                expect(from, node.addresses(), HOST_PORT, node.name())?;
            }
        }
        if firewall == Firewall::Stateful {
            assert_eq!((one.invalid_packets()?, two.invalid_packets()?), (0, 0));
        }
    }
    Ok(())
}
