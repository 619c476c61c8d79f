//! What the tables should say: events and addresses in, changes of the desired table out. Joins `store`, `resolve` and `table`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    node_ports::{self, Eligible},
    resolve::{self, HealthCheck, Node, Resolved, Skipped, Traffic},
    source::{Event, Kind},
    store::Store,
    table::{self, AddressOwner, Changes, Family, Frontend, ObjectName, Place, Table},
};

/// The kinds without which nothing may be concluded.
const REQUIRED: [Kind; 2] = [Kind::Service, Kind::Slice];

/// The objects, and the table that follows from them.
pub struct Desired {
    store: Store,
    table: Table,
    name: Arc<str>,
    node: Node,
    /// The ranges that external IPs are served in; none: wherever they are.
    external_ips: Option<Arc<[IpNet]>>,
    eligible: Vec<Eligible>,
    /// The ranges of the command line, which count as long as there is no ServiceCIDR.
    cidrs: Vec<IpNet>,
    local: Vec<IpAddr>,
    /// Whether the Node object's addresses are waited for no longer.
    is_impatient: bool,
    skipped: BTreeMap<ObjectName, Vec<Skipped>>,
    /// Who claims a place in vain, as far as was said.
    losers: BTreeMap<Place, Vec<ObjectName>>,
    /// Whose external IP is an address of this node, as far as was said.
    on_node: BTreeMap<ObjectName, BTreeSet<IpAddr>>,
    health_checks: BTreeMap<ObjectName, HealthCheck>,
    lacking: BTreeMap<ObjectName, Vec<(Family, Traffic)>>,
}

impl Desired {
    /// Of a node of this name.
    pub fn new(name: Arc<str>, eligible: Vec<Eligible>, cidrs: Vec<IpNet>) -> Self {
        Self {
            store: Store::default(),
            table: Table::default(),
            node: Node::new(&name, None),
            external_ips: None,
            name,
            eligible,
            cidrs,
            local: Vec::new(),
            is_impatient: false,
            skipped: BTreeMap::new(),
            losers: BTreeMap::new(),
            on_node: BTreeMap::new(),
            health_checks: BTreeMap::new(),
            lacking: BTreeMap::new(),
        }
    }

    /// Serves external IPs in these ranges only, if any are given.
    #[must_use]
    pub fn allowing(self, external_ips: Option<Arc<[IpNet]>>) -> Self {
        Self { node: self.node.allowing(external_ips.clone()), external_ips, ..self }
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: Event) {
        self.store.apply(event);
    }

    /// Whether Services and EndpointSlices have been listed.
    pub fn is_synced(&self) -> bool {
        REQUIRED.iter().all(|kind| self.store.has_listed(*kind))
    }

    /// Whether every kind has been listed.
    pub fn is_complete(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.store.has_listed(*kind))
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

    /// The ranges that ClusterIPs are given from, as far as it is known who else has one.
    pub fn cidrs(&self) -> Vec<IpNet> {
        if !self.store.has_listed(Kind::OtherService) {
            return Vec::new();
        }
        let listed: Vec<IpNet> = self.store.cidrs().collect();
        if listed.is_empty() { self.cidrs.clone() } else { listed }
    }

    /// Sets the addresses of the node's interfaces.
    pub fn set_local(&mut self, addresses: Vec<IpAddr>) -> Changes {
        self.local = addresses;
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

    /// Whether what a client asked for is still served at this address, if only for the clients that it has.
    pub fn serves(&self, asked: &Frontend, given: SocketAddr) -> bool {
        let serving = self.table.get(asked).and_then(|entry| entry.serving.as_ref());
        serving.is_some_and(|serving| serving.iter().any(|end| SocketAddr::new(end.address, end.port) == given))
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

    /// Resolves what events have concerned.
    pub fn resolve(&mut self) -> Changes {
        let mut changes = Changes::default();
        let mut dirty = self.store.take_dirty();
        if dirty.node {
            let node = Node::new(&self.name, self.store.node()).allowing(self.external_ips.clone());
            if self.node != node {
                self.node = node;
                self.store.mark_all();
                dirty.services.extend(self.store.take_dirty().services);
            }
            changes.extend(self.place_node_ports());
        }
        for name in &dirty.services {
            changes.extend(self.resolve_service(name));
            self.report_losers(name);
        }
        for name in &dirty.others {
            let addresses = self.store.other(name).map(|service| service.cluster_ips).unwrap_or_default();
            let addresses = Family::ALL.iter().filter_map(|family| *addresses.get(*family)).collect();
            changes.extend(self.table.set_addresses(AddressOwner::OtherProxy, name, addresses));
        }
        changes
    }

    fn resolve_service(&mut self, name: &ObjectName) -> Changes {
        let Some(service) = self.store.service(name) else {
            self.skipped.remove(name);
            self.health_checks.remove(name);
            self.lacking.remove(name);
            self.on_node.remove(name);
            return self.table.remove(name);
        };
        let resolved = resolve::resolve(service, &self.store.slices_of(name), &self.node);
        let said = self.on_node.remove(name);
        self.on_node.extend(report_on_node(name, &resolved, &self.local, said.as_ref()));
        let mut changes = self.table.replace(&resolved.precedence, resolved.entries);
        changes.extend(self.table.set_addresses(AddressOwner::Served, name, resolved.addresses));
        match resolved.health_check {
            Some(check) => drop(self.health_checks.insert(name.clone(), check)),
            None => drop(self.health_checks.remove(name)),
        }
        if resolved.lacking.is_empty() {
            self.lacking.remove(name);
        } else {
            self.lacking.insert(name.clone(), resolved.lacking);
        }
        self.report_skipped(name, resolved.skipped);
        changes
    }

    fn place_node_ports(&mut self) -> Changes {
        match self.node_addresses() {
            Some(addresses) => self.table.set_node_addresses(addresses),
            None => Changes::default(),
        }
    }

    /// The addresses that node ports are served on, if they are known.
    fn node_addresses(&self) -> Option<BTreeSet<IpAddr>> {
        let addresses = node_ports::addresses(&self.eligible, self.store.node(), &self.local);
        addresses.or_else(|| self.is_impatient.then(|| node_ports::addresses(&[Eligible::All], None, &self.local)).flatten())
    }

    fn report_skipped(&mut self, name: &ObjectName, skipped: Vec<Skipped>) {
        if self.skipped.get(name).map(Vec::as_slice).unwrap_or_default() == skipped {
            return;
        }
        for skipped in &skipped {
            tracing::warn!("{skipped}");
        }
        self.skipped.insert(name.clone(), skipped);
    }

    /// Says once who claims a place in vain.
    fn report_losers(&mut self, service: &ObjectName) {
        for place in self.table.places_of(service) {
            let losers: Vec<ObjectName> = self.table.losers(place).map(|(loser, _)| loser.clone()).collect();
            let said = self.losers.get(place).map(Vec::as_slice).unwrap_or_default();
            for (loser, winner) in self.table.losers(place).filter(|(loser, _)| !said.contains(loser)) {
                tracing::warn!("Service {loser}: {place} belongs to the older Service {winner}, and is left to it");
            }
            if losers.is_empty() {
                self.losers.remove(place);
            } else {
                self.losers.insert(*place, losers);
            }
        }
    }
}

/// Says once which external IPs of a Service are the node's own: clients on the node that mean the node get the Service.
fn report_on_node(
    name: &ObjectName,
    resolved: &Resolved,
    local: &[IpAddr],
    said: Option<&BTreeSet<IpAddr>>,
) -> Option<(ObjectName, BTreeSet<IpAddr>)> {
    let external = resolved.entries.iter().filter(|(_, entry)| entry.kind == table::Kind::ExternalIp);
    let own: BTreeSet<IpAddr> = external.filter_map(|(place, _)| place.address).filter(|it| local.contains(it)).collect();
    for address in own.iter().filter(|address| said.is_none_or(|said| !said.contains(address))) {
        tracing::warn!("Service {name}: its external IP {address} is this node's own address: its ports lead to the Service");
    }
    (!own.is_empty()).then(|| (name.clone(), own))
}

#[cfg(test)]
mod tests;
