//! The node's properties that decide its table.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::model::{PerFamily, object::Node};

/// The node that the table is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeContext {
    /// Its name: endpoints that run on it are local.
    pub name: Arc<str>,
    /// Its zone, if it is in one.
    pub zone: Option<Arc<str>>,
    /// The ranges that external IPs are served in; none: wherever they are, but in `service_cidrs`.
    pub external_ips: Option<Arc<[IpNet]>>,
    /// The ranges that ClusterIPs are given from: an address in them may become another Service's at any time.
    pub service_cidrs: Arc<[IpNet]>,
    /// The addresses by which source ranges tell whether they admit the node.
    pub addresses: Box<[IpAddr]>,
}

impl NodeContext {
    /// A node of this name, and what its Node object says, if there is one.
    pub fn new(name: &str, object: Option<&Node>) -> Self {
        let zone = object.and_then(|node| node.zone.as_deref().map(Into::into));
        // As kube-proxy has it, a family in which the Node has no address is told by the loopback address.
        let addresses = object.map(|node| {
            let PerFamily { v4, v6 } = node.addresses;
            [v4.unwrap_or(Ipv4Addr::LOCALHOST.into()), v6.unwrap_or(Ipv6Addr::LOCALHOST.into())]
        });
        Self { name: name.into(), zone, addresses: addresses.map(Into::into).unwrap_or_default(), ..Self::default() }
    }

    /// As long as there is no Node object, these are the node's addresses.
    #[must_use]
    pub fn at(self, local: &[IpAddr]) -> Self {
        if !self.addresses.is_empty() {
            return self;
        }
        let addresses: BTreeSet<IpAddr> = local.iter().copied().collect();
        Self { addresses: addresses.into_iter().collect(), ..self }
    }

    /// Serves external IPs in these ranges only, if any are given.
    #[must_use]
    pub fn allowing(self, external_ips: Option<Arc<[IpNet]>>) -> Self {
        Self { external_ips, ..self }
    }

    /// Leaves out external IPs in the ranges of ClusterIPs, unless they are allowed.
    #[must_use]
    pub fn reserving(self, service_cidrs: &[IpNet]) -> Self {
        Self { service_cidrs: service_cidrs.into(), ..self }
    }

    /// Whether an external IP is served on this node.
    pub fn allows(&self, external_ip: IpAddr) -> bool {
        self.objection(external_ip).is_none()
    }

    /// Why an external IP is left out, if it is.
    pub fn objection(&self, external_ip: IpAddr) -> Option<String> {
        let holds = |range: &&IpNet| range.contains(&external_ip);
        if let Some(allowed) = &self.external_ips {
            let is_allowed = allowed.iter().any(|range| holds(&range));
            return (!is_allowed)
                .then(|| format!("the external IP {external_ip} is in none of --allowed-external-ips, and is left out"));
        }
        let range = self.service_cidrs.iter().find(holds)?;
        Some(format!(
            "the external IP {external_ip} is in the ServiceCIDR {range}, whose addresses are given to other Services, and is left \
             out; --allowed-external-ips can allow it"
        ))
    }
}
