//! Applies changes of the node to the desired state: its zone, its addresses and the ranges of ClusterIPs.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use ipnet::IpNet;

use super::Desired;
use crate::{
    model::event::ObjectKind,
    resolve::{
        NodeContext,
        changes::Changes,
        claims::{Owners, Yielding},
        node_ports::{self, Eligible},
    },
};

impl Desired {
    /// The ranges from which ClusterIPs are allocated: the valid ranges of the ServiceCIDRs, else those of the command line.
    pub fn cidrs(&self) -> Vec<IpNet> {
        let listed: Vec<IpNet> = self.store.cidrs().collect();
        if listed.is_empty() { self.cidrs.clone() } else { listed }
    }

    /// Whether the ClusterIPs of other proxies' Services are known.
    pub fn owners(&self) -> Owners {
        if self.store.has_listed(ObjectKind::OtherService) { self.owners } else { Owners::Unknown }
    }

    /// Sets whether the watch of other proxies' Services works. Without that watch, a Service that gains the proxy-name label
    /// looks deleted.
    pub fn set_owners(&mut self, owners: Owners) {
        self.owners = owners;
    }

    /// Sets the addresses of the node's interfaces, with their prefixes. Returns the changed frontends of node ports.
    pub fn set_local(&mut self, addresses: Vec<IpNet>) -> Changes {
        self.local = addresses;
        self.node_may_have_changed = true;
        self.update_node_addresses()
    }

    /// Serves node ports on the addresses on which an earlier agent served them, until the addresses for node ports are known.
    /// Does nothing if they are known. Returns the changed frontends.
    pub fn keep_node_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> Changes {
        if !self.lacks_address() {
            return Changes::default();
        }
        let kept = addresses.into_iter().map(|address| (address, Yielding::ToClusterIps));
        self.table.set_node_addresses(kept.collect())
    }

    /// Whether the addresses for node ports are unknown, because `--nodeport-addresses` has `primary` and no Node object has an
    /// address. False after [`Self::give_up_waiting`]. The addresses that served node ports before are kept.
    pub fn lacks_address(&self) -> bool {
        self.node_addresses().is_none()
    }

    /// Serves node ports on all external node addresses until the Node object has an address. Returns the changed frontends.
    pub fn give_up_waiting(&mut self) -> Changes {
        self.serves_all_addresses = true;
        self.update_node_addresses()
    }

    /// Updates the node from the Node object, the ServiceCIDRs and the interfaces. Marks the Services that depend on the change
    /// for resolution.
    pub(super) fn update_node(&mut self) {
        let local: Vec<IpAddr> = self.local.iter().map(IpNet::addr).collect();
        let node = NodeContext::new(&self.name, self.store.node()).at(&local);
        let node = node.allowing(self.external_ips.clone()).reserving(&self.cidrs());
        if self.node == node {
            return;
        }
        let former = mem::replace(&mut self.node, node);
        if (&former.name, &former.zone) == (&self.node.name, &self.node.zone) {
            self.store.mark_where(|service| !service.external_ips.is_empty() || service.has_source_ranges());
        } else {
            self.store.mark_all();
        }
    }

    /// Updates the addresses that serve node ports, and returns the changed frontends. Keeps the former addresses while
    /// [`Self::lacks_address`].
    pub(super) fn update_node_addresses(&mut self) -> Changes {
        if self.named_addresses().is_some() {
            self.serves_all_addresses = false;
        }
        match self.node_addresses() {
            Some(addresses) => self.table.set_node_addresses(addresses),
            None => Changes::default(),
        }
    }

    /// The addresses that serve node ports: the selected ones or, after [`Self::give_up_waiting`], all external addresses of
    /// the node. `None` while the agent waits for an address of the Node object.
    fn node_addresses(&self) -> Option<BTreeMap<IpAddr, Yielding>> {
        let all = || node_ports::addresses(&[Eligible::All], None, &self.local);
        self.named_addresses().or_else(|| self.serves_all_addresses.then(all).flatten())
    }

    /// The addresses that `--nodeport-addresses` selects; `None` if it has `primary` and no Node object has an address.
    fn named_addresses(&self) -> Option<BTreeMap<IpAddr, Yielding>> {
        node_ports::addresses(&self.eligible, self.store.node(), &self.local)
    }
}
