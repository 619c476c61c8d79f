//! What the tables should say: events and addresses in, changes of the desired table out. Joins `store`, `resolve` and `table`.

mod conflicts;
pub mod entries;
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

/// The kinds without which nothing may be concluded.
const REQUIRED: [ObjectKind; 2] = [ObjectKind::Service, ObjectKind::Slice];

/// The objects, and the table that follows from them.
pub struct Desired {
    store: Store,
    /// Entries are not kept: they follow from the objects.
    table: Table,
    /// Whether the Node or the ServiceCIDRs may be others.
    node_may_have_changed: bool,
    name: Arc<str>,
    node: NodeContext,
    /// The ranges that external IPs are served in; none: wherever they are.
    external_ips: Option<Arc<[IpNet]>>,
    eligible: Vec<Eligible>,
    /// The ranges of the command line, which count as long as there is no ServiceCIDR.
    cidrs: Vec<IpNet>,
    /// The addresses of the interfaces, with their prefixes.
    local: Vec<IpNet>,
    /// Whether the Node object's addresses are waited for no longer.
    serves_all_addresses: bool,
    /// Whether it is heard of who else has a ClusterIP.
    owners: Owners,
    conflicts: Conflicts,
    reports: Reports,
}

impl Desired {
    /// Of a node of this name.
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

    /// Serves external IPs in these ranges only, if any are given.
    #[must_use]
    pub fn allowing(self, external_ips: Option<Arc<[IpNet]>>) -> Self {
        Self { node: self.node.allowing(external_ips.clone()), external_ips, ..self }
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: Event) {
        self.node_may_have_changed |= self.store.apply(event);
    }

    /// Whether Services and EndpointSlices have been listed.
    pub fn is_synced(&self) -> bool {
        REQUIRED.iter().all(|kind| self.store.has_listed(*kind))
    }

    /// Whether every kind has been listed.
    pub fn is_complete(&self) -> bool {
        ObjectKind::ALL.iter().all(|kind| self.store.has_listed(*kind))
    }

    /// The name of this node.
    pub fn node_name(&self) -> &str {
        &self.name
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Notes from now on when the changes happened that are taken in.
    pub fn note_triggers(&mut self) {
        self.store.note_triggers(Timestamp::now());
    }

    /// When the changes happened that have been taken in since the last call.
    pub fn take_triggers(&mut self) -> Vec<(Family, Timestamp)> {
        self.store.take_triggers()
    }

    /// Resolves what events have concerned.
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
        // What is said of several of them has an order.
        let mut services = Vec::from_iter(services);
        services.sort_unstable_by(|(one, _), (next, _)| one.cmp(next));
        for (name, before) in &services {
            changes.extend(self.resolve_service(name, before.as_ref().map(Packed::unpack).as_ref(), &former));
        }
        changes.extend(self.table.apply_node_ports());
        changes
    }

    /// Resolves a Service, which was resolved as `before` on the node as it was then.
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

    /// Has a Service claim this and nothing else.
    fn claim(&mut self, precedence: &Precedence, before: &Claims, after: &Claims) -> Changes {
        let service = &precedence.service;
        let former: Vec<FrontendSpec> = before.frontends.iter().map(|(spec, _)| *spec).collect();
        let mut changes = self.table.set_addresses(AddressOwner::Served, service, &before.addresses, &after.addresses);
        // Claims of others that the addresses decide, in vain from now on or not any more.
        let mut concerned: Vec<FrontendSpec> = changes.frontends.iter().map(|frontend| FrontendSpec::from(*frontend)).collect();
        concerned.extend(former.iter().copied().chain(after.frontends.iter().map(|(spec, _)| *spec)));
        concerned.sort_unstable();
        concerned.dedup();
        changes.extend(self.table.replace(precedence, &former, after.frontends.clone()));
        self.conflicts.review(&self.table, precedence, &concerned);
        changes
    }
}
