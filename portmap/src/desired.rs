//! What the tables should say: events and addresses in, changes of the desired table out. Joins `store`, `resolve` and `table`.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    node_ports::{self, Eligible},
    object::{OtherService, Packed, Service},
    resolve::{self, Claims, HealthCheck, Node, Skipped, Subject, Traffic},
    source::{Event, Kind},
    store::{Dirty, Store},
    table::{AddressOwner, Changes, Entries, Entry, Family, Frontend, ObjectName, Place, Precedence, Table},
};

/// The kinds without which nothing may be concluded.
const REQUIRED: [Kind; 2] = [Kind::Service, Kind::Slice];

/// The objects, and the table that follows from them.
pub struct Desired {
    store: Store,
    /// What each Service does at a place follows from the objects, whenever it is asked for.
    table: Table<()>,
    /// Who was asked for last, and probably will be again.
    last: Cell<Option<Rc<Subject>>>,
    has_other_node: bool,
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
            last: Cell::default(),
            has_other_node: false,
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
        self.last.take();
        self.has_other_node |= self.store.apply(event);
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
    pub fn table(&self) -> &Table<()> {
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
        self.set_node();
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
        std::mem::take(&mut self.has_other_guarded).then(|| self.guarded.values().flatten().copied().collect())
    }

    /// Whether what a client asked for is still served at this address, if only for the clients that it has.
    pub fn serves(&self, asked: &Frontend, given: SocketAddr) -> bool {
        let serving = self.entry(asked).and_then(|entry| entry.into_owned().serving);
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

    /// All places and what is done there, in order.
    pub fn entries(&self) -> impl Iterator<Item = (Place, Entry)> {
        self.table.iter().filter_map(|(place, service, ())| Some((*place, self.entry_at(place, service)?)))
    }

    /// What Services ask for and do not get.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.skipped.values().flatten()
    }

    /// Resolves what events have concerned.
    pub fn resolve(&mut self) -> Changes {
        let mut changes = Changes::default();
        if std::mem::take(&mut self.has_other_node) {
            self.set_node();
            changes.extend(self.place_node_ports());
        }
        let Dirty { services, others } = self.store.take_dirty();
        // What is said of several of them has an order.
        let mut services = Vec::from_iter(services);
        services.sort_unstable_by(|(one, _), (next, _)| one.cmp(next));
        for (name, before) in &services {
            changes.extend(self.resolve_service(name, before.as_ref().map(Packed::unpack).as_ref()));
        }
        for (name, before) in &others {
            let addresses = |service: Option<&OtherService>| service.map(OtherService::addresses).unwrap_or_default();
            let (before, after) = (addresses(before.as_ref()), addresses(self.store.other(name)));
            changes.extend(self.table.set_addresses(AddressOwner::OtherProxy, name, &before, &after));
        }
        changes
    }

    /// Has everything resolved anew if the node is not what it was.
    fn set_node(&mut self) {
        let node = Node::new(&self.name, self.store.node()).at(&self.local).allowing(self.external_ips.clone());
        if self.node != node {
            self.node = node;
            self.last.take();
            self.store.mark_all();
        }
    }

    /// Notes the addresses of its load balancer that admit only some.
    fn set_guarded(&mut self, name: &ObjectName, addresses: Vec<IpAddr>) {
        self.has_other_guarded |= self.guarded.get(name).map_or(&[][..], Vec::as_slice) != addresses;
        set(&mut self.guarded, name, Some(addresses).filter(|addresses| !addresses.is_empty()));
    }

    fn resolve_service(&mut self, name: &ObjectName, before: Option<&Service>) -> Changes {
        let before = before.map(|service| resolve::claims(service, &self.node, |_| ())).unwrap_or_default();
        let Some(subject) = self.store.subject(name) else {
            self.forget(name);
            return self.claim(&Precedence { created: 0, service: name.clone() }, &before, &Claims::default());
        };
        let resolved = resolve::resolve(&subject, &self.node);
        let said = self.on_node.remove(name);
        self.on_node.extend(report_on_node(&subject, &resolved.claims, &self.local, said.as_ref()));
        let changes = self.claim(&resolved.precedence, &before, &resolved.claims);
        self.set_guarded(name, resolve::sources::guarded(&subject.service));
        set(&mut self.health_checks, name, resolved.health_check);
        set(&mut self.lacking, name, Some(resolved.lacking).filter(|lacking| !lacking.is_empty()));
        self.report_skipped(name, resolved.skipped);
        changes
    }

    /// Has a Service claim this and nothing else.
    fn claim(&mut self, precedence: &Precedence, before: &Claims, after: &Claims) -> Changes {
        let service = &precedence.service;
        let places = after.places.iter().map(|place| (*place, ())).collect();
        let mut changes = self.table.replace(precedence, &before.places, places);
        changes.extend(self.table.set_addresses(AddressOwner::Served, service, &before.addresses, &after.addresses));
        self.report_losers(before.places.iter().chain(&after.places));
        changes
    }

    fn forget(&mut self, name: &ObjectName) {
        self.set_guarded(name, Vec::new());
        self.skipped.remove(name);
        self.health_checks.remove(name);
        self.lacking.remove(name);
        self.on_node.remove(name);
    }

    fn entry_at(&self, place: &Place, service: &ObjectName) -> Option<Entry> {
        let last = self.last.take().filter(|last| last.name == *service);
        let subject = last.or_else(|| self.store.subject(service).map(Rc::new))?;
        self.last.set(Some(subject.clone()));
        resolve::entry(&subject, &self.node, place)
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
    fn report_losers<'a>(&mut self, places: impl Iterator<Item = &'a Place>) {
        for place in places {
            let losers: Vec<ObjectName> = self.table.losers(place).map(|(loser, _)| loser.clone()).collect();
            let said = self.losers.get(place).map(Vec::as_slice).unwrap_or_default();
            for (loser, winner) in self.table.losers(place).filter(|(loser, _)| !said.contains(loser)) {
                tracing::warn!("Service {loser}: {place} belongs to the older Service {winner}, and is left to it");
            }
            set(&mut self.losers, place, Some(losers).filter(|losers| !losers.is_empty()));
        }
    }
}

impl Entries for Desired {
    fn entry(&self, frontend: &Frontend) -> Option<Cow<'_, Entry>> {
        let (place, service) = self.table.winner(frontend)?;
        self.entry_at(&place, service).map(Cow::Owned)
    }

    fn owner(&self, address: &IpAddr) -> Option<AddressOwner> {
        self.table.owner(address)
    }
}

/// Sets what is known under a key, if anything is.
fn set<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}

/// Says once which external IPs of a Service are the node's own: clients on the node that mean the node get the Service.
fn report_on_node(
    subject: &Subject,
    claims: &Claims,
    local: &[IpAddr],
    said: Option<&BTreeSet<IpAddr>>,
) -> Option<(ObjectName, BTreeSet<IpAddr>)> {
    let Subject { name, service, slices: _ } = subject;
    let claimed = claims.places.iter().filter_map(|place| place.address);
    let own: BTreeSet<IpAddr> = claimed.filter(|it| service.external_ips.contains(it) && local.contains(it)).collect();
    for address in own.iter().filter(|address| said.is_none_or(|said| !said.contains(address))) {
        tracing::warn!("Service {name}: its external IP {address} is this node's own address: its ports lead to the Service");
    }
    (!own.is_empty()).then(|| (name.clone(), own))
}

#[cfg(test)]
mod tests;
