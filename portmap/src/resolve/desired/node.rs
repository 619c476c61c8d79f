//! The node that the table is for: its name, zone, addresses and the ranges of ClusterIPs.

use std::{collections::BTreeMap, mem, net::IpAddr};

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
    /// The ranges that ClusterIPs are given from.
    pub fn cidrs(&self) -> Vec<IpNet> {
        let listed: Vec<IpNet> = self.store.cidrs().collect();
        if listed.is_empty() { self.cidrs.clone() } else { listed }
    }

    /// Whether it is known who else has an address in them.
    pub fn owners(&self) -> Owners {
        if self.store.has_listed(ObjectKind::OtherService) { self.owners } else { Owners::Unknown }
    }

    /// Sets whether changes of other proxies' Services are heard of. Without, one that gains the label would look deleted.
    pub fn set_owners(&mut self, owners: Owners) {
        self.owners = owners;
    }

    /// Sets the addresses of the node's interfaces, with their prefixes.
    pub fn set_local(&mut self, addresses: Vec<IpNet>) -> Changes {
        self.local = addresses;
        self.node_may_have_changed = true;
        self.update_node_addresses()
    }

    /// Whether node ports wait for the Node object to name an address.
    pub fn lacks_address(&self) -> bool {
        self.node_addresses().is_none()
    }

    /// Waits for the Node object's addresses no longer: node ports are served on all.
    pub fn give_up_waiting(&mut self) -> Changes {
        self.serves_all_addresses = true;
        self.update_node_addresses()
    }

    /// Takes over what the Node, the ServiceCIDRs and the addresses of the interfaces say.
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

    pub(super) fn update_node_addresses(&mut self) -> Changes {
        if self.named_addresses().is_some() {
            self.serves_all_addresses = false;
        }
        match self.node_addresses() {
            Some(addresses) => self.table.set_node_addresses(addresses),
            None => Changes::default(),
        }
    }

    /// The addresses that node ports are served on, if they are known.
    fn node_addresses(&self) -> Option<BTreeMap<IpAddr, Yielding>> {
        let all = || node_ports::addresses(&[Eligible::All], None, &self.local);
        self.named_addresses().or_else(|| self.serves_all_addresses.then(all).flatten())
    }

    fn named_addresses(&self) -> Option<BTreeMap<IpAddr, Yielding>> {
        node_ports::addresses(&self.eligible, self.store.node(), &self.local)
    }
}
