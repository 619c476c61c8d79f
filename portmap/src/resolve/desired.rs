//! The desired state: takes events and node addresses, and returns the changes of the desired table.
//!
//! Calls `store`, then [`resolve::resolve`] for each affected Service, then [`super::claims::Table`]. `plan` consumes the
//! changes, see [`entries`].

mod conflicts;
pub mod entries;
pub mod explain;
mod node;
mod reports;
#[cfg(test)]
mod tests;

use std::{mem, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    model::{
        AddressOwner, Family, FrontendSpec, ObjectName, Precedence,
        event::{Event, ObjectKind},
        object::{OtherService, Packed, Service},
    },
    resolve::{
        self, Claims, NodeContext,
        changes::Changes,
        claims::{Owners, Table},
        node_ports::Eligible,
    },
    store::{Dirty, Store},
};
use conflicts::Conflicts;
use reports::Reports;

/// The kinds that must be listed before the table is complete enough to be written.
const REQUIRED: [ObjectKind; 2] = [ObjectKind::Service, ObjectKind::Slice];

/// The Kubernetes objects of all events, the node's addresses, and the desired table that is derived from them.
pub struct Desired {
    store: Store,
    /// The claims and owners. Entries are not stored, but derived from the objects.
    table: Table,
    /// Whether the Node, the ServiceCIDRs or the addresses of the interfaces may have changed since the last [`Self::resolve`].
    node_may_have_changed: bool,
    name: Arc<str>,
    node: NodeContext,
    /// `--allowed-external-ips`, see [`NodeContext::external_ips`].
    external_ips: Option<Arc<[IpNet]>>,
    /// The items of `--nodeport-addresses`.
    eligible: Vec<Eligible>,
    /// The ranges of ClusterIPs on the command line, used while no ServiceCIDR has a valid range.
    cidrs: Vec<IpNet>,
    /// The addresses of the node's interfaces, with their prefixes.
    local: Vec<IpNet>,
    /// Whether node ports are served on all external addresses, because no Node object has an address, or had one in time.
    serves_all_addresses: bool,
    /// Whether the watch of other proxies' Services works.
    owners: Owners,
    conflicts: Conflicts,
    reports: Reports,
}

impl Desired {
    /// The desired state of the node with this name, without any object.
    pub fn new(name: Arc<str>, eligible: Vec<Eligible>, cidrs: Vec<IpNet>) -> Self {
        Self {
            store: Store::default(),
            table: Table::default(),
            node_may_have_changed: false,
            node: NodeContext::new(&name, None).reserving(&cidrs),
            external_ips: None,
            name,
            eligible,
            cidrs,
            local: Vec::new(),
            serves_all_addresses: false,
            owners: Owners::Known,
            conflicts: Conflicts::default(),
            reports: Reports::default(),
        }
    }

    /// Serves external IPs only in these ranges, see [`NodeContext::allowing`].
    #[must_use]
    pub fn allowing(self, external_ips: Option<Arc<[IpNet]>>) -> Self {
        Self { node: self.node.allowing(external_ips.clone()), external_ips, ..self }
    }

    /// Stores the objects of an event. [`Self::resolve`] applies them to the table.
    pub fn apply(&mut self, event: Event) {
        self.node_may_have_changed |= self.store.apply(event);
    }

    /// Whether complete lists of Services and EndpointSlices have been received.
    pub fn is_synced(&self) -> bool {
        REQUIRED.iter().all(|kind| self.store.has_listed(*kind))
    }

    /// Whether a complete list of every kind of objects has been received.
    pub fn is_complete(&self) -> bool {
        ObjectKind::ALL.iter().all(|kind| self.store.has_listed(*kind))
    }

    /// The name of this node.
    pub fn node_name(&self) -> &str {
        &self.name
    }

    /// The desired table as of the last [`Self::resolve`].
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The last known objects, which may be newer than the table.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Starts to collect the trigger times of EndpointSlices that are later than now, see [`Store::note_triggers`].
    pub fn note_triggers(&mut self) {
        self.store.note_triggers(Timestamp::now());
    }

    /// The trigger times since the last call, see [`Store::take_triggers`].
    pub fn take_triggers(&mut self) -> Vec<(Family, Timestamp)> {
        self.store.take_triggers()
    }

    /// Resolves all Services that events or node changes since the last call affect, and returns the changes of the table.
    pub fn resolve(&mut self) -> Changes {
        let mut changes = Changes::default();
        let former = self.node.clone();
        if mem::take(&mut self.node_may_have_changed) {
            self.update_node();
            changes.extend(self.update_node_addresses());
        }
        let Dirty { services, others } = self.store.take_dirty();
        for (name, before) in &others {
            let addresses = |service: Option<&OtherService>| service.map(OtherService::addresses).unwrap_or_default();
            let (before, after) = (addresses(before.as_ref()), addresses(self.store.other(name)));
            changes.extend(self.table.set_addresses(AddressOwner::OtherProxy, name, &before, &after));
        }
        // Sorted, so that log lines have a stable order.
        let mut services = Vec::from_iter(services);
        services.sort_unstable_by(|(one, _), (next, _)| one.cmp(next));
        for (name, before) in &services {
            changes.extend(self.resolve_service(name, before.as_ref().map(Packed::unpack).as_ref(), &former));
        }
        changes.extend(self.table.apply_node_ports());
        changes
    }

    /// Resolves a Service, or removes its claims if it does not exist any more. `before` and `former` are the Service and the
    /// node of its last resolution; its former claims are derived from them.
    fn resolve_service(&mut self, name: &ObjectName, before: Option<&Service>, former: &NodeContext) -> Changes {
        let created = before.map_or(0, |service| service.created);
        let before = before.map(|service| resolve::claims(service, former, |_| ())).unwrap_or_default();
        let Some(objects) = self.store.service_objects(name) else {
            self.reports.forget(name);
            return self.claim(&Precedence { created, service: name.clone() }, &before, &Claims::default());
        };
        let resolved = resolve::resolve(&objects, &self.node);
        self.report_on_node(&objects);
        let changes = self.claim(&resolved.precedence, &before, &resolved.claims);
        self.reports.record(&objects.service, resolved);
        changes
    }

    /// Replaces the claims `before` of a Service with `after` in the table, and logs new conflicts.
    fn claim(&mut self, precedence: &Precedence, before: &Claims, after: &Claims) -> Changes {
        let service = &precedence.service;
        let former: Vec<FrontendSpec> = before.frontends.iter().map(|(spec, _)| *spec).collect();
        let mut changes = self.table.set_addresses(AddressOwner::Served, service, &before.addresses, &after.addresses);
        // A gained or lost ClusterIP changes the conflicts of other Services on that address.
        let mut affected: Vec<FrontendSpec> = changes.frontends.iter().map(|frontend| FrontendSpec::from(*frontend)).collect();
        affected.extend(former.iter().copied().chain(after.frontends.iter().map(|(spec, _)| *spec)));
        affected.sort_unstable();
        affected.dedup();
        changes.extend(self.table.replace(precedence, &former, after.frontends.clone()));
        self.conflicts.review(&self.table, precedence, &affected);
        changes
    }
}
