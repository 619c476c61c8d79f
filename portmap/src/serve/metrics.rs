//! Metrics for Prometheus: under kube-proxy's names where the meaning is the same, otherwise under `portmap_`.
//!
//! `registration` has the names and help texts. The agent's loop sets the values, and the servers count answers to probes.

mod flows;
mod labels;
mod registration;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use portmap_common::Totals;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family as Metric, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    maps::Fullness,
    model::{Family, event::ObjectKind},
    source::Outage,
};
use flows::FlowMetrics;
use labels::{OfCode, OfEvent, OfFamily, OfKind, OfMap, OfOutcome, OfPolicy};

/// A gauge with a number of seconds; for a point in time, the seconds since 1970.
type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// The metrics of FLOWS and OPENING.
    pub flows: FlowMetrics,
    sync_duration: Metric<OfFamily, Histogram, fn() -> Histogram>,
    full_sync_duration: Metric<OfFamily, Histogram, fn() -> Histogram>,
    partial_sync_duration: Metric<OfFamily, Histogram, fn() -> Histogram>,
    programming: Metric<OfFamily, Histogram, fn() -> Histogram>,
    last_sync: Metric<OfFamily, Seconds>,
    last_queued: Metric<OfFamily, Seconds>,
    lacking: Metric<OfPolicy, Gauge>,
    service_changes: Counter,
    endpoint_changes: Counter,
    pending_services: Gauge,
    pending_endpoints: Gauge,
    entries: Metric<OfMap, Gauge>,
    capacity: Metric<OfMap, Gauge>,
    left_out: Gauge,
    without_room: Gauge,
    namespaces_left_out: Gauge,
    contested: Gauge,
    devices: Gauge,
    devices_failed: Gauge,
    not_listening: Gauge,
    failures: Counter,
    repairs: Counter,
    failing_watches: Metric<OfKind, Gauge>,
    calls: Metric<OfOutcome, Counter>,
    outside: Metric<OfOutcome, Counter>,
    events: Metric<OfEvent, Counter>,
    healthz: Metric<OfCode, Counter>,
    livez: Metric<OfCode, Counter>,
}

/// The kind of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// All entries were compared.
    Full,
    /// Only changed entries were compared.
    Partial,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            flows: FlowMetrics::default(),
            sync_duration: Metric::new_with_constructor(durations),
            full_sync_duration: Metric::new_with_constructor(durations),
            partial_sync_duration: Metric::new_with_constructor(durations),
            programming: Metric::new_with_constructor(latencies),
            last_sync: Metric::default(),
            last_queued: Metric::default(),
            lacking: Metric::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            pending_services: Gauge::default(),
            pending_endpoints: Gauge::default(),
            entries: Metric::default(),
            capacity: Metric::default(),
            left_out: Gauge::default(),
            without_room: Gauge::default(),
            namespaces_left_out: Gauge::default(),
            contested: Gauge::default(),
            devices: Gauge::default(),
            devices_failed: Gauge::default(),
            not_listening: Gauge::default(),
            failures: Counter::default(),
            repairs: Counter::default(),
            failing_watches: Metric::default(),
            calls: Metric::default(),
            outside: Metric::default(),
            events: Metric::default(),
            healthz: Metric::default(),
            livez: Metric::default(),
        };
        let mut registry = Registry::default();
        metrics.register_of_kube_proxy(&mut registry);
        metrics.register_own(&mut registry);
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Counts an event that is not in the tables yet. Events of all kinds but EndpointSlices count as changes of Services.
    pub fn queued(&self, kind: ObjectKind) {
        let (changes, pending) = if kind == ObjectKind::Slice {
            (&self.endpoint_changes, &self.pending_endpoints)
        } else {
            (&self.service_changes, &self.pending_services)
        };
        changes.inc();
        pending.inc();
        for family in Family::ALL {
            self.last_queued.get_or_create(&family.into()).set(seconds(Timestamp::now()));
        }
    }

    /// Records that all received changes are in the tables.
    pub fn clear_pending(&self) {
        self.pending_services.set(0);
        self.pending_endpoints.set(0);
    }

    /// Records a sync. `triggers`: the trigger times of the EndpointSlices that the sync applied.
    pub fn synced(&self, kind: SyncKind, took: Duration, triggers: &[(Family, Timestamp)]) {
        let now = Timestamp::now();
        for family in Family::ALL {
            let label = OfFamily::from(family);
            self.sync_duration.get_or_create(&label).observe(took.as_secs_f64());
            let of_kind = match kind {
                SyncKind::Full => &self.full_sync_duration,
                SyncKind::Partial => &self.partial_sync_duration,
            };
            of_kind.get_or_create(&label).observe(took.as_secs_f64());
            self.last_sync.get_or_create(&label).set(seconds(now));
        }
        for (family, triggered) in triggers {
            let latency = seconds(now) - seconds(*triggered);
            self.programming.get_or_create(&(*family).into()).observe(latency.max(0.0));
        }
    }

    /// Counts a failed sync: usually a failed write of the tables, else a failed replacement of the programs.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Counts writes that undid changes of the tables by other programs.
    pub fn repaired(&self, writes: usize) {
        self.repairs.inc_by(u64::try_from(writes).unwrap_or(u64::MAX));
    }

    /// Sets for each kind of objects whether its watch fails. No watch fails if `outage` is none.
    pub fn set_outage(&self, outage: Option<&Outage>) {
        for kind in ObjectKind::ALL {
            let is_failing = outage.is_some_and(|outage| outage.kinds.contains(&kind));
            self.failing_watches.get_or_create(&OfKind { kind: kind.to_string() }).set(i64::from(is_failing));
        }
    }

    /// Sets the number of Service ports whose traffic policy requires a local endpoint, and that have endpoints only on
    /// other nodes. `traffic_policy`: `internal` or `external`.
    pub fn set_lacking(&self, family: Family, traffic_policy: &'static str, count: usize) {
        let label = OfPolicy { ip_family: family.into(), traffic_policy };
        self.lacking.get_or_create(&label).set(gauge(count));
    }

    /// Sets three numbers: frontends without room in the maps, secondary entries (endpoints, members, source ranges,
    /// ClusterIPs) without room, and frontends that several Services claim (`contested`).
    pub fn set_left_out(&self, left_out: usize, without_room: usize, contested: usize) {
        self.left_out.set(gauge(left_out));
        self.without_room.set(gauge(without_room));
        self.contested.set(gauge(contested));
    }

    /// Sets the number of network namespaces that are missing in NAMESPACES or SOURCES, the maps for source ranges.
    pub fn set_namespaces_left_out(&self, count: u32) {
        self.namespaces_left_out.set(i64::from(count));
    }

    /// Sets the number of network devices that should have programs, and of those without their programs.
    pub fn set_devices(&self, chosen: usize, failed: usize) {
        self.devices.set(gauge(chosen));
        self.devices_failed.set(gauge(failed));
    }

    /// Sets the number of backends on this node for which no program listens. A backend of several service ports counts once for
    /// each.
    pub fn set_not_listening(&self, backends: usize) {
        self.not_listening.set(gauge(backends));
    }

    /// Sets the used and available entries of each map.
    pub fn set_fullness(&self, maps: &[Fullness]) {
        for Fullness { name: map, used, capacity } in maps {
            self.entries.get_or_create(&OfMap { map }).set(i64::from(*used));
            self.capacity.get_or_create(&OfMap { map }).set(i64::from(*capacity));
        }
    }

    /// Sets the counters of the programs, and the number of clients that session affinity has forgotten.
    pub fn set_totals(&self, totals: &Totals, affinity_forgotten: u64) {
        let Totals {
            forwarded,
            refused,
            dropped,
            undefined_port,
            unallocated,
            unknown_namespace,
            not_admitted,
            forgotten_sockets,
            affinity_clients,
            affinity_over_share,
            outside_forwarded,
            outside_refused,
            outside_dropped,
            outside_without_port,
            outside_overflowed,
        } = *totals;
        // The programs count in the map TOTALS, and this copies their counts.
        let store = |counter: &Counter, count: u64| counter.inner().store(count, Ordering::Relaxed);
        for (outcome, count) in [("forwarded", forwarded), ("refused", refused), ("dropped", dropped)] {
            store(&self.calls.get_or_create(&OfOutcome { outcome }), count);
        }
        for (outcome, count) in [("forwarded", outside_forwarded), ("refused", outside_refused), ("dropped", outside_dropped)] {
            store(&self.outside.get_or_create(&OfOutcome { outcome }), count);
        }
        for (event, count) in [
            ("undefined_port", undefined_port),
            ("unallocated_address", unallocated),
            ("unknown_namespace", unknown_namespace),
            ("not_admitted", not_admitted),
            ("forgotten_socket", forgotten_sockets),
            ("affinity_client", affinity_clients),
            ("affinity_over_share", affinity_over_share),
            ("outside_without_port", outside_without_port),
            ("outside_overflowed", outside_overflowed),
            ("affinity_forgotten", affinity_forgotten),
        ] {
            store(&self.events.get_or_create(&OfEvent { event }), count);
        }
    }

    /// Counts an answer of `/healthz` by status code.
    pub fn answered_healthz(&self, code: u16) {
        self.healthz.get_or_create(&OfCode { code }).inc();
    }

    /// Counts an answer of `/livez` by status code.
    pub fn answered_livez(&self, code: u16) {
        self.livez.get_or_create(&OfCode { code }).inc();
    }

    /// The answer to `/metrics`, as `OpenMetrics` text; status 500 if the encoding fails.
    pub fn answer(&self) -> Response {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(CONTENT_TYPE, kind)], text).into_response()
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// Buckets from 1 ms to 16.4 s, as kube-proxy has them.
fn durations() -> Histogram {
    Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power)))
}

/// Buckets from 0.25 s to 5 min, as kube-proxy has them.
fn latencies() -> Histogram {
    let by_5 = (60..=115).step_by(5).map(f64::from);
    let by_30 = (120..=300).step_by(30).map(f64::from);
    Histogram::new([0.25, 0.5].into_iter().chain((1..60).map(f64::from)).chain(by_5).chain(by_30))
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
