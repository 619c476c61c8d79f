//! What the tables should say: events and addresses in, changes of the desired table out. Joins `store`, `resolve` and `table`.

mod conflicts;
pub mod entries;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    collections::HashSet,
    model::{
        AddressOwner, Family, FrontendSpec, ObjectName, Precedence,
        event::{Event, ObjectKind},
        object::{OtherService, Packed, Policy, Service},
    },
    resolve::{
        self, Claims, HealthCheck, NodeContext, Skipped, Traffic,
        changes::Changes,
        claims::{Owners, Table, Yielding},
        node_ports::{self, Eligible},
    },
    store::{Dirty, ServiceObjects, Store},
};
use conflicts::Losers;

/// The kinds without which nothing may be concluded.
const REQUIRED: [ObjectKind; 2] = [ObjectKind::Service, ObjectKind::Slice];

/// The objects, and the table that follows from them.
pub struct Desired {
    store: Store,
    /// Entries are not kept: they follow from the objects.
    table: Table,
    /// Whether the Node or the ServiceCIDRs may be others.
    has_other_terms: bool,
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
    is_impatient: bool,
    /// Whether it is heard of who else has a ClusterIP.
    owners: Owners,
    skipped: BTreeMap<ObjectName, Vec<Skipped>>,
    losers: Losers,
    /// Whose external IP is an address of this node, as far as was said.
    on_node: BTreeMap<ObjectName, BTreeSet<IpAddr>>,
    health_checks: BTreeMap<ObjectName, HealthCheck>,
    lacking: BTreeMap<ObjectName, Vec<(Family, Traffic)>>,
    /// Services that keep some traffic on the node.
    kept_local: BTreeSet<ObjectName>,
    /// The load balancer addresses of Services with source ranges.
    guarded: BTreeMap<ObjectName, Vec<IpAddr>>,
    has_other_guarded: bool,
}

impl Desired {
    /// Of a node of this name.
    pub fn new(name: Arc<str>, eligible: Vec<Eligible>, cidrs: Vec<IpNet>) -> Self {
        Self {
            store: Store::default(),
            table: Table::default(),
            has_other_terms: false,
            node: NodeContext::new(&name, None).reserving(&cidrs),
            external_ips: None,
            name,
            eligible,
            cidrs,
            local: Vec::new(),
            is_impatient: false,
            owners: Owners::Known,
            skipped: BTreeMap::new(),
            losers: Losers::default(),
            on_node: BTreeMap::new(),
            health_checks: BTreeMap::new(),
            lacking: BTreeMap::new(),
            kept_local: BTreeSet::new(),
            guarded: BTreeMap::new(),
            has_other_guarded: false,
        }
    }

    /// Serves external IPs in these ranges only, if any are given.
    #[must_use]
    pub fn allowing(self, external_ips: Option<Arc<[IpNet]>>) -> Self {
        Self { node: self.node.allowing(external_ips.clone()), external_ips, ..self }
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: Event) {
        self.has_other_terms |= self.store.apply(event);
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
        self.has_other_terms = true;
        self.place_node_ports()
    }

    /// Whether node ports wait for the Node object to name an address.
    pub fn lacks_address(&self) -> bool {
        self.node_addresses().is_none()
    }

    /// Waits for the Node object's addresses no longer: node ports are served on all.
    pub fn give_up_waiting(&mut self) -> Changes {
        self.is_impatient = true;
        self.place_node_ports()
    }

    /// What load balancers are to be told that ask at a `healthCheckNodePort`.
    pub fn health_checks(&self) -> &BTreeMap<ObjectName, HealthCheck> {
        &self.health_checks
    }

    /// The load balancer addresses that admit only some, if they are not those of the last call.
    pub fn take_guarded(&mut self) -> Option<BTreeSet<IpAddr>> {
        mem::take(&mut self.has_other_guarded).then(|| self.guarded.values().flatten().copied().collect())
    }

    /// How many service ports a policy keeps on this node where there is no endpoint, while there are some elsewhere.
    pub fn lacking(&self, family: Family, traffic: Traffic) -> usize {
        self.lacking.values().flatten().filter(|lacking| **lacking == (family, traffic)).count()
    }

    /// Notes from now on when the changes happened that are taken in.
    pub fn note_triggers(&mut self) {
        self.store.note_triggers(Timestamp::now());
    }

    /// When the changes happened that have been taken in since the last call.
    pub fn take_triggers(&mut self) -> Vec<(Family, Timestamp)> {
        self.store.take_triggers()
    }

    /// What Services ask for and do not get.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.skipped.values().flatten()
    }

    /// How many Services ask for something that they do not get.
    pub fn faulty(&self) -> usize {
        self.skipped.len()
    }

    /// Whether any Service keeps some traffic on the node.
    pub fn keeps_local(&self) -> bool {
        !self.kept_local.is_empty()
    }

    /// Resolves what events have concerned.
    pub fn resolve(&mut self) -> Changes {
        let mut changes = Changes::default();
        let former = self.node.clone();
        if mem::take(&mut self.has_other_terms) {
            self.set_terms();
            changes.extend(self.place_node_ports());
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

    /// Takes over what the Node, the ServiceCIDRs and the addresses of the interfaces say.
    fn set_terms(&mut self) {
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

    /// Notes the addresses of its load balancer that admit only some.
    fn set_guarded(&mut self, name: &ObjectName, addresses: Vec<IpAddr>) {
        self.has_other_guarded |= self.guarded.get(name).map_or(&[][..], Vec::as_slice) != addresses;
        set(&mut self.guarded, name, Some(addresses).filter(|addresses| !addresses.is_empty()));
    }

    /// Resolves a Service, which was resolved as `before` on the node as it was then.
    fn resolve_service(&mut self, name: &ObjectName, before: Option<&Service>, former: &NodeContext) -> Changes {
        let created = before.map_or(0, |service| service.created);
        let before = before.map(|service| resolve::claims(service, former, |_| ())).unwrap_or_default();
        let Some(subject) = self.store.subject(name) else {
            self.forget(name);
            return self.claim(&Precedence { created, service: name.clone() }, &before, &Claims::default());
        };
        let resolved = resolve::resolve(&subject, &self.node);
        self.report_on_node(&subject);
        let changes = self.claim(&resolved.precedence, &before, &resolved.claims);
        self.set_guarded(name, resolve::source_ranges::guarded(&subject.service));
        set(&mut self.health_checks, name, resolved.health_check);
        set(&mut self.lacking, name, Some(resolved.lacking).filter(|lacking| !lacking.is_empty()));
        self.report_skipped(name, resolved.skipped);
        let Service { internal_policy, external_policy, .. } = subject.service;
        if [internal_policy, external_policy].contains(&Policy::Local) {
            self.kept_local.insert(name.clone());
        } else {
            self.kept_local.remove(name);
        }
        changes
    }

    /// Has a Service claim this and nothing else.
    fn claim(&mut self, precedence: &Precedence, before: &Claims, after: &Claims) -> Changes {
        let service = &precedence.service;
        let places: Vec<FrontendSpec> = before.frontends.iter().map(|(place, _)| *place).collect();
        let mut changes = self.table.set_addresses(AddressOwner::Served, service, &before.addresses, &after.addresses);
        // Claims of others that the addresses decide, in vain from now on or not any more.
        let mut concerned: Vec<FrontendSpec> = changes.frontends.iter().map(|frontend| FrontendSpec::from(*frontend)).collect();
        concerned.extend(places.iter().copied().chain(after.frontends.iter().map(|(place, _)| *place)));
        concerned.sort_unstable();
        concerned.dedup();
        changes.extend(self.table.replace(precedence, &places, after.frontends.clone()));
        self.losers.review(&self.table, precedence, &concerned);
        changes
    }

    fn forget(&mut self, name: &ObjectName) {
        self.set_guarded(name, Vec::new());
        self.skipped.remove(name);
        self.health_checks.remove(name);
        self.lacking.remove(name);
        self.kept_local.remove(name);
        self.on_node.remove(name);
    }

    fn place_node_ports(&mut self) -> Changes {
        if self.named_addresses().is_some() {
            self.is_impatient = false;
        }
        match self.node_addresses() {
            Some(addresses) => self.table.set_node_addresses(addresses),
            None => Changes::default(),
        }
    }

    /// The addresses that node ports are served on, if they are known.
    fn node_addresses(&self) -> Option<BTreeMap<IpAddr, Yielding>> {
        let all = || node_ports::addresses(&[Eligible::All], None, &self.local);
        self.named_addresses().or_else(|| self.is_impatient.then(all).flatten())
    }

    fn named_addresses(&self) -> Option<BTreeMap<IpAddr, Yielding>> {
        node_ports::addresses(&self.eligible, self.store.node(), &self.local)
    }

    /// Says once which external IPs of a Service are the node's own: clients on the node that mean the node get the Service.
    fn report_on_node(&mut self, subject: &ServiceObjects) {
        let ServiceObjects { name, service, slices: _ } = subject;
        let said = self.on_node.remove(name).unwrap_or_default();
        if service.external_ips.is_empty() {
            return;
        }
        let served: HashSet<IpAddr> = resolve::external_ips(service, &self.node).collect();
        let own: BTreeSet<IpAddr> = self.local.iter().map(IpNet::addr).filter(|address| served.contains(address)).collect();
        for address in own.difference(&said) {
            tracing::warn!(
                "Service {name}: its external IP {address} is this node's own address: its ports lead to the Service"
            );
        }
        if !own.is_empty() {
            self.on_node.insert(name.clone(), own);
        }
    }

    fn report_skipped(&mut self, name: &ObjectName, skipped: Vec<Skipped>) {
        if self.skipped.get(name).map(Vec::as_slice).unwrap_or_default() == skipped {
            return;
        }
        for skipped in &skipped {
            tracing::warn!("{skipped}");
        }
        set(&mut self.skipped, name, Some(skipped).filter(|skipped| !skipped.is_empty()));
    }
}

/// Sets what is known under a key, if anything is.
fn set<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}

#[cfg(test)]
mod tests;
