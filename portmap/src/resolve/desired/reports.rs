//! Results per Service beside the table: skipped fields, health checks and missing local endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use ipnet::IpNet;

use super::Desired;
use crate::{
    collections::HashSet,
    model::{
        Family, ObjectName,
        object::{Policy, Service},
    },
    resolve::{self, HealthCheck, Resolved, Skipped, Traffic},
    store::ServiceObjects,
};

/// Results per Service.
#[derive(Default)]
pub(super) struct Reports {
    skipped: BTreeMap<ObjectName, Vec<Skipped>>,
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

impl Reports {
    /// Records the results of a Service.
    pub fn record(&mut self, service: &Service, resolved: Resolved) {
        let name = &resolved.precedence.service;
        self.set_guarded(name, resolve::source_ranges::guarded(service));
        set(&mut self.health_checks, name, resolved.health_check);
        set(&mut self.lacking, name, Some(resolved.lacking).filter(|lacking| !lacking.is_empty()));
        self.report_skipped(name, resolved.skipped);
        if [service.internal_policy, service.external_policy].contains(&Policy::Local) {
            self.kept_local.insert(name.clone());
        } else {
            self.kept_local.remove(name);
        }
    }

    /// Removes the results of a Service.
    pub fn forget(&mut self, name: &ObjectName) {
        self.set_guarded(name, Vec::new());
        self.skipped.remove(name);
        self.health_checks.remove(name);
        self.lacking.remove(name);
        self.kept_local.remove(name);
        self.on_node.remove(name);
    }

    /// Notes the addresses of its load balancer that admit only some.
    fn set_guarded(&mut self, name: &ObjectName, addresses: Vec<IpAddr>) {
        self.has_other_guarded |= self.guarded.get(name).map_or(&[][..], Vec::as_slice) != addresses;
        set(&mut self.guarded, name, Some(addresses).filter(|addresses| !addresses.is_empty()));
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

impl Desired {
    /// What load balancers are to be told that ask at a `healthCheckNodePort`.
    pub fn health_checks(&self) -> &BTreeMap<ObjectName, HealthCheck> {
        &self.reports.health_checks
    }

    /// The load balancer addresses that admit only some, if they are not those of the last call.
    pub fn take_guarded(&mut self) -> Option<BTreeSet<IpAddr>> {
        mem::take(&mut self.reports.has_other_guarded).then(|| self.reports.guarded.values().flatten().copied().collect())
    }

    /// How many service ports a policy keeps on this node where there is no endpoint, while there are some elsewhere.
    pub fn lacking(&self, family: Family, traffic: Traffic) -> usize {
        self.reports.lacking.values().flatten().filter(|lacking| **lacking == (family, traffic)).count()
    }

    /// What Services ask for and do not get.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.reports.skipped.values().flatten()
    }

    /// How many Services ask for something that they do not get.
    pub fn faulty(&self) -> usize {
        self.reports.skipped.len()
    }

    /// Whether any Service keeps some traffic on the node.
    pub fn keeps_local(&self) -> bool {
        !self.reports.kept_local.is_empty()
    }

    /// Says once which external IPs of a Service are the node's own: clients on the node that mean the node get the Service.
    pub(super) fn report_on_node(&mut self, objects: &ServiceObjects) {
        let ServiceObjects { name, service, slices: _ } = objects;
        let said = self.reports.on_node.remove(name).unwrap_or_default();
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
            self.reports.on_node.insert(name.clone(), own);
        }
    }
}

/// Sets what is known under a key, if anything is.
fn set<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}
