//! From a Service and its EndpointSlices to its part of the table: what kube-proxy would do. Pure.
//!
//! [`resolve`] says which places a Service claims, [`ServiceEntries`] what it does at each of them. Neither fails: what cannot be served is
//! left out and named, with the reason. Next stage: `plan`.

pub mod changes;
pub mod claims;
pub mod desired;
mod endpoints;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod health_check;
mod node_context;
pub mod node_ports;
mod policies;
mod service_claims;
mod service_entries;
mod skipped;
pub mod source_ranges;

use crate::{
    model::{
        Family, Precedence, ServicePort,
        object::{Faults, ServiceType},
    },
    store::ServiceObjects,
};
use endpoints::{Index, Slices};
pub use health_check::HealthCheck;
use health_check::health_check;
pub use node_context::NodeContext;
use policies::Policies;
pub use policies::Traffic;
pub use service_claims::{Claims, Extent, MAX_FRONTENDS, claims, external_ips};
use service_claims::{addresses, cluster_ips};
pub use service_entries::ServiceEntries;
pub use skipped::Skipped;
use skipped::report_unmatched_slices;

/// A Service's part of the table, but for the entries: [`ServiceEntries`] has them, one by one.
#[derive(Debug)]
pub struct Resolved {
    /// How it fares against others that claim the same address.
    pub precedence: Precedence,
    /// What it claims.
    pub claims: Claims,
    /// What a load balancer is to be told that asks at its `healthCheckNodePort`, if it has one.
    pub health_check: Option<HealthCheck>,
    /// Service ports that a policy keeps on this node, where there is no endpoint while there are some elsewhere.
    pub lacking: Vec<(Family, Traffic)>,
    /// What it asks for and does not get.
    pub skipped: Vec<Skipped>,
}

/// Resolves a Service on a node.
pub fn resolve(objects: &ServiceObjects, node: &NodeContext) -> Resolved {
    let ServiceObjects { name, service, slices } = objects;
    let mut resolved = Resolved {
        precedence: Precedence { created: service.created, service: name.clone() },
        claims: Claims::default(),
        health_check: None,
        lacking: Vec::new(),
        skipped: Vec::new(),
    };
    if service.kind == ServiceType::ExternalName {
        return resolved;
    }
    let (mut faults, mut duplicates) = (Faults::default(), Faults::default());
    resolved.claims = claims(service, node, |spec| duplicates.note(format_args!("{spec} is defined twice; the first counts")));
    if resolved.claims.extent == Extent::Cut {
        faults.note(format_args!(
            "{MAX_FRONTENDS} of its addresses and ports are served, and the rest is left out: divide it into several Services"
        ));
    }
    report_unmatched_slices(service, slices, &mut faults);
    service.external_ips.iter().filter_map(|address| node.objection(*address)).for_each(|objection| faults.note(objection));
    let all = service
        .faults
        .iter()
        .chain(slices.iter().flat_map(|slice| slice.faults.iter()))
        .chain(faults.iter())
        .chain(duplicates.iter());
    resolved.skipped = all.map(|fault| Skipped { service: name.clone(), reason: fault.to_owned() }).collect();
    resolved.health_check = health_check(objects);
    let index = Index::of(slices, service.ports.len());
    let slices = Slices::new(slices, &index);
    for (family, cluster_ip) in cluster_ips(service) {
        let has_others = addresses(service, node, cluster_ip).nth(1).is_some();
        for port in &service.ports {
            let policies = Policies::of(service, port, has_others);
            let owner = ServicePort { service: name.clone(), port: port.name.clone(), protocol: port.protocol };
            resolved.lacking.extend(policies.lacking(&slices, &owner, family, node));
        }
    }
    resolved
}

#[cfg(test)]
mod tests;
