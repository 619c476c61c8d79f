//! The node's own addresses, and the node ports on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use super::{Table, rank::Yielding};
use crate::{
    collections::HashSet,
    model::{Family, FrontendSpec, Protocol},
    resolve::changes::Changes,
};

/// The addresses of the node, and the node ports whose claims have changed.
#[derive(Debug, Default)]
pub(super) struct NodeAddresses {
    /// Addresses that the node may have, and when they are none of it.
    candidates: BTreeMap<IpAddr, Yielding>,
    /// Where node ports are served: the candidates that are no Service's.
    serving: BTreeSet<IpAddr>,
    /// Candidates that may have become a Service's, or ceased to be one's, since the last call of `apply_node_ports`.
    changed: BTreeSet<IpAddr>,
    /// Node ports whose claims have changed since then.
    node_ports: BTreeSet<FrontendSpec>,
    /// Those of them that nobody claimed before.
    new_node_ports: BTreeSet<FrontendSpec>,
}

impl NodeAddresses {
    /// The addresses that serve node ports, in order.
    pub fn serving(&self) -> &BTreeSet<IpAddr> {
        &self.serving
    }

    /// Marks a node port whose claims change; `is_new` if no Service claimed it before.
    pub fn mark_node_port(&mut self, spec: FrontendSpec, is_new: bool) {
        if self.node_ports.insert(spec) && is_new {
            self.new_node_ports.insert(spec);
        }
    }

    /// Marks an address that a Service gained or lost, if the node may have it.
    pub fn mark_address(&mut self, address: IpAddr) {
        if self.candidates.contains_key(&address) {
            self.changed.insert(address);
        }
    }
}

impl Table {
    /// Serves node ports on those of these addresses that are no Service's, and returns what may have changed.
    pub fn set_node_addresses(&mut self, addresses: BTreeMap<IpAddr, Yielding>) -> Changes {
        let is_other = |(address, yielding): (&IpAddr, &Yielding), map: &BTreeMap<_, _>| {
            (map.get(address) != Some(yielding)).then_some(*address)
        };
        self.node.changed.extend(self.node.candidates.iter().filter_map(|candidate| is_other(candidate, &addresses)));
        self.node.changed.extend(addresses.iter().filter_map(|candidate| is_other(candidate, &self.node.candidates)));
        self.node.candidates = addresses;
        self.apply_node_ports()
    }

    /// Places node ports by all that was replaced and set since the last call, and returns what may have changed by that.
    ///
    /// At the end of a batch: addresses of the node may be the ClusterIPs of Services that are only now becoming known, with
    /// thousands of node ports on each.
    pub fn apply_node_ports(&mut self) -> Changes {
        let (changed, new) = (mem::take(&mut self.node.node_ports), mem::take(&mut self.node.new_node_ports));
        let mut frontends = HashSet::default();
        // Those that were there before: of a batch with many Services they are few.
        let mut before: Option<Vec<FrontendSpec>> = None;
        for address in mem::take(&mut self.node.changed) {
            let family = Family::of(address);
            let is_nodes = self.node.candidates.get(&address).is_some_and(|yielding| !self.is_services(address, *yielding));
            if is_nodes && self.node.serving.insert(address) {
                frontends.extend(self.node_ports_of(family).map(|spec| spec.on(address)));
            } else if !is_nodes && self.node.serving.remove(&address) {
                let before = before.get_or_insert_with(|| {
                    let all = Family::ALL.into_iter().flat_map(|family| self.node_ports_of(family));
                    all.chain(&changed).filter(|spec| !new.contains(spec)).copied().collect()
                });
                let of_family = before.iter().filter(|spec| spec.family == family);
                frontends.extend(of_family.map(|spec| spec.on(address)));
            }
        }
        for spec in changed {
            let addresses = self.node.serving.iter().filter(|address| Family::of(**address) == spec.family);
            frontends.extend(addresses.map(|address| spec.on(*address)));
        }
        Changes { frontends, addresses: HashSet::default() }
    }

    pub(super) fn node_ports_of(&self, family: Family) -> impl Iterator<Item = &FrontendSpec> {
        let spec = |port, protocol| FrontendSpec::node_port(family, port, protocol);
        self.claims.range(spec(u16::MIN, Protocol::Tcp)..=spec(u16::MAX, Protocol::Udp)).map(|(spec, _)| spec)
    }

    /// Whether an address is a Service's to which a node address yields.
    fn is_services(&self, address: IpAddr, yielding: Yielding) -> bool {
        let is_external = || self.at(address).next().is_some();
        self.addresses.contains_key(&address) || (yielding == Yielding::ToServices && is_external())
    }
}
