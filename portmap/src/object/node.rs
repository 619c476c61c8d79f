//! `v1/Node`: the own one.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::Faults;
use crate::table::{Family, PerFamily};

/// The label that says which zone a node is in.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The zone that it is in, if it says so.
    pub zone: Option<Box<str>>,
    /// Its address of each family: the first `InternalIP`, else the first `ExternalIP`.
    pub addresses: PerFamily<Option<IpAddr>>,
}

impl From<core::Node> for Node {
    fn from(node: core::Node) -> Self {
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
        Self { zone: zone.map(Into::into), addresses }
    }
}
