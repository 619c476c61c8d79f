//! Addresses without a backend: refused, dropped, or left alone.

use std::net::SocketAddr;
use std::slice;

use anyhow::Result;
use portmap_harness::listen::{Listen, Protocol};
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip, endpoints, external_ip, load_balancer_ip};
use portmap_suites::service_stage::{Stage, Transport, answer, dropped, left_alone, reach, refused, who};
use serde_json::json;

const CIDRS: [&str; 4] = ["--service-cidr", "10.96.0.0/24", "--service-cidr", "fd00:10:96::/112"];
/// A port that no Service here has.
const UNDEFINED: u16 = 81;

fn stage(name: &str, arguments: &[&str]) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], arguments)?;
    stage.apply(&[Service::new("web", 1).exposed(1).endpoints(endpoints(&stage.pods))])?;
    Ok(stage)
}

/// Calls to undefined ports of a ClusterIP are refused with and without a ServiceCIDR, except a UDP `connect()`.
#[test]
fn an_undefined_port_of_a_cluster_ip_is_refused() -> Result<()> {
    for arguments in [&[][..], &CIDRS] {
        let stage = stage("undefined", arguments)?;
        let process = stage.process()?;
        for via in Via::ALL {
            let address = cluster_ip(1).at(via, UNDEFINED);
            for transport in [Transport::Tcp, Transport::UdpUnconnected] {
                assert_eq!(reach(&process, transport, address), refused(transport), "{transport:?} {address} {arguments:?}");
            }
        }
    }
    Ok(())
}

/// A Service port of TCP leaves the UDP port of the same number undefined, and the reverse.
#[test]
fn a_port_of_the_other_protocol_is_undefined() -> Result<()> {
    let mut stage = Stage::new("protocol", &["a"], &[])?;
    let [tcp, udp] = [Listen::tcp(PORT), Listen::udp(PORT)].map(|listen| [listen]);
    let only = |name, number, ports: [Listen; 1]| Service::new(name, number).ports(ports);
    stage.apply(&[
        only("tcp", 1, tcp).endpoints(endpoints(&stage.pods)),
        only("udp", 2, udp).endpoints(endpoints(&stage.pods)),
    ])?;
    let process = stage.process()?;
    for via in Via::ALL {
        let [tcp, udp] = [1, 2].map(|number| cluster_ip(number).at(via, PORT));
        assert_eq!(who(&process, Transport::Tcp, tcp), Ok(answer("a", Transport::Tcp)));
        assert_eq!(who(&process, Transport::UdpUnconnected, tcp), refused(Transport::UdpUnconnected), "{tcp}");
        assert_eq!(who(&process, Transport::UdpUnconnected, udp), Ok(answer("a", Transport::UdpUnconnected)));
        assert_eq!(who(&process, Transport::Tcp, udp), refused(Transport::Tcp), "{udp}");
    }
    Ok(())
}

/// `getaddrinfo()` connects a UDP socket to each address, and sorts the addresses by the results. A refusal would change the
/// order. The client has a route, as pods do.
#[test]
fn a_udp_connect_to_an_undefined_port_is_let_through() -> Result<()> {
    let stage = stage("probe", &CIDRS)?;
    stage.client.route_through_node()?;
    let process = stage.process()?;
    for via in Via::ALL {
        let address = cluster_ip(1).at(via, UNDEFINED);
        let socket = process.open_for(address, Protocol::Udp)?;
        assert_eq!(socket.connect(address), Ok(()), "{address}");
        assert_eq!(socket.peer(), Ok(address));
        let unspecified = socket.local()?.ip().to_canonical().is_unspecified();
        assert!(!unspecified, "the probe should get a source address for {address}");
        // On an IPv4-mapped socket a hook runs for each datagram. On other connected sockets no hook runs, and the datagram
        // leaves by the route.
        let sent = if via == Via::Mapped { refused(Transport::UdpConnected) } else { Ok(()) };
        assert_eq!(socket.send(), sent, "{address}");
        // `sendto()` with the address is refused.
        assert_eq!(process.open_for(address, Protocol::Udp)?.send_to(address), refused(Transport::UdpUnconnected));
    }
    Ok(())
}

#[test]
fn an_undefined_port_of_other_addresses_is_left_alone() -> Result<()> {
    let stage = stage("others", &CIDRS)?;
    let process = stage.process()?;
    for both in [external_ip(1), load_balancer_ip(1)] {
        for (via, transport) in Via::ALL.iter().flat_map(|via| Transport::ALL.map(|transport| (*via, transport))) {
            let address = both.at(via, UNDEFINED);
            assert_eq!(reach(&process, transport, address), left_alone(), "{transport:?} {address}");
        }
    }
    Ok(())
}

#[test]
fn an_unallocated_address_of_the_service_cidr_is_dropped() -> Result<()> {
    let stage = stage("unallocated", &["--service-cidr", "10.96.0.0/24,fd00:10:96::/112"])?;
    // The client has a route, so that a connection that is not dropped would leave the pod.
    stage.client.route_through_node()?;
    let process = stage.process()?;
    for (via, transport) in Via::ALL.iter().flat_map(|via| Transport::ALL.map(|transport| (*via, transport))) {
        let address = cluster_ip(200).at(via, PORT);
        assert_eq!(reach(&process, transport, address), dropped(), "{transport:?} {address}");
    }
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), Ok(answer("a", Transport::Tcp)));
    Ok(())
}

#[test]
fn addresses_outside_the_service_cidr_are_left_alone() -> Result<()> {
    let stage = stage("outside", &CIDRS)?;
    let process = stage.process()?;
    for address in ["10.96.1.1:80", "10.95.255.255:80", "[fd00:10:96::1:0]:80", "[::ffff:10.96.1.1]:80", "[fd00:10:95::1]:80"] {
        let address: SocketAddr = address.parse()?;
        for transport in Transport::ALL {
            assert_eq!(reach(&process, transport, address), left_alone(), "{transport:?} {address}");
        }
    }
    Ok(())
}

/// The address is dropped before the Service is created, and after it is deleted.
#[test]
fn an_address_is_dropped_before_and_after_its_service() -> Result<()> {
    let mut stage = Stage::new("lifetime", &["a"], &CIDRS)?;
    let service = Service::new("web", 1);
    let process = stage.process()?;
    let met = |transport| Via::ALL.map(|via| who(&process, transport, cluster_ip(1).at(via, PORT)));
    assert_eq!(met(Transport::Tcp), [dropped(), dropped(), dropped()]);
    stage.apply(slice::from_ref(&service))?;
    assert_eq!(met(Transport::Tcp), [Transport::Tcp; 3].map(refused));
    stage.apply(&[service.clone().endpoints(endpoints(&stage.pods))])?;
    for transport in Transport::ALL {
        let expected = Ok(answer("a", transport));
        assert_eq!(met(transport), [expected.clone(), expected.clone(), expected]);
    }
    stage.apply(&[])?;
    assert_eq!(met(Transport::Tcp), [dropped(), dropped(), dropped()]);
    Ok(())
}

/// If no endpoint serves, the action is refuse, even where the policy `Local` would drop.
#[test]
fn refuse_precedes_drop() -> Result<()> {
    let mut stage = Stage::new("priority", &["a"], &[])?;
    let local = json!({"internalTrafficPolicy": "Local"});
    let service = |endpoint| Service::new("web", 1).spec(local.clone()).endpoints(Some(endpoint));
    let pod = Endpoint::of(&stage.pods[0]);
    for (endpoint, expected) in [
        (pod.clone().node("elsewhere"), dropped()),
        (pod.clone().node("elsewhere").not_serving(), refused(Transport::Tcp)),
        (pod.clone().node("node").not_serving(), refused(Transport::Tcp)),
        (pod.clone(), dropped()),
        (pod.clone().node("node").terminating(), Ok("a 8080/TCP".to_owned())),
        (pod.node("node"), Ok("a 8080/TCP".to_owned())),
    ] {
        stage.apply(&[service(endpoint.clone())])?;
        for via in Via::ALL {
            let address = cluster_ip(1).at(via, PORT);
            assert_eq!(who(&stage.process()?, Transport::Tcp, address), expected, "{address} {endpoint:?}");
        }
    }
    Ok(())
}
