//! Whether a program listens for each backend: on its port and protocol, at its address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Check, shorten, sockets::LocalSockets, tables::ServedPort};
use crate::{
    kernel::listeners::{Listener, Listeners},
    model::{Endpoint, Family, Protocol, ServicePort},
};

const NAME: &str = "listening";

/// The reason why no program takes the clients of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Programs listen on the backend's port only at these other addresses.
    OtherAddresses(BTreeSet<IpAddr>),
    /// Programs listen on the backend's port for clients of the other family only: `IPV6_V6ONLY`, or an IPv4 socket.
    OtherFamily,
    /// A program listens on the backend's port only for packets of some device, such as the loopback device.
    OtherDevice,
    /// Programs serve only these other ports of the backend's address, maybe none.
    OtherPorts {
        /// The ports of the Service port's protocol.
        ports: BTreeSet<u16>,
        /// Whether a program serves the backend's port with the other protocol.
        has_other_protocol: bool,
    },
}

/// The reason why no listener of the backend's namespace takes its clients; none if one does.
pub fn problem(backend: &Endpoint, protocol: Protocol, listeners: &Listeners) -> Option<Problem> {
    let of = |protocol| match protocol {
        Protocol::Tcp => &listeners.tcp,
        Protocol::Udp => &listeners.udp,
    };
    let serves = |listener: &&Listener| listener.serves(backend.address);
    let on_port = |listener: &&Listener| listener.port == backend.port;
    let found: Vec<&Listener> = of(protocol).iter().filter(on_port).collect();
    if found.iter().any(serves) {
        return None;
    }
    let others = |listener: &Listener| listener.address != backend.address && !listener.address.is_unspecified();
    if found.iter().any(|listener| listener.is_at(backend.address)) {
        return Some(Problem::OtherDevice);
    }
    if !found.is_empty() && found.iter().all(|listener| others(listener)) {
        return Some(Problem::OtherAddresses(found.iter().map(|listener| listener.address).collect()));
    }
    if !found.is_empty() {
        return Some(Problem::OtherFamily);
    }
    let ports = of(protocol).iter().filter(serves).map(|listener| listener.port).collect();
    let has_other_protocol = of(other(protocol)).iter().filter(on_port).any(|listener| serves(&listener));
    Some(Problem::OtherPorts { ports, has_other_protocol })
}

fn other(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Tcp => Protocol::Udp,
        Protocol::Udp => Protocol::Tcp,
    }
}

/// Backends of one service port for which no program listens, all for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// The service port.
    pub owner: ServicePort,
    /// The addresses of the backends.
    pub backends: Vec<IpAddr>,
    /// The Service, the observation and the remedy, as one sentence.
    pub text: String,
}

/// The backends of service ports, compared with the listeners of this node.
#[derive(Debug, Default)]
pub struct Compared {
    /// The number of backends with a listening program.
    pub listening: usize,
    /// The backends without one, ordered by service port.
    pub silent: Vec<Silent>,
    /// Local backends whose addresses no network namespace has.
    pub unseen: BTreeSet<IpAddr>,
}

/// Compares the backends of these service ports with the listeners of this node.
pub fn compare(ports: &[ServedPort], found: &LocalSockets) -> Compared {
    let mut compared = Compared::default();
    for port in ports {
        let mut of_port: BTreeMap<(u16, Family, Problem), Vec<IpAddr>> = BTreeMap::new();
        for backend in &port.backends {
            match found.of_address.get(&backend.address).map(|listeners| problem(backend, port.owner.protocol, listeners)) {
                Some(None) => compared.listening += 1,
                Some(Some(problem)) => {
                    of_port.entry((backend.port, Family::of(backend.address), problem)).or_default().push(backend.address);
                }
                None if backend.local => drop(compared.unseen.insert(backend.address)),
                // A backend of another node.
                None => {}
            }
        }
        compared.silent.extend(of_port.into_iter().map(|((target, family, problem), backends)| Silent {
            owner: port.owner.clone(),
            text: mistake(port, target, &found_ports(&problem, target, family, port.owner.protocol), &backends),
            backends,
        }));
    }
    compared
}

/// The checks of all backends of these service ports: a summary, and each mistake.
pub fn checks(ports: &[ServedPort], found: &LocalSockets) -> Vec<Check> {
    let Compared { listening, silent, unseen } = compare(ports, found);
    let seen = listening + silent.iter().map(|silent| silent.backends.len()).sum::<usize>();
    let mut checks = vec![summary(listening, seen, ports.len())];
    checks.extend(silent.into_iter().map(|silent| Check::not_ok(NAME, silent.text)));
    checks.extend(blind_spots(&unseen.into_iter().collect::<Vec<_>>(), found));
    checks
}

fn summary(listening: usize, seen: usize, ports: usize) -> Check {
    Check::ok(NAME, format!("programs listen for {listening} of {seen} local backends, of {ports} service ports"))
}

fn blind_spots(unseen: &[IpAddr], found: &LocalSockets) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(error) = &found.failure {
        let visited = found.visited;
        checks.push(Check::note(NAME, format!("{visited} network namespaces were examined, but not all: {error:#}")));
    }
    if !unseen.is_empty() {
        checks.push(Check::note(
            NAME,
            format!(
                "not seen: {}; no process's network namespace has these addresses: the pods may be virtual machines, or this \
                 command does not see the node's processes (hostPID)",
                shorten(unseen)
            ),
        ));
    }
    checks
}

/// `found`: the ports that the backends listen on, and the remedy.
fn mistake(port: &ServedPort, target: u16, found: &str, backends: &[IpAddr]) -> String {
    let ServedPort { owner, port, .. } = port;
    let ServicePort { service, protocol, .. } = owner;
    let who = shorten(backends);
    let verb = if backends.len() == 1 { "listens" } else { "listen" };
    format!("Service {service} port {port}/{protocol} → targetPort {target}: {who} {verb} on {found}")
}

/// The ports, and the remedy.
fn found_ports(problem: &Problem, target: u16, family: Family, protocol: Protocol) -> String {
    match problem {
        Problem::OtherAddresses(addresses) => {
            let addresses: Vec<&IpAddr> = addresses.iter().collect();
            format!("{target} only at {}; make the program listen at all addresses", shorten(&addresses))
        }
        Problem::OtherFamily => {
            let other = match family {
                Family::V4 => Family::V6.name(),
                Family::V6 => Family::V4.name(),
            };
            format!("{target} only for {other}; make the program listen at [::] without IPV6_V6ONLY")
        }
        Problem::OtherDevice => format!("{target} only for the loopback device; remove SO_BINDTODEVICE"),
        Problem::OtherPorts { ports, has_other_protocol: false } if ports.is_empty() => {
            format!("no {protocol} port; start the program, or correct the selector of the Service")
        }
        Problem::OtherPorts { ports, has_other_protocol: false } => {
            let ports: Vec<&u16> = ports.iter().collect();
            format!("{}, not on {target}; correct the targetPort, or the port of the program", shorten(&ports))
        }
        Problem::OtherPorts { ports, has_other_protocol: true } => {
            let mut ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            ports.insert(0, format!("{target}/{}", other(protocol)));
            format!("{}, not on {target}/{protocol}; correct targetPort and protocol of the Service's port", shorten(&ports))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::ObjectName;

    fn listener(address: &str, port: u16) -> Listener {
        let address = address.parse().expect("an address");
        Listener { address, port, is_v6_only: false, device: 0, inode: 1 }
    }

    fn backend(address: &str) -> Endpoint {
        Endpoint { address: address.parse().expect("an address"), port: 8080, local: true }
    }

    /// The problems of an IPv4 and of an IPv6 backend with these TCP listeners.
    fn problems(tcp: Vec<Listener>) -> [Option<Problem>; 2] {
        let listeners = Listeners { tcp, udp: vec![listener("::", 53)] };
        ["10.244.0.2", "fd00::2"].map(|address| problem(&backend(address), Protocol::Tcp, &listeners))
    }

    fn others(ports: &[u16], has_other_protocol: bool) -> Problem {
        Problem::OtherPorts { ports: ports.iter().copied().collect(), has_other_protocol }
    }

    #[test]
    fn a_listener_serves_its_address_and_wildcards_serve_their_families() {
        let serving = |address: &str| problems(vec![listener(address, 8080)]).map(|problem| problem.is_none());
        assert_eq!(serving("::"), [true, true]);
        assert_eq!(serving("0.0.0.0"), [true, false]);
        assert_eq!(serving("10.244.0.2"), [true, false]);
        assert_eq!(serving("fd00::2"), [false, true]);
        for other in ["127.0.0.1", "::1", "10.244.0.3"] {
            assert_eq!(serving(other), [false, false], "{other}");
        }
        let v6_only = Listener { is_v6_only: true, ..listener("::", 8080) };
        assert_eq!(problems(vec![v6_only]), [Some(Problem::OtherFamily), None]);
        let on_device = |device| problems(vec![Listener { device, ..listener("::", 8080) }]);
        assert_eq!(on_device(1), [Some(Problem::OtherDevice), Some(Problem::OtherDevice)]);
        assert_eq!(on_device(2), [None, None]);
    }

    #[test]
    fn other_listeners_explain_the_problem() {
        let loopback = Some(Problem::OtherAddresses(BTreeSet::from(["127.0.0.1".parse().expect("an address")])));
        assert_eq!(problems(vec![listener("127.0.0.1", 8080)]), [loopback.clone(), loopback]);
        assert_eq!(problems(vec![listener("0.0.0.0", 8080)])[1], Some(Problem::OtherFamily));
        let listeners = vec![listener("::", 80), listener("10.244.0.2", 9090), listener("127.0.0.1", 22)];
        assert_eq!(problems(listeners), [Some(others(&[80, 9090], false)), Some(others(&[80], false))]);
        assert_eq!(problems(Vec::new())[0], Some(others(&[], false)));
        let listeners = Listeners { tcp: vec![listener("::", 8080)], udp: Vec::new() };
        assert_eq!(problem(&backend("fd00::2"), Protocol::Udp, &listeners), Some(others(&[], true)));
    }

    #[test]
    fn backends_with_the_same_problem_are_one_line() {
        let owner = ServicePort { service: ObjectName::new("shop", "web"), port: "http".into(), protocol: Protocol::Tcp };
        let addresses = ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.9"];
        let remote = Endpoint { local: false, ..backend("10.244.1.2") };
        let backends = addresses.into_iter().map(backend).chain([remote]).collect();
        let port = ServedPort { owner, port: 80, backends, node_ports: BTreeSet::new() };
        let sockets = |tcp| Arc::new(Listeners { tcp, udp: Vec::new() });
        let wrong = sockets(vec![listener("::", 80)]);
        let right = sockets(vec![listener("::", 8080)]);
        let of_address = [("10.244.0.2", &wrong), ("10.244.0.3", &wrong), ("10.244.0.4", &right)];
        let of_address = of_address.map(|(address, sockets)| (backend(address).address, sockets.clone()));
        let found = LocalSockets { of_address: of_address.into(), visited: 3, failure: None };
        let lines: Vec<String> =
            checks(&[port], &found).into_iter().map(|check| format!("{}: {}", check.result.text(), check.text)).collect();
        assert_eq!(lines[0], "ok: programs listen for 1 of 3 local backends, of 1 service ports");
        assert_eq!(
            lines[1],
            "NOT OK: Service shop/web port 80/TCP → targetPort 8080: 10.244.0.2, 10.244.0.3 listen on 80, not on 8080; correct \
             the targetPort, or the port of the program"
        );
        assert!(lines[2].starts_with("NOTE: not seen: 10.244.0.9;"), "{lines:?}");
        assert_eq!(lines.len(), 3);
    }
}
