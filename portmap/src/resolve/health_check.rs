//! The answer at a Service's `healthCheckNodePort`, which `serve` sends to load balancers.

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
    /// The number of the `healthCheckNodePort`.
    pub port: u16,
    /// The number of ready endpoint addresses on this node, over all ports of the Service; `None` for a family without a
    /// ClusterIP.
    pub ready: PerFamily<Option<usize>>,
}

/// The health check of a Service of type `LoadBalancer` with `externalTrafficPolicy: Local` and a `healthCheckNodePort`; other
/// Services have none. An endpoint that still serves but is not ready, as while it terminates, is not counted.
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
