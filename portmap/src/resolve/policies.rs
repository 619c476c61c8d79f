//! The traffic policies of a Service port, and the endpoint sets that these policies need.

use super::{
    NodeContext,
    endpoints::{self, Slices, Uses},
};
use crate::model::{
    AddressKind, Family, Protocol, ServicePort,
    object::{Policy, Port, Service, ServiceType},
};

/// The traffic that a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Traffic to ClusterIPs, under `internalTrafficPolicy`.
    Internal,
    /// Traffic to node ports, external IPs and load balancer addresses, under `externalTrafficPolicy`.
    External,
}

/// The properties of a Service port that select its endpoint sets.
pub struct Policies {
    /// `internalTrafficPolicy`.
    pub internal: Policy,
    /// `externalTrafficPolicy`; `Cluster` for a Service that clients outside the cluster cannot use.
    pub external: Policy,
    /// Whether the port has a frontend besides its ClusterIP: a node port, an external IP or a load balancer address.
    pub is_accessible: bool,
    /// Whether UDP sockets or session affinity keep clients at an endpoint.
    pub is_remembered: bool,
}

impl Policies {
    pub fn of(service: &Service, port: &Port, has_other_addresses: bool) -> Self {
        Self {
            internal: service.internal_policy,
            external: if is_external(service) { service.external_policy } else { Policy::Cluster },
            is_accessible: has_other_addresses || port.node_port.is_some(),
            is_remembered: port.protocol == Protocol::Udp || service.affinity_timeout > 0,
        }
    }

    /// The policy that selects the endpoints of an address of this kind for clients on this node.
    pub fn inside(&self, kind: AddressKind) -> Policy {
        match kind {
            AddressKind::ClusterIp => self.internal,
            // externalTrafficPolicy applies to clients outside the node only; clients on the node get the cluster set.
            AddressKind::NodePort | AddressKind::ExternalIp | AddressKind::LoadBalancer => Policy::Cluster,
        }
    }

    /// The policy that selects the endpoints of an address of this kind for clients outside the node.
    pub fn outside(&self, kind: AddressKind) -> Policy {
        match kind {
            AddressKind::ClusterIp => self.internal,
            AddressKind::NodePort | AddressKind::ExternalIp | AddressKind::LoadBalancer => self.external,
        }
    }

    pub fn uses(&self) -> Uses {
        let Self { internal, external, is_accessible, is_remembered } = *self;
        Uses {
            cluster: internal == Policy::Cluster || is_accessible,
            local: internal == Policy::Local || (external == Policy::Local && is_accessible),
            serving: is_remembered,
        }
    }

    /// The traffic whose `Local` policy finds no usable endpoint on this node, while other nodes have one.
    pub fn lacking(
        &self,
        slices: &Slices<'_>,
        owner: &ServicePort,
        family: Family,
        node: &NodeContext,
    ) -> Vec<(Family, Traffic)> {
        let uses = self.uses();
        if !uses.local {
            return Vec::new();
        }
        let sets = endpoints::of_port(slices, owner, family, node, Uses { cluster: false, ..uses });
        if !sets.has_any || !sets.local.is_empty() {
            return Vec::new();
        }
        let is_external_kept = self.external == Policy::Local && self.is_accessible;
        let kept = [(self.internal == Policy::Local, Traffic::Internal), (is_external_kept, Traffic::External)];
        kept.into_iter().filter(|(is_kept, _)| *is_kept).map(|(_, traffic)| (family, traffic)).collect()
    }
}

/// Whether clients outside the cluster may use the Service, by its type or its external IPs.
fn is_external(service: &Service) -> bool {
    match service.kind {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    }
}
