//! What the loop knows of itself, for those who ask over HTTP.

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

/// A change that waits longer makes the agent unhealthy: twice kube-proxy's sync period.
const PATIENCE: Duration = Duration::from_mins(1);

/// Shared by the loop, which writes, and the servers, which read.
#[derive(Debug)]
pub struct Published {
    inner: Mutex<Inner>,
    watches: Arc<Watches>,
    checks: watch::Sender<BTreeMap<u16, ServiceHealth>>,
}

#[derive(Debug)]
struct Inner {
    /// Since when the oldest change waits that is not in the tables.
    pending_since: Option<Instant>,
    last_sync: Timestamp,
    is_ready: bool,
    is_attached: bool,
    is_eligible: bool,
}

/// What a `healthCheckNodePort` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// The Service.
    pub service: ObjectName,
    /// Its endpoints on this node.
    pub check: HealthCheck,
}

impl Published {
    /// Before anything is known.
    pub fn new(watches: Arc<Watches>) -> Self {
        let inner =
            Inner { pending_since: None, last_sync: Timestamp::now(), is_ready: false, is_attached: true, is_eligible: true };
        Self { inner: Mutex::new(inner), watches, checks: watch::Sender::new(BTreeMap::new()) }
    }

    /// A change has come in.
    pub fn queued(&self) {
        self.lock().pending_since.get_or_insert_with(Instant::now);
    }

    /// All changes are in the tables.
    pub fn synced(&self) {
        let mut inner = self.lock();
        (inner.pending_since, inner.last_sync, inner.is_ready) = (None, Timestamp::now(), true);
    }

    /// The tables could not be written.
    pub fn failed(&self) {
        self.lock().is_ready = false;
    }

    /// Whether the programs serve, as far as is known.
    pub fn set_attached(&self, is_attached: bool) {
        self.lock().is_attached = is_attached;
    }

    /// Whether load balancers may send new connections to this node.
    pub fn set_eligible(&self, is_eligible: bool) {
        self.lock().is_eligible = is_eligible;
    }

    /// Sets the answers at all `healthCheckNodePort`s. Of two Services with one port the first by name has it; the others are
    /// returned.
    pub fn set_checks<'a>(&self, checks: &'a BTreeMap<ObjectName, HealthCheck>) -> Vec<&'a ObjectName> {
        let (mut ports, mut losers) = (BTreeMap::new(), Vec::new());
        for (service, check) in checks {
            let health = ServiceHealth { service: service.clone(), check: *check };
            match ports.entry(check.port) {
                Entry::Vacant(place) => drop(place.insert(health)),
                Entry::Occupied(_) => losers.push(service),
            }
        }
        self.checks.send_if_modified(|current| {
            let is_other = *current != ports;
            *current = ports;
            is_other
        });
        losers
    }

    /// The answers at all `healthCheckNodePort`s, and word of their changes.
    pub fn checks(&self) -> watch::Receiver<BTreeMap<u16, ServiceHealth>> {
        self.checks.subscribe()
    }

    /// No change waits for too long. Never false merely for idleness, nor because the API server is gone.
    pub fn is_healthy(&self) -> bool {
        self.lock().pending_since.is_none_or(|since| since.elapsed() <= PATIENCE)
    }

    /// Everything has been listed, and what was last applied was applied cleanly.
    pub fn is_ready(&self) -> bool {
        self.lock().is_ready
    }

    /// Whether the programs serve, as far as is known.
    pub fn is_attached(&self) -> bool {
        self.lock().is_attached
    }

    /// What the source says of its watches.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// What has not been heard of for too long.
    pub fn outage(&self) -> Option<Outage> {
        self.watches.outage()
    }

    /// Whether it is heard of who else has a ClusterIP.
    pub fn owners(&self) -> Owners {
        if self.watches.hears(ObjectKind::OtherService) { Owners::Known } else { Owners::Unknown }
    }

    /// Whether load balancers may send new connections to this node.
    pub fn is_eligible(&self) -> bool {
        self.lock().is_eligible
    }

    /// When tables and objects last agreed.
    pub fn last_sync(&self) -> Timestamp {
        self.lock().last_sync
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
