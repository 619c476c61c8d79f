//! The properties of the node on which the resolution of Services depends.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::model::{PerFamily, object::Node};

/// The node for which Services are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeContext {
    /// The name of the Node. An endpoint with this `nodeName` is local.
    pub name: Arc<str>,
    /// The value of the Node's label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// The ranges in which external IPs are served (`--allowed-external-ips`). `None` allows every address outside
    /// `service_cidrs`.
    pub external_ips: Option<Arc<[IpNet]>>,
    /// The ranges from which ClusterIPs are allocated. The API server may give any of their addresses to another Service.
    pub service_cidrs: Arc<[IpNet]>,
    /// The node's addresses that are compared with source ranges, see [`super::source_ranges::ranges`].
    pub addresses: Box<[IpAddr]>,
}

impl NodeContext {
    /// A node with this name, and the zone and addresses of its Node object, if the object exists.
    pub fn new(name: &str, object: Option<&Node>) -> Self {
        let zone = object.and_then(|node| node.zone.as_deref().map(Into::into));
        // As in kube-proxy, the loopback address stands for a family in which the Node has no address.
        let addresses = object.map(|node| {
            let PerFamily { v4, v6 } = node.addresses;
            [v4.unwrap_or(Ipv4Addr::LOCALHOST.into()), v6.unwrap_or(Ipv6Addr::LOCALHOST.into())]
        });
        Self { name: name.into(), zone, addresses: addresses.map(Into::into).unwrap_or_default(), ..Self::default() }
    }

    /// Sets `addresses` to the addresses of the node's interfaces, if there is no Node object.
    #[must_use]
    pub fn at(self, local: &[IpAddr]) -> Self {
        if !self.addresses.is_empty() {
            return self;
        }
        let addresses: BTreeSet<IpAddr> = local.iter().copied().collect();
        Self { addresses: addresses.into_iter().collect(), ..self }
    }

    /// Serves external IPs only in these ranges. `None` allows every address outside the ranges of ClusterIPs.
    #[must_use]
    pub fn allowing(self, external_ips: Option<Arc<[IpNet]>>) -> Self {
        Self { external_ips, ..self }
    }

    /// Skips external IPs in these ranges of ClusterIPs, unless [`Self::allowing`] has ranges.
    #[must_use]
    pub fn reserving(self, service_cidrs: &[IpNet]) -> Self {
        Self { service_cidrs: service_cidrs.into(), ..self }
    }

    /// Whether this node's ranges allow an external IP.
    pub fn allows(&self, external_ip: IpAddr) -> bool {
        self.rejection(external_ip).is_none()
    }

    /// The reason why this node skips an external IP; `None` if its ranges allow the address.
    pub fn rejection(&self, external_ip: IpAddr) -> Option<String> {
        let holds = |range: &&IpNet| range.contains(&external_ip);
        if let Some(allowed) = &self.external_ips {
            let is_allowed = allowed.iter().any(|range| holds(&range));
            return (!is_allowed).then(|| {
                format!("the external IP {external_ip} is in none of the ranges of --allowed-external-ips, and is left out")
            });
        }
        let range = self.service_cidrs.iter().find(holds)?;
        Some(format!(
            "the external IP {external_ip} is in the ServiceCIDR {range}, whose addresses the API server gives to other \
             Services, and is left out; --allowed-external-ips can allow it"
        ))
    }
}
