//! The answer of a Service's `healthCheckNodePort`.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    model::{
        PerFamily,
        object::{Policy, ServiceType, SliceEndpoint},
    },
    store::ServiceObjects,
};

/// The answer at a `healthCheckNodePort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port.
    pub port: u16,
    /// How many addresses on this node are ready, over all ports of the Service; of each family that it has.
    pub ready: PerFamily<Option<usize>>,
}

/// Only load balancers that keep clients on the node ask; what terminates does not count, even if it still serves.
pub fn health_check(objects: &ServiceObjects) -> Option<HealthCheck> {
    let ServiceObjects { name: _, service, slices } = objects;
    let is_asked = service.kind == ServiceType::LoadBalancer && service.external_policy == Policy::Local;
    let port = service.health_check_node_port.filter(|_| is_asked)?;
    let ready = PerFamily::of(|family| {
        service.cluster_ips.get(family).as_ref()?;
        let endpoints = slices.iter().filter(|slice| slice.family == Some(family)).flat_map(|slice| &slice.endpoints);
        let is_ready = |endpoint: &&SliceEndpoint| endpoint.ready && endpoint.local;
        let addresses: BTreeSet<IpAddr> = endpoints.filter(is_ready).map(|endpoint| endpoint.address).collect();
        Some(addresses.len())
    });
    Some(HealthCheck { port, ready })
}
