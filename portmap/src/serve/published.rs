//! The agent's health, as the HTTP servers report it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    model::{ObjectName, event::ObjectKind},
    resolve::{HealthCheck, claims::Owners},
    source::{Outage, Watches},
};

/// The longest time that a change may be pending in a healthy agent. It is twice kube-proxy's sync period.
const PATIENCE: Duration = Duration::from_mins(1);

/// The agent's health. The agent's loop writes it, and the servers read it.
#[derive(Debug)]
pub struct Published {
    inner: Mutex<Inner>,
    watches: Arc<Watches>,
    checks: watch::Sender<BTreeMap<u16, ServiceHealth>>,
}

#[derive(Debug)]
struct Inner {
    /// The time since which some change is not in the tables; none if no change is pending, and before the first sync.
    pending_since: Option<Instant>,
    last_sync: Timestamp,
    is_ready: bool,
    is_attached: bool,
    is_eligible: bool,
}

/// The health of a Service on this node, for the answers at its `healthCheckNodePort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// The Service that has the port.
    pub service: ObjectName,
    /// The port, and the number of ready endpoints on this node.
    pub check: HealthCheck,
}

impl Published {
    /// Starts as not ready, attached and eligible, without pending changes.
    pub fn new(watches: Arc<Watches>) -> Self {
        let inner =
            Inner { pending_since: None, last_sync: Timestamp::now(), is_ready: false, is_attached: true, is_eligible: true };
        Self { inner: Mutex::new(inner), watches, checks: watch::Sender::new(BTreeMap::new()) }
    }

    /// Records that a change is pending. The time of an earlier pending change stays.
    pub fn queued(&self) {
        self.lock().pending_since.get_or_insert_with(Instant::now);
    }

    /// Records that all changes are in the tables.
    pub fn synced(&self) {
        let mut inner = self.lock();
        (inner.pending_since, inner.last_sync, inner.is_ready) = (None, Timestamp::now(), true);
    }

    /// Records that a sync failed, usually a write of the tables. The agent is not ready until [`Self::synced`].
    pub fn failed(&self) {
        self.lock().is_ready = false;
    }

    /// Sets whether the programs are attached, as far as is known.
    pub fn set_attached(&self, is_attached: bool) {
        self.lock().is_attached = is_attached;
    }

    /// Sets whether load balancers may send new connections to this node.
    pub fn set_eligible(&self, is_eligible: bool) {
        self.lock().is_eligible = is_eligible;
    }

    /// Sets the health at each `healthCheckNodePort`. If several Services have one port, the first by name gets it, and the
    /// others are returned.
    pub fn set_checks<'a>(&self, checks: &'a BTreeMap<ObjectName, HealthCheck>) -> Vec<&'a ObjectName> {
        let (mut ports, mut conflicts) = (BTreeMap::new(), Vec::new());
        for (service, check) in checks {
            let health = ServiceHealth { service: service.clone(), check: *check };
            match ports.entry(check.port) {
                Entry::Vacant(entry) => drop(entry.insert(health)),
                Entry::Occupied(_) => conflicts.push(service),
            }
        }
        self.checks.send_if_modified(|current| {
            let is_other = *current != ports;
            *current = ports;
            is_other
        });
        conflicts
    }

    /// The health at each `healthCheckNodePort`, with notifications of changes.
    pub fn checks(&self) -> watch::Receiver<BTreeMap<u16, ServiceHealth>> {
        self.checks.subscribe()
    }

    /// Whether no change has been pending for more than a minute. Idleness, or an absent API server, does not make it false.
    /// Changes before the first sync do not count.
    pub fn is_healthy(&self) -> bool {
        self.lock().pending_since.is_none_or(|since| since.elapsed() <= PATIENCE)
    }

    /// Whether the tables have agreed with the objects since the agent's start, and no sync has failed since then.
    pub fn is_ready(&self) -> bool {
        self.lock().is_ready
    }

    /// Whether the programs are attached, as far as is known.
    pub fn is_attached(&self) -> bool {
        self.lock().is_attached
    }

    /// The state of the source's watches.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// The watches that fail for at least 15 seconds; none if there is no such watch.
    pub fn outage(&self) -> Option<Outage> {
        self.watches.outage()
    }

    /// Whether the Services of other proxies are known. Their watch must be up to date.
    pub fn owners(&self) -> Owners {
        if self.watches.is_current(ObjectKind::OtherService) { Owners::Known } else { Owners::Unknown }
    }

    /// Whether load balancers may send new connections to this node.
    pub fn is_eligible(&self) -> bool {
        self.lock().is_eligible
    }

    /// The time of the last sync; before the first sync, the time of the agent's start.
    pub fn last_sync(&self) -> Timestamp {
        self.lock().last_sync
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
