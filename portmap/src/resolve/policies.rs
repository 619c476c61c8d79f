//! The traffic policies of a Service port, and the endpoint sets that they need.

use super::{
    NodeContext,
    endpoints::{self, Slices, Uses},
};
use crate::model::{
    Family, Protocol, ServicePort,
    object::{Policy, Port, Service, ServiceType},
};

/// Whose traffic a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

/// What decides which endpoints the clients of a port get.
pub struct Policies {
    pub internal: Policy,
    /// Of external traffic, if there can be any.
    pub external: Policy,
    /// Whether clients outside of the cluster may reach it.
    pub is_accessible: bool,
    /// Whether sockets or session affinity remember endpoints.
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

    pub fn uses(&self) -> Uses {
        let Self { internal, external, is_accessible, is_remembered } = *self;
        Uses {
            cluster: internal == Policy::Cluster || is_accessible,
            local: internal == Policy::Local || (external == Policy::Local && is_accessible),
            serving: is_remembered,
        }
    }

    /// Whose traffic is kept on this node although there are endpoints only elsewhere.
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

/// Whether the type makes it one that clients outside the cluster may use.
fn is_external(service: &Service) -> bool {
    match service.kind {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    }
}
