//! Keeps the results per Service that are not in the table: skipped fields, health checks, missing local endpoints, and the
//! load balancer addresses with source ranges.
//!
//! Logs the skipped fields of a Service whenever they have changed. `agent` reads the results, and publishes most of them as
//! metrics and health checks.

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

/// The results of the last resolution of each Service.
#[derive(Default)]
pub(super) struct Reports {
    skipped: BTreeMap<ObjectName, Vec<Skipped>>,
    /// External IPs that are addresses of this node and are already logged.
    on_node: BTreeMap<ObjectName, BTreeSet<IpAddr>>,
    health_checks: BTreeMap<ObjectName, HealthCheck>,
    /// Family and traffic of Service ports without a usable endpoint on this node, see [`Resolved::lacking`].
    lacking: BTreeMap<ObjectName, Vec<(Family, Traffic)>>,
    /// Services with `Local` as `internalTrafficPolicy` or `externalTrafficPolicy`.
    kept_local: BTreeSet<ObjectName>,
    /// The load balancer addresses of Services with source ranges.
    guarded: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// Whether `guarded` has changed since the last [`Desired::take_guarded`].
    guarded_has_changed: bool,
}

impl Reports {
    /// Replaces the results of a Service, and logs its skipped fields if they have changed.
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

    /// Removes the results of a deleted Service.
    pub fn forget(&mut self, name: &ObjectName) {
        self.set_guarded(name, Vec::new());
        self.skipped.remove(name);
        self.health_checks.remove(name);
        self.lacking.remove(name);
        self.kept_local.remove(name);
        self.on_node.remove(name);
    }

    /// Records the load balancer addresses of a Service with source ranges.
    fn set_guarded(&mut self, name: &ObjectName, addresses: Vec<IpAddr>) {
        self.guarded_has_changed |= self.guarded.get(name).map_or(&[][..], Vec::as_slice) != addresses;
        set(&mut self.guarded, name, Some(addresses).filter(|addresses| !addresses.is_empty()));
    }

    /// Stores the skipped fields of a Service. Logs all of them if they differ from the last result.
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
    /// The health checks that the node answers, see [`Resolved::health_check`].
    pub fn health_checks(&self) -> &BTreeMap<ObjectName, HealthCheck> {
        &self.reports.health_checks
    }

    /// The load balancer addresses with source ranges, of all Services; `None` if they have not changed since the last call.
    pub fn take_guarded(&mut self) -> Option<BTreeSet<IpAddr>> {
        mem::take(&mut self.reports.guarded_has_changed).then(|| self.reports.guarded.values().flatten().copied().collect())
    }

    /// The number of Service ports whose policy `Local` for this traffic finds no usable endpoint on this node, but some on
    /// other nodes.
    pub fn lacking(&self, family: Family, traffic: Traffic) -> usize {
        self.reports.lacking.values().flatten().filter(|lacking| **lacking == (family, traffic)).count()
    }

    /// The skipped fields of all Services.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.reports.skipped.values().flatten()
    }

    /// The number of Services with skipped fields.
    pub fn faulty(&self) -> usize {
        self.reports.skipped.len()
    }

    /// Whether any Service has a traffic policy `Local`.
    pub fn keeps_local(&self) -> bool {
        !self.reports.kept_local.is_empty()
    }

    /// Logs once each external IP of a Service that is an address of this node. Clients of the node's own servers at that
    /// address and port are translated to the Service.
    pub(super) fn report_on_node(&mut self, objects: &ServiceObjects) {
        let ServiceObjects { name, service, slices: _ } = objects;
        let logged = self.reports.on_node.remove(name).unwrap_or_default();
        if service.external_ips.is_empty() {
            return;
        }
        let served: HashSet<IpAddr> = resolve::external_ips(service, &self.node).collect();
        let own: BTreeSet<IpAddr> = self.local.iter().map(IpNet::addr).filter(|address| served.contains(address)).collect();
        for address in own.difference(&logged) {
            tracing::warn!(
                "Service {name}: its external IP {address} is an address of this node: connections to the Service's ports \
                 there go to the Service, not to the node"
            );
        }
        if !own.is_empty() {
            self.reports.on_node.insert(name.clone(), own);
        }
    }
}

/// Inserts the value under the key, or removes the key if the value is `None`.
fn set<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}
