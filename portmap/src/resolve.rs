//! Derives the desired table from Services and EndpointSlices, by the rules of kube-proxy.
//!
//! The desired table has the frontends that the BPF maps should have, with their endpoints. [`resolve`] returns the frontends
//! that one Service claims, and [`ServiceEntries`] the entry of each of them. Both are pure and cannot fail: invalid or
//! unsupported fields are skipped, and nearly all are reported with the reason. [`desired`] holds the objects, collects the
//! claims of all Services in the table, and logs the reports. The stage before is `store`, the stage after is `plan`.

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
pub use endpoints::{Considered, Hinted, Reason};
use endpoints::{Index, Slices};
pub use health_check::HealthCheck;
use health_check::health_check;
pub use node_context::NodeContext;
use policies::Policies;
pub use policies::Traffic;
pub use service_claims::{Claims, Extent, MAX_FRONTENDS, claims, external_ips};
use service_claims::{addresses, cluster_ips};
pub use service_entries::{Explained, ServiceEntries, SlicesSeen};
pub use skipped::Skipped;
use skipped::skipped;

/// The claims and reports of one Service. [`ServiceEntries`] derives the entries of the claimed frontends one at a time.
#[derive(Debug)]
pub struct Resolved {
    /// The Service's precedence over other Services that claim the same frontends.
    pub precedence: Precedence,
    /// The frontends and ClusterIPs that the Service claims.
    pub claims: Claims,
    /// The answer at the Service's `healthCheckNodePort`; `None` unless the type is `LoadBalancer`, `externalTrafficPolicy` is
    /// `Local`, and the port is given.
    pub health_check: Option<HealthCheck>,
    /// One item per Service port, family and traffic whose `Local` policy finds no usable endpoint on this node, but some on
    /// other nodes.
    pub lacking: Vec<(Family, Traffic)>,
    /// Fields of the Service and its EndpointSlices that are ignored, cut or replaced by a default, with the reasons.
    pub skipped: Vec<Skipped>,
}

/// Resolves a Service for a node. A Service of type `ExternalName` claims nothing and reports nothing.
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
    let mut duplicates = Faults::default();
    resolved.claims = claims(service, node, |spec| {
        duplicates.record(format_args!("{spec} is defined by two ports of the Service; the first port is used"));
    });
    resolved.skipped = skipped(objects, node, resolved.claims.extent, &duplicates);
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
