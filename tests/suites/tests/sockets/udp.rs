//! UDP sockets while the endpoints of a Service change. An unconnected socket keeps its backend while the backend serves. A
//! socket may be connected again.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::pod_socket::Datagram;
use portmap_harness::process::Socket;
use portmap_suites::service_objects::{Both, Endpoint, PORT, Service, TARGET_PORT, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, eventually, left_alone, refused};
use serde_json::json;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn service() -> Service {
    Service::new("dns", 1)
}

/// Starts a pod for each name, a client and an agent. All named pods are endpoints of Service 1.
fn stage(name: &str, pods: &[&str]) -> Result<Stage> {
    let mut stage = Stage::new(name, pods, &[])?;
    stage.apply(&[service().endpoints(endpoints(&stage.pods))])?;
    Ok(stage)
}

/// Sends a request to the address. Returns the index in `stage.pods` of the pod that answers.
fn pod_of(stage: &Stage, socket: &Socket<'_>, address: SocketAddr) -> Result<usize> {
    let Datagram { text, source } = socket.ask_at(address)?;
    assert_eq!(source, Some(address));
    let find = |pod: &portmap_harness::world::Pod| text == answer(pod.name(), Transport::UdpUnconnected);
    stage.pods.iter().position(find).with_context(|| format!("{text} is none of the pods"))
}

#[test]
fn an_unconnected_socket_keeps_its_backend_while_others_change() -> Result<()> {
    let mut stage = stage("stays", &NAMES)?;
    let process = stage.process()?;
    for via in Via::ALL {
        let address = cluster_ip(1).at(via, PORT);
        let all = endpoints(&stage.pods);
        stage.apply(&[service().endpoints(all.clone())])?;
        let socket = process.open_for(address, Protocol::Udp)?;
        let pod = pod_of(&stage, &socket, address)?;
        let others = all.iter().enumerate().filter(|(index, _)| *index != pod).map(|(_, endpoint)| endpoint.clone());
        let others: Vec<Endpoint> = others.collect();
        let own = [all[pod].clone()];
        for set in [[&own[..], &others[..1]].concat(), own.to_vec(), [&others[..], &own].concat(), all] {
            stage.apply(&[service().endpoints(set.clone())])?;
            for _ in 0..5 {
                assert_eq!(pod_of(&stage, &socket, address)?, pod, "{address} {set:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn an_unconnected_socket_keeps_a_terminating_backend() -> Result<()> {
    let mut stage = stage("terminating", &NAMES)?;
    let process = stage.process()?;
    for via in Via::ALL {
        let address = cluster_ip(1).at(via, PORT);
        let mut all = endpoints(&stage.pods);
        stage.apply(&[service().endpoints(all.clone())])?;
        let socket = process.open_for(address, Protocol::Udp)?;
        let pod = pod_of(&stage, &socket, address)?;
        all[pod] = all[pod].clone().terminating();
        stage.apply(&[service().endpoints(all.clone())])?;
        for _ in 0..5 {
            assert_eq!(pod_of(&stage, &socket, address)?, pod, "{address}: it still serves");
            // New sockets do not get the terminating backend.
            assert_ne!(pod_of(&stage, &process.open_for(address, Protocol::Udp)?, address)?, pod, "{address}");
        }
        all[pod] = Endpoint::of(&stage.pods[pod]).not_serving();
        stage.apply(&[service().endpoints(all)])?;
        let next = pod_of(&stage, &socket, address)?;
        assert_ne!(next, pod, "{address}: it does not serve any more");
        assert_eq!(pod_of(&stage, &socket, address)?, next);
    }
    Ok(())
}

#[test]
fn an_unconnected_socket_moves_with_its_next_datagram() -> Result<()> {
    let mut stage = stage("moves", &NAMES)?;
    let process = stage.process()?;
    for via in Via::ALL {
        let address = cluster_ip(1).at(via, PORT);
        let mut left = endpoints(&stage.pods);
        stage.apply(&[service().endpoints(left.clone())])?;
        let socket = process.open_for(address, Protocol::Udp)?;
        let mut names: Vec<usize> = (0..NAMES.len()).collect();
        while !left.is_empty() {
            let pod = pod_of(&stage, &socket, address)?;
            let at = names.iter().position(|name| *name == pod);
            let at = at.with_context(|| format!("{address}: the datagram went to a removed pod ({})", NAMES[pod]))?;
            names.remove(at);
            left.remove(at);
            stage.apply(&[service().endpoints(left.clone())])?;
        }
        assert_eq!(socket.send_to(address), refused(Transport::UdpUnconnected), "{address}: no backend is left");
        stage.apply(&[service().endpoints([Endpoint::of(&stage.pods[2])])])?;
        assert_eq!(pod_of(&stage, &socket, address)?, 2, "{address}: a backend was added");
    }
    Ok(())
}

/// An endpoint's address may be removed and added again, for another pod. Sockets that used the removed endpoint then choose
/// again among all endpoints.
#[test]
fn an_endpoint_that_returns_is_a_new_endpoint() -> Result<()> {
    let mut stage = stage("returns", &NAMES)?;
    let process = stage.process()?;
    let address = cluster_ip(1).at(Via::V4, PORT);
    let first = endpoints(&stage.pods[..1]);
    stage.apply(&[service().endpoints(first)])?;
    let sockets = (0..20).map(|_| Ok(process.open_for(address, Protocol::Udp)?)).collect::<Result<Vec<_>>>()?;
    for socket in &sockets {
        assert_eq!(pod_of(&stage, socket, address)?, 0);
    }
    stage.apply(&[service().endpoints(endpoints(&stage.pods[1..]))])?;
    stage.apply(&[service().endpoints(endpoints(&stage.pods))])?;
    let found = sockets.iter().map(|socket| pod_of(&stage, socket, address)).collect::<Result<BTreeSet<_>>>()?;
    // The probability that all sockets get one pod by chance is one in 5^19.
    assert!(found.len() > 1, "all sockets went back to the pod {found:?}");
    Ok(())
}

#[test]
fn a_socket_connects_to_several_services_in_turn() -> Result<()> {
    let mut stage = Stage::new("reconnect", &["a", "b"], &[])?;
    let services = [("one", 1), ("two", 2)].into_iter().zip(&stage.pods);
    let services = services.map(|((name, number), pod)| Service::new(name, number).endpoints([Endpoint::of(pod)]));
    stage.apply(&services.collect::<Vec<_>>())?;
    let process = stage.process()?;
    for via in Via::ALL {
        let [one, two] = [1, 2].map(|number| cluster_ip(number).at(via, PORT));
        let plain = Both::of(&stage.pods[1]).at(via, TARGET_PORT);
        let unused = cluster_ip(9).at(via, PORT);
        let socket = process.open_for(one, Protocol::Udp)?;
        for (address, pod) in [(one, "a"), (two, "b"), (plain, "b"), (one, "a"), (one, "a"), (plain, "b"), (two, "b")] {
            socket.connect(address)?;
            assert_eq!(socket.peer(), Ok(address));
            socket.send()?;
            let expected = Datagram { text: answer(pod, Transport::UdpConnected), source: Some(address) };
            assert_eq!(socket.receive()?, expected, "{address}");
        }
        // A failed connect keeps the previous connection of the socket.
        assert_eq!(socket.connect(unused), left_alone());
        assert_eq!(
            (socket.peer(), socket.ask()),
            (Ok(two), Ok(answer("b", Transport::UdpConnected))),
            "after a failed connect"
        );
    }
    Ok(())
}

#[test]
fn a_connect_succeeds_after_a_refused_one() -> Result<()> {
    let mut stage = Stage::new("again", &["a"], &[])?;
    stage.apply(&[service().endpoints(endpoints(&stage.pods)), Service::new("empty", 2)])?;
    let process = stage.process()?;
    for via in Via::ALL {
        let [good, empty] = [1, 2].map(|number| cluster_ip(number).at(via, PORT));
        let socket = process.open_for(good, Protocol::Udp)?;
        assert_eq!(socket.connect(empty), refused(Transport::UdpConnected));
        socket.connect(good)?;
        assert_eq!((socket.peer(), socket.ask()), (Ok(good), Ok(answer("a", Transport::UdpConnected))));
        assert_eq!(socket.send_to(empty), refused(Transport::UdpUnconnected));
        assert_eq!((socket.peer(), socket.ask()), (Ok(good), Ok(answer("a", Transport::UdpConnected))));
    }
    Ok(())
}

#[test]
fn a_dissolved_socket_sends_to_any_address() -> Result<()> {
    let stage = stage("dissolve", &["a", "b"])?;
    let process = stage.process()?;
    for via in Via::ALL {
        let service = cluster_ip(1).at(via, PORT);
        let socket = process.connected(service, Protocol::Udp)?;
        let text = socket.ask()?;
        socket.dissolve()?;
        assert!(socket.peer().is_err(), "{service}: the socket is not connected any more");
        for pod in &stage.pods {
            let plain = Both::of(pod).at(via, TARGET_PORT);
            let expected = Datagram { text: answer(pod.name(), Transport::UdpConnected), source: Some(plain) };
            // After `connect()` to `AF_UNSPEC`, a socket with an IPv6 peer still receives datagrams only from that peer (kernel
            // 6.18).
            if via != Via::V6 || expected.text == text {
                assert_eq!(socket.ask_at(plain), Ok(expected));
            }
        }
        // The disconnected socket keeps the backend of its earlier connection to the Service, as an unconnected socket does.
        for _ in 0..5 {
            assert_eq!(socket.ask_at(service), Ok(Datagram { text: text.clone(), source: Some(service) }));
        }
        socket.connect(service)?;
        assert_eq!(socket.peer(), Ok(service));
    }
    Ok(())
}

/// `sendto()` on a connected socket goes to its address argument. The connection stays.
#[test]
fn a_connected_socket_may_send_to_other_addresses() -> Result<()> {
    let mut stage = Stage::new("explicit", &["a", "b"], &[])?;
    let services = [("one", 1), ("two", 2)].into_iter().zip(&stage.pods);
    let services = services.map(|((name, number), pod)| Service::new(name, number).endpoints([Endpoint::of(pod)]));
    stage.apply(&services.collect::<Vec<_>>())?;
    let process = stage.process()?;
    let listener = portmap_harness::process::Process::in_pod(&stage.pods[1])?;
    for via in Via::ALL {
        let [one, two] = [1, 2].map(|number| cluster_ip(number).at(via, PORT));
        let socket = process.connected(one, Protocol::Udp)?;
        // A connected socket receives only from its peer, so an answer would not arrive. The other process must receive the
        // request instead.
        let elsewhere = Both::of(&stage.pods[1]).at(via, 9000);
        let other = listener.open_for(elsewhere, Protocol::Udp)?;
        other.bind(elsewhere)?;
        socket.send_to(elsewhere)?;
        assert_eq!(other.receive()?.text, "who");
        // `sendto()` with the address of the socket's own Service reaches the backend of that Service.
        assert_eq!(socket.ask_at(one)?.text, answer("a", Transport::UdpConnected));
        socket.send_to(two)?;
        assert_eq!(socket.peer(), Ok(one));
        assert_eq!(socket.ask(), Ok(answer("a", Transport::UdpConnected)));
    }
    Ok(())
}

#[test]
fn a_pod_that_ended_is_soon_replaced() -> Result<()> {
    let mut stage = stage("died", &["a", "b"])?;
    let process = stage.process()?;
    let address = cluster_ip(1).at(Via::V4, PORT);
    let socket = process.open_for(address, Protocol::Udp)?;
    let dead = pod_of(&stage, &socket, address)?;
    stage.pods.remove(dead);
    // Datagrams are not answered until the agent has applied the removal of the pod.
    stage.apply(&[service().endpoints(endpoints(&stage.pods))])?;
    eventually("the other pod answers", || Ok(socket.ask_at(address).ok())).map(drop)
}

/// On an `AF_INET6` socket with an IPv4-mapped peer, a hook runs for every datagram and gets the peer's address. The datagram
/// must reach the peer, even if that address is a frontend of another Service.
#[test]
fn the_address_of_the_peer_does_not_redirect_a_connected_socket() -> Result<()> {
    let mut stage = stage("diverted", &["a", "b"])?;
    let first = service().endpoints([Endpoint::of(&stage.pods[0])]);
    stage.apply(std::slice::from_ref(&first))?;
    let process = stage.process()?;
    let socket = process.connected(cluster_ip(1).at(Via::Mapped, PORT), Protocol::Udp)?;
    assert_eq!(socket.ask(), Ok(answer("a", Transport::UdpConnected)));
    let taken = Both::of(&stage.pods[0]);
    let second = Service::new("second", 2)
        .ports([Listen::udp(TARGET_PORT)])
        .spec(json!({"externalIPs": [taken.v4, taken.v6]}))
        .endpoints([Endpoint::of(&stage.pods[1])]);
    stage.apply(&[first, second])?;
    assert_eq!(socket.ask(), Ok(answer("a", Transport::UdpConnected)), "sent to the peer");
    // Another socket that sends to the pod's address reaches the other Service.
    let other = process.open(portmap_harness::pod_socket::Domain::Inet, Protocol::Udp)?;
    let answered = other.ask_at(taken.at(Via::V4, TARGET_PORT))?;
    assert_eq!(answered.text, answer("b", Transport::UdpUnconnected));
    Ok(())
}

/// If the send buffer is full, the kernel repeats an `io_uring` send later, with the address that is translated already. The
/// test does the same with `sendto()` to the pod's own address.
#[test]
fn a_repeated_send_keeps_its_service() -> Result<()> {
    let stage = stage("again", &["a"])?;
    let process = stage.process()?;
    for via in Via::ALL {
        let (service, pod) = (cluster_ip(1).at(via, PORT), Both::of(&stage.pods[0]).at(via, TARGET_PORT));
        let socket = process.open_for(service, Protocol::Udp)?;
        for address in [service, pod, pod] {
            socket.send_to(address)?;
        }
        for _ in 0..3 {
            let answered = Datagram { text: answer("a", Transport::UdpUnconnected), source: Some(service) };
            assert_eq!(socket.receive(), Ok(answered), "{service}");
        }
        // After an answer, a send to the pod's own address is a new request. Its answer shows the pod.
        assert_eq!(socket.ask_at(pod)?.source, Some(pod));
    }
    Ok(())
}
