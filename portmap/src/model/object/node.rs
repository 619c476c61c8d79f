//! Conversion of `v1/Node`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::Faults;
use crate::model::{Family, PerFamily};

/// The label with the zone of a Node.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The taint that the cluster autoscaler puts on a node before it deletes the node.
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// The fields of the agent's Node. Invalid addresses are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The label `topology.kubernetes.io/zone`; `None` if absent or empty.
    pub zone: Option<Box<str>>,
    /// The address of each family: the first `InternalIP`, else the first `ExternalIP`.
    pub addresses: PerFamily<Option<IpAddr>>,
    /// Whether the Node is being deleted, or has the autoscaler's taint. Load balancers should send it no new connections.
    pub is_leaving: bool,
}

impl From<core::Node> for Node {
    fn from(node: core::Node) -> Self {
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let is_leaving = node.metadata.deletion_timestamp.is_some() || taints.iter().any(|taint| taint.key == LEAVING_TAINT);
        let zone = node.metadata.labels.and_then(|mut labels| labels.remove(ZONE_LABEL)).filter(|zone| !zone.is_empty());
        let listed = node.status.and_then(|status| status.addresses).unwrap_or_default();
        let mut addresses: PerFamily<Option<IpAddr>> = PerFamily::default();
        for kind in ["InternalIP", "ExternalIP"] {
            for address in listed.iter().filter(|address| address.type_ == kind) {
                if let Some(address) = Faults::default().address(kind, &address.address) {
                    addresses.get_mut(Family::of(address)).get_or_insert(address);
                }
            }
        }
        Self { zone: zone.map(Into::into), addresses, is_leaving }
    }
}
