//! The peer's address that a client sees. For translated sockets it is the Service's, but the pod's on TCP with `--peer-names
//! pod`.

use anyhow::Result;
use portmap_harness::listen::Protocol;
use portmap_harness::pod_socket::Datagram;
use portmap_suites::service_objects::{Both, Endpoint, PORT, Service, TARGET_PORT, Via, cluster_ip, endpoints, external_ip};
use portmap_suites::service_stage::{Stage, Transport, answer, reach};

/// Service 1 has the pod `a` as its endpoint, Service 2 the pod `b`.
fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a", "b"], &[])?;
    let services = [("one", 1), ("two", 2)].into_iter().zip(&stage.pods);
    let services =
        services.map(|((name, number), pod)| Service::new(name, number).exposed(number).endpoints([Endpoint::of(pod)]));
    stage.apply(&services.collect::<Vec<_>>())?;
    Ok(stage)
}

fn datagram(pod: &str, source: std::net::SocketAddr) -> Datagram {
    Datagram { text: answer(pod, Transport::UdpUnconnected), source: Some(source) }
}

/// With `--peer-names pod`, the programs store no note on TCP sockets: `getpeername()` returns the pod's address. UDP sockets
/// still show the Service.
#[test]
fn tcp_sockets_may_show_the_pod() -> Result<()> {
    let mut stage = Stage::new("pod-names", &["a"], &["--peer-names", "pod"])?;
    stage.apply(&[Service::new("one", 1).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    for via in Via::ALL {
        let (service, pod) = (cluster_ip(1).at(via, PORT), Both::of(&stage.pods[0]).at(via, TARGET_PORT));
        assert_eq!(reach(&process, Transport::Tcp, service)?.shown, pod);
        for transport in [Transport::UdpConnected, Transport::UdpUnconnected] {
            assert_eq!(reach(&process, transport, service)?.shown, service);
        }
    }
    Ok(())
}

#[test]
fn a_connection_shows_the_service_for_its_whole_life() -> Result<()> {
    let mut stage = stage("peer")?;
    let process = stage.process()?;
    let mut sockets = Vec::new();
    for (via, protocol) in Via::ALL.iter().flat_map(|via| [Protocol::Tcp, Protocol::Udp].map(|protocol| (*via, protocol))) {
        for address in [cluster_ip(1).at(via, PORT), external_ip(1).at(via, PORT)] {
            let socket = process.connected(address, protocol)?;
            assert_eq!(socket.peer(), Ok(address));
            sockets.push((socket, address, protocol));
        }
    }
    // The deletion of the Service does not affect open TCP connections.
    stage.apply(&[])?;
    for (socket, address, _) in sockets.iter().filter(|(_, _, protocol)| *protocol == Protocol::Tcp) {
        assert_eq!((socket.peer(), socket.ask()), (Ok(*address), Ok(answer("a", Transport::Tcp))));
    }
    Ok(())
}

/// A server's accepted socket shows the client's own address, and an untranslated connection shows the pod.
#[test]
fn servers_and_plain_connections_show_the_real_peer() -> Result<()> {
    let stage = stage("plain")?;
    let (client, server) = (stage.process()?, portmap_harness::process::Process::in_pod(&stage.pods[0])?);
    for (via, port) in Via::ALL.into_iter().zip(9000..) {
        let address = Both::of(&stage.pods[0]).at(via, port);
        let listener = server.open_for(address, Protocol::Tcp)?;
        listener.bind(address)?;
        listener.listen()?;
        let socket = client.connected(address, Protocol::Tcp)?;
        let accepted = listener.accept()?;
        assert_eq!((socket.peer(), accepted.peer()), (Ok(address), socket.local()), "{address}");
        let pod = Both::of(&stage.pods[1]).at(via, TARGET_PORT);
        for transport in Transport::ALL {
            assert_eq!(reach(&client, transport, pod)?.shown, pod, "{transport:?}");
        }
    }
    Ok(())
}

/// One socket sends to several Services and plain addresses. Each answer shows the address that the request was sent to.
#[test]
fn answers_show_the_address_of_the_request() -> Result<()> {
    let stage = stage("turns")?;
    let process = stage.process()?;
    for via in Via::ALL {
        let [one, two] = [1, 2].map(|number| cluster_ip(number).at(via, PORT));
        let [a, b] = [0, 1].map(|pod| Both::of(&stage.pods[pod]).at(via, TARGET_PORT));
        let socket = process.open_for(one, Protocol::Udp)?;
        for _ in 0..3 {
            for (address, pod) in [(one, "a"), (two, "b"), (b, "b"), (one, "a"), (a, "a"), (two, "b")] {
                assert_eq!(socket.ask_at(address), Ok(datagram(pod, address)), "{address}");
            }
        }
    }
    Ok(())
}

/// Answers may arrive late and in another order than the requests.
#[test]
fn late_answers_show_their_service() -> Result<()> {
    let stage = stage("later")?;
    let process = stage.process()?;
    for via in Via::ALL {
        let addresses = [1, 2].map(|number| cluster_ip(number).at(via, PORT));
        let socket = process.open_for(addresses[0], Protocol::Udp)?;
        assert_eq!(socket.send_all(&addresses), Ok(2));
        let mut answers = [socket.receive()?, socket.receive()?];
        answers.sort_by(|a, b| a.text.cmp(&b.text));
        assert_eq!(answers, [datagram("a", addresses[0]), datagram("b", addresses[1])]);
    }
    Ok(())
}

/// A socket sends to one pod by the ClusterIP, by the external IP, and by the pod's own address. The answer shows the address
/// of the last request.
#[test]
fn the_last_send_to_a_pod_decides_the_source() -> Result<()> {
    let stage = stage("last")?;
    let process = stage.process()?;
    for via in Via::ALL {
        let (service, external) = (cluster_ip(1).at(via, PORT), external_ip(1).at(via, PORT));
        let pod = Both::of(&stage.pods[0]).at(via, TARGET_PORT);
        let socket = process.open_for(service, Protocol::Udp)?;
        for address in [service, pod, service, external, pod, external, service, pod] {
            assert_eq!(socket.ask_at(address), Ok(datagram("a", address)), "{address}");
        }
    }
    Ok(())
}

/// Datagrams of other pods, and of other ports of the same pod, show their own address.
#[test]
fn only_datagrams_of_the_backend_show_the_service() -> Result<()> {
    let stage = stage("own")?;
    let client = stage.process()?;
    for via in Via::ALL {
        let service = cluster_ip(1).at(via, PORT);
        let socket = client.open_for(service, Protocol::Udp)?;
        assert_eq!(socket.ask_at(service), Ok(datagram("a", service)));
        let here = Both::of(&stage.client).at(via, socket.local()?.port());
        for pod in &stage.pods {
            let stranger = portmap_harness::process::Process::in_pod(pod)?;
            let other = stranger.open_for(here, Protocol::Udp)?;
            let from = Both::of(pod).at(via, 7000);
            other.bind(from)?;
            other.send_to(here)?;
            assert_eq!(socket.receive()?, Datagram { text: "who".into(), source: Some(from) });
        }
        assert_eq!(socket.ask_at(service), Ok(datagram("a", service)));
    }
    Ok(())
}

/// A socket sends to more Services than the programs can remember for it. No answer may show another Service.
#[test]
fn answers_never_show_another_service() -> Result<()> {
    const SERVICES: u8 = 40;
    let mut stage = Stage::new("many", &["a", "b"], &[])?;
    let all = (1..=SERVICES).map(|number| {
        let pod = usize::from(number % 2);
        Service::new(&format!("s{number}"), number).endpoints([Endpoint::of(&stage.pods[pod])])
    });
    stage.apply(&all.collect::<Vec<_>>())?;
    let process = stage.process()?;
    for via in Via::ALL {
        let socket = process.open_for(cluster_ip(1).at(via, PORT), Protocol::Udp)?;
        for number in (1..=SERVICES).chain((1..=SERVICES).rev()) {
            let address = cluster_ip(number).at(via, PORT);
            let pod = if number % 2 == 0 { "a" } else { "b" };
            assert_eq!(socket.ask_at(address), Ok(datagram(pod, address)));
        }
    }
    Ok(())
}

/// A pod connects to its own Service, of which it is the only backend.
#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    let mut stage = Stage::new("hairpin", &["a"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    let process = portmap_harness::process::Process::in_pod(&stage.pods[0])?;
    for (via, transport) in Via::ALL.iter().flat_map(|via| Transport::ALL.map(|transport| (*via, transport))) {
        let address = cluster_ip(1).at(via, PORT);
        let reached = reach(&process, transport, address)?;
        assert_eq!((reached.who, reached.shown), (answer("a", transport), address));
    }
    Ok(())
}
