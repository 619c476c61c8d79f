//! The agent's reports: over HTTP, in STATE for the subcommands, and in the log.

use std::sync::Arc;

use anyhow::Result;

use super::{
    affinity_evictions::AffinityEvictions,
    desired::DesiredState,
    devices::Devices,
    installed::{Installed, PlanScope, Written},
    problems::Problems,
    record,
};
use crate::{
    maps::{bpf::BpfMaps, flows::sweep::Swept},
    model::{Family, ObjectName, event::ObjectKind},
    resolve::Traffic,
    serve::{Metrics, Published, SyncKind},
    source::Watches,
};

/// The destinations of the agent's reports.
pub struct Reporting {
    /// The health that the probes read.
    pub published: Arc<Published>,
    /// The metrics of Prometheus.
    pub metrics: Arc<Metrics>,
    problems: Problems,
    evictions: AffinityEvictions,
}

impl Reporting {
    /// Starts as not ready, without metrics or problems.
    pub fn new(watches: Arc<Watches>) -> Self {
        Self {
            published: Arc::new(Published::new(watches)),
            metrics: Arc::default(),
            problems: Problems::default(),
            evictions: AffinityEvictions::default(),
        }
    }

    /// Reports a successful write, or a plan without writes: in STATE, the metrics and the log.
    pub fn written(
        &mut self,
        written: Written,
        desired: &mut DesiredState,
        maps: &mut BpfMaps,
        frontends: usize,
    ) -> Result<()> {
        let table = desired.table.table();
        if written.compares() {
            record::record_sync(maps, &written.plan, table.contested(), written.repairs())?;
        }
        self.metrics.clear_pending();
        let triggers = desired.table.take_triggers();
        match written.scope {
            PlanScope::All | PlanScope::Repair => self.metrics.synced(SyncKind::Full, written.took, &triggers),
            PlanScope::Changes if written.has_changes => self.metrics.synced(SyncKind::Partial, written.took, &triggers),
            // The loop also plans without changes, which does not count as a sync.
            PlanScope::Changes => {}
        }
        self.metrics.repaired(written.repairs());
        log(&written, desired, frontends);
        self.problems.plan(written.plan, desired.table.table(), maps.capacity());
        Ok(())
    }

    /// Reports a failed write, which makes the agent unready.
    pub fn failed(&self) {
        self.metrics.failed();
        self.published.failed();
    }

    /// Publishes the state of the tables after the objects and tables agree: health, conflicts, left-out entries, and used
    /// entries.
    pub fn publish(&mut self, desired: &DesiredState, installed: &mut Installed) -> Result<()> {
        let table = &desired.table;
        self.published.synced();
        self.published.set_eligible(desired.is_eligible());
        let conflicts: Vec<ObjectName> = self.published.set_checks(table.health_checks()).into_iter().cloned().collect();
        self.problems.port_conflicts(conflicts);
        for family in Family::ALL {
            self.metrics.set_lacking(family, "internal", table.lacking(family, Traffic::Internal));
            self.metrics.set_lacking(family, "external", table.lacking(family, Traffic::External));
        }
        self.metrics.set_left_out(self.problems.left_out(), self.problems.without_room(), table.table().contested());
        let fullness = installed.fullness();
        self.metrics.set_fullness(&fullness);
        self.problems.fullness(&fullness);
        record::record_fullness(&mut installed.datapath.maps, &fullness)
    }

    /// Reports a sweep of flows: the metrics, and the entries that are left.
    pub fn swept(&mut self, swept: &Swept, maps: &mut BpfMaps) -> Result<()> {
        self.metrics.flows.swept(swept);
        self.problems.fullness(&swept.fullness);
        self.problems.unanswered(swept.unanswered);
        record::record_sweep(maps, swept)
    }

    /// Reports states that may change without a write: failing watches, mistakes in the objects, network devices, counters.
    pub fn refresh(&mut self, desired: &DesiredState, devices: &Devices, maps: &mut BpfMaps) -> Result<()> {
        let outage = self.published.outage();
        record::record_outage(maps, outage.as_ref())?;
        record::record_faults(maps, desired.lacks_node(self.published.watches()), desired.table.faulty())?;
        record::record_devices(maps, devices.absent())?;
        self.metrics.set_outage(outage.as_ref());
        let (chosen, failed) = devices.counts();
        self.metrics.set_devices(chosen, failed);
        let totals = maps.totals()?;
        self.metrics.set_totals(&totals, self.evictions.count(maps, &totals)?);
        Ok(())
    }
}

/// Logs the number of writes, if any, and after a sync of all entries the number of objects.
fn log(written: &Written, desired: &DesiredState, frontends: usize) {
    let count = written.plan.steps.len();
    match (written.scope, written.plan.steps.first()) {
        (PlanScope::Repair, Some(first)) => {
            tracing::warn!("another program had changed the tables: repaired by {count} writes; the first: {first}");
        }
        (PlanScope::Changes | PlanScope::All, Some(_)) => tracing::info!("applied {count} writes in {:.1?}", written.took),
        (_, None) => {}
    }
    if written.scope == PlanScope::All {
        let store = desired.table.store();
        let (services, slices) = (store.count(ObjectKind::Service), store.count(ObjectKind::Slice));
        tracing::info!("synced: {services} Services, {slices} EndpointSlices, {frontends} frontends");
    }
}
