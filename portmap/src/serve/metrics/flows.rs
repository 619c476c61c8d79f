//! The metrics of the flows of clients outside the node.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family as Metric, gauge::Gauge},
    registry::Registry,
};

use super::labels::{IpFamily, OfTable};
use crate::maps::{Fullness, flows::sweep::Swept};

/// The metrics of FLOWS and OPENING.
#[derive(Debug, Default)]
pub struct FlowMetrics {
    entries: Metric<OfTable, Gauge>,
    capacity: Metric<OfTable, Gauge>,
    pressure: Metric<OfTable, Gauge<f64, AtomicU64>>,
    swept: Counter,
    purged: Counter,
    unanswered: Gauge,
}

impl FlowMetrics {
    /// Registers the metrics in the registry of portmap's own ones.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("flows", "Entries of flows of clients outside the node, 2 or 4 per flow", self.entries.clone());
        registry.register("flows_capacity", "Capacity of a table of flows in entries", self.capacity.clone());
        registry.register("flows_pressure", "Entries of flows as a fraction of the table's capacity", self.pressure.clone());
        registry.register("flows_swept", "Entries of flows that were deleted because they had expired", self.swept.clone());
        registry.register(
            "flows_purged",
            "UDP flows that were deleted because their endpoint no longer serves",
            self.purged.clone(),
        );
        registry.register(
            "flows_unanswered",
            "Refused connections of clients outside the node that have got no answer, because a packet filter drops it",
            self.unanswered.clone(),
        );
    }

    /// Records a sweep.
    pub fn swept(&self, Swept { deleted, unanswered, fullness }: &Swept) {
        self.swept.inc_by(*deleted);
        self.unanswered.set(i64::from(*unanswered));
        for Fullness { name, used, capacity } in fullness {
            let Some((table, family)) = name.split_once('_') else { continue };
            let ip_family = if family == "V4" { IpFamily::IPv4 } else { IpFamily::IPv6 };
            let label = OfTable { ip_family, table };
            self.entries.get_or_create(&label).set(i64::from(*used));
            self.capacity.get_or_create(&label).set(i64::from(*capacity));
            self.pressure.get_or_create(&label).set(f64::from(*used) / f64::from((*capacity).max(1)));
        }
    }

    /// Counts UDP flows that were deleted because their endpoint no longer serves.
    pub fn purged(&self, flows: u64) {
        self.purged.inc_by(flows);
    }
}
