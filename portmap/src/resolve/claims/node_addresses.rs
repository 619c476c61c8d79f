//! Selects the node's addresses that serve node ports, and derives the frontends of node ports on these addresses.

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

/// The addresses of the node, and the changed addresses and node ports that [`Table::apply_node_ports`] has to apply.
#[derive(Debug, Default)]
pub(super) struct NodeAddresses {
    /// The addresses of the last [`Table::set_node_addresses`], each with the Service addresses that take precedence over it.
    candidates: BTreeMap<IpAddr, Yielding>,
    /// The candidates over which no Service address takes precedence: they serve node ports.
    serving: BTreeSet<IpAddr>,
    /// Candidates that a Service may have gained or lost since the last call of [`Table::apply_node_ports`].
    changed: BTreeSet<IpAddr>,
    /// Node ports whose claims have changed since the last call of [`Table::apply_node_ports`].
    node_ports: BTreeSet<FrontendSpec>,
    /// The node ports in `node_ports` that no Service claimed at the last call of [`Table::apply_node_ports`].
    new_node_ports: BTreeSet<FrontendSpec>,
}

impl NodeAddresses {
    /// The addresses that serve node ports, in order.
    pub fn serving(&self) -> &BTreeSet<IpAddr> {
        &self.serving
    }

    /// Records a node port whose claims change, for [`Table::apply_node_ports`]. `is_new` if no Service claimed it before.
    pub fn mark_node_port(&mut self, spec: FrontendSpec, is_new: bool) {
        if self.node_ports.insert(spec) && is_new {
            self.new_node_ports.insert(spec);
        }
    }

    /// Records an address that a Service may have gained or lost, for [`Table::apply_node_ports`]. Does nothing unless the
    /// address is a candidate.
    pub fn mark_address(&mut self, address: IpAddr) {
        if self.candidates.contains_key(&address) {
            self.changed.insert(address);
        }
    }
}

impl Table {
    /// Sets the node addresses that may serve node ports, applies the node ports to them, and returns the changed frontends.
    /// They are usually the addresses that `--nodeport-addresses` selects.
    pub fn set_node_addresses(&mut self, addresses: BTreeMap<IpAddr, Yielding>) -> Changes {
        let is_other = |(address, yielding): (&IpAddr, &Yielding), map: &BTreeMap<_, _>| {
            (map.get(address) != Some(yielding)).then_some(*address)
        };
        self.node.changed.extend(self.node.candidates.iter().filter_map(|candidate| is_other(candidate, &addresses)));
        self.node.changed.extend(addresses.iter().filter_map(|candidate| is_other(candidate, &self.node.candidates)));
        self.node.candidates = addresses;
        self.apply_node_ports()
    }

    /// Applies all changes of claims and addresses since the last call to the node ports, and returns the changed frontends.
    ///
    /// Called at the end of a batch of events, and after a change of the node addresses. A batch may contain the Services of
    /// addresses that would otherwise serve thousands of node ports for a moment.
    pub fn apply_node_ports(&mut self) -> Changes {
        let (changed, new) = (mem::take(&mut self.node.node_ports), mem::take(&mut self.node.new_node_ports));
        let mut frontends = HashSet::default();
        // The node ports with claims before the batch. They are computed at most once, and are few if the batch has most
        // Services.
        let mut before: Option<Vec<FrontendSpec>> = None;
        for address in mem::take(&mut self.node.changed) {
            let family = Family::of(address);
            let belongs_to_node =
                self.node.candidates.get(&address).is_some_and(|yielding| !self.belongs_to_service(address, *yielding));
            if belongs_to_node && self.node.serving.insert(address) {
                frontends.extend(self.node_ports_of(family).map(|spec| spec.on(address)));
            } else if !belongs_to_node && self.node.serving.remove(&address) {
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

    /// The node ports of a family that at least one Service claims.
    pub(super) fn node_ports_of(&self, family: Family) -> impl Iterator<Item = &FrontendSpec> {
        let spec = |port, protocol| FrontendSpec::node_port(family, port, protocol);
        self.claims.range(spec(u16::MIN, Protocol::Tcp)..=spec(u16::MAX, Protocol::Udp)).map(|(spec, _)| spec)
    }

    /// Whether a Service has the address and takes precedence over the node.
    fn belongs_to_service(&self, address: IpAddr, yielding: Yielding) -> bool {
        let is_external = || self.at(address).next().is_some();
        self.addresses.contains_key(&address) || (yielding == Yielding::ToServices && is_external())
    }
}
