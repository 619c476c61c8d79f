//! Processes of the node that listen on a node port: clients of the node's addresses reach the Service instead.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, tables::ServedPort};
use crate::{
    kernel::listeners::{Listener, Listeners, SocketOwner},
    model::{Frontend, Protocol},
};

const NAME: &str = "node ports";

/// A node port that listeners of the node have, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict<'a> {
    /// The service port with the node port.
    pub port: &'a ServedPort,
    /// The number of the node port.
    pub node_port: u16,
    /// The inodes of the listening sockets.
    pub inodes: BTreeSet<u32>,
}

/// The node ports that listeners of the node's network namespace have, too. A listener that is a backend of the same Service
/// is no conflict.
pub fn conflicts<'a>(ports: &'a [ServedPort], listeners: &Listeners) -> Vec<Conflict<'a>> {
    let by_port = |listeners: &'_ [Listener]| {
        let mut by_port: BTreeMap<u16, Vec<Listener>> = BTreeMap::new();
        for listener in listeners {
            by_port.entry(listener.port).or_default().push(listener.clone());
        }
        by_port
    };
    let (tcp, udp) = (by_port(&listeners.tcp), by_port(&listeners.udp));
    let mut conflicts = Vec::new();
    for port in ports {
        let mut inodes: BTreeMap<u16, BTreeSet<u32>> = BTreeMap::new();
        for frontend in port.node_ports.iter().filter(|frontend| !is_backend(port, frontend)) {
            let listeners = match frontend.protocol {
                Protocol::Tcp => &tcp,
                Protocol::Udp => &udp,
            };
            let found = listeners.get(&frontend.port).into_iter().flatten().filter(|it| it.serves(frontend.address));
            for listener in found {
                inodes.entry(frontend.port).or_default().insert(listener.inode);
            }
        }
        conflicts.extend(inodes.into_iter().map(|(node_port, inodes)| Conflict { port, node_port, inodes }));
    }
    conflicts
}

fn is_backend(port: &ServedPort, frontend: &Frontend) -> bool {
    port.backends.iter().any(|backend| (backend.address, backend.port) == (frontend.address, frontend.port))
}

/// The checks of these conflicts. `owners`: the processes of the sockets, by inode.
pub fn checks(ports: &[ServedPort], conflicts: &[Conflict<'_>], owners: &BTreeMap<u32, SocketOwner>) -> Vec<Check> {
    if conflicts.is_empty() {
        let count: BTreeSet<(u16, Protocol)> =
            ports.iter().flat_map(|port| &port.node_ports).map(|frontend| (frontend.port, frontend.protocol)).collect();
        return vec![Check::ok(NAME, format!("no process of the node listens on one of {} node ports", count.len()))];
    }
    conflicts.iter().map(|conflict| mistake(conflict, owners)).collect()
}

fn mistake(Conflict { port, node_port, inodes }: &Conflict<'_>, owners: &BTreeMap<u32, SocketOwner>) -> Check {
    let processes: BTreeSet<&SocketOwner> = inodes.iter().filter_map(|inode| owners.get(inode)).collect();
    let processes: Vec<String> = processes.iter().map(|SocketOwner { pid, name }| format!("process {pid} ({name})")).collect();
    let who = if processes.is_empty() { "an unknown process".to_owned() } else { processes.join(" and ") };
    Check::not_ok(
        NAME,
        format!(
            "{who} listens on {node_port}/{}, the node port of Service {}: clients of the node's addresses reach the Service \
             instead; move the process to another port, or give the Service another nodePort",
            port.owner.protocol, port.owner.service
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::CheckResult,
        model::{Endpoint, ObjectName, ServicePort},
    };

    /// A service port with the node port 30080 at an address of each family.
    fn port() -> ServedPort {
        let owner = ServicePort { service: ObjectName::new("shop", "web"), port: "http".into(), protocol: Protocol::Tcp };
        let frontend =
            |address: &str| Frontend { address: address.parse().expect("an address"), port: 30_080, protocol: Protocol::Tcp };
        let node_ports = ["192.0.2.1", "2001:db8::1"].map(frontend).into();
        ServedPort { owner, port: 80, backends: BTreeSet::new(), node_ports }
    }

    /// The inodes of the conflicts with a TCP listener at this address and port, whose inode is 7.
    fn found(port: &ServedPort, address: &str, number: u16) -> Vec<u32> {
        let address = address.parse().expect("an address");
        let listener = Listener { address, port: number, is_v6_only: true, device: 0, inode: 7 };
        let listeners = Listeners { tcp: vec![listener], udp: Vec::new() };
        let ports = [port.clone()];
        conflicts(&ports, &listeners).into_iter().flat_map(|conflict| conflict.inodes).collect()
    }

    #[test]
    fn listeners_at_the_addresses_of_node_ports_are_conflicts() {
        for address in ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(found(&port(), address, 30_080), [7], "{address}");
            assert!(found(&port(), address, 30_081).is_empty(), "{address}");
        }
        for address in ["127.0.0.1", "::1", "192.0.2.2"] {
            assert!(found(&port(), address, 30_080).is_empty(), "{address}");
        }
    }

    #[test]
    fn a_backend_of_the_service_is_no_conflict() {
        let backend = Endpoint { address: "192.0.2.1".parse().expect("an address"), port: 30_080, local: true };
        let port = ServedPort { backends: BTreeSet::from([backend]), ..port() };
        assert!(found(&port, "0.0.0.0", 30_080).is_empty());
    }

    #[test]
    fn the_process_is_named() {
        let ports = [port()];
        let conflict = Conflict { port: &ports[0], node_port: 30_080, inodes: BTreeSet::from([7, 8]) };
        let text = |owners: &BTreeMap<u32, SocketOwner>| {
            let checks = checks(&ports, std::slice::from_ref(&conflict), owners);
            assert_eq!(checks[0].result, CheckResult::NotOk);
            checks[0].text.clone()
        };
        let owner = SocketOwner { pid: 12, name: "nginx".to_owned() };
        let known = text(&BTreeMap::from([(7, owner.clone()), (8, owner)]));
        assert!(known.starts_with("process 12 (nginx) listens on 30080/TCP, the node port of Service shop/web: "), "{known}");
        assert!(text(&BTreeMap::new()).starts_with("an unknown process listens"));
        assert_eq!(checks(&ports, &[], &BTreeMap::new())[0].text, "no process of the node listens on one of 1 node ports");
    }
}
