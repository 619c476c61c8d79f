//! The service ports in the maps, each with its backends and its frontends at node ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use portmap_common::AddressKind;

use crate::{
    maps::{FollowedFrontend, Snapshot, encode},
    model::{Endpoint, Frontend, ServicePort},
};

/// A service port with all that clients of this node, or clients outside, may reach by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedPort {
    /// The Service, and the name and protocol of the port.
    pub owner: ServicePort,
    /// The number of the Service's port; the number of the node port if the Service has no other frontend.
    pub port: u16,
    /// The backends for clients on the node and outside, of both families.
    pub backends: BTreeSet<Endpoint>,
    /// The frontends at node ports.
    pub node_ports: BTreeSet<Frontend>,
}

/// The addresses of the backends of service ports.
pub fn addresses(ports: &[ServedPort]) -> BTreeSet<IpAddr> {
    ports.iter().flat_map(|port| &port.backends).map(|backend| backend.address).collect()
}

/// The service ports of a snapshot, ordered by Service and port.
pub fn served_ports(snapshot: &Snapshot) -> Vec<ServedPort> {
    let names = snapshot.owners();
    let mut ports: BTreeMap<&ServicePort, ServedPort> = BTreeMap::new();
    for (frontend, FollowedFrontend { number: _, service, inside, outside }) in &snapshot.frontends {
        let Some(service) = service else { continue };
        let Some(owner) = names.get(&service.id) else { continue };
        let port = ports.entry(owner).or_insert_with(|| ServedPort {
            owner: (*owner).clone(),
            port: frontend.port,
            backends: BTreeSet::new(),
            node_ports: BTreeSet::new(),
        });
        if encode::kind_of(service.kind) == AddressKind::NodePort {
            port.node_ports.insert(*frontend);
        } else {
            port.port = frontend.port;
        }
        port.backends.extend([inside, outside].into_iter().flatten().flatten().map(|slot| slot.endpoint));
    }
    ports.into_values().collect()
}
