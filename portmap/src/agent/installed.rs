//! The installed state: the tables in the kernel, the planner's model of them, and the writes that bring them to the desired
//! state.
//!
//! [`super::desired`] provides the changes, `plan` the writes, and `apply` carries them out.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::{
    Options,
    datapath::Datapath,
    planner::{self, KnownPlanner},
    retry::Retry,
};
use crate::{
    apply,
    kernel::exhaustion::persist,
    maps::{Capacity, Fullness, Maps as _, grace::Grace, pin::Pins},
    plan::{Plan, Planner},
    resolve::{changes::Changes, desired::Desired},
};

/// The datapath of this agent, and the planner of its tables.
pub struct Installed {
    /// The maps and programs.
    pub datapath: Datapath,
    planner: KnownPlanner,
    /// The wait for the end of all programs that may read retired entries (removed, but not free yet); `None` if no entry
    /// waits.
    grace: Option<JoinHandle<Result<()>>>,
    /// The number of plans with at least one write, including those whose writes failed.
    applied: u64,
    scope: PlanScope,
    retry: Option<Retry>,
    /// Whether the tables were replaced by a larger copy, and [`Self::take_growth`] has not told so yet.
    has_grown: bool,
}

/// The entries that the next plan compares with the desired table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanScope {
    /// Entries that changed, and entries that found no room before.
    Changes,
    /// All entries: at the start, and after a failure.
    All,
    /// All entries, after another program changed the tables: all writes of the plan count as repairs.
    Repair,
}

/// A plan whose writes were made.
pub struct Written {
    pub plan: Plan,
    /// The entries that the plan compared.
    pub scope: PlanScope,
    /// Whether the plan compared any entry, not counting entries that found no room before.
    pub has_changes: bool,
    /// The time that planning and writing took.
    pub took: Duration,
}

impl Written {
    /// Whether the plan compared or changed any entry. The loop also plans without changes.
    pub fn compares(&self) -> bool {
        self.has_changes || self.scope != PlanScope::Changes || !self.plan.steps.is_empty()
    }

    /// The number of writes that undid changes by other programs.
    pub fn repairs(&self) -> usize {
        if self.scope == PlanScope::Repair { self.plan.steps.len() } else { 0 }
    }
}

impl Installed {
    /// Starts the datapath (see [`Datapath::start`]), and reads the tables that an earlier agent left, if any.
    pub async fn start(options: &Options) -> Result<Self> {
        let datapath = Datapath::start(options).await?;
        let planner = KnownPlanner::new(Planner::new(datapath.maps.capacity(), datapath.maps.read()?));
        Ok(Self { datapath, planner, grace: None, applied: 0, scope: PlanScope::All, retry: None, has_grown: false })
    }

    /// The number of plans with at least one write, including those whose writes failed.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The number of frontends in the tables.
    pub fn frontends(&self) -> usize {
        self.planner.last().frontends()
    }

    /// The addresses of node ports in the tables.
    pub fn node_port_addresses(&self) -> BTreeSet<IpAddr> {
        self.planner.last().node_port_addresses()
    }

    /// Whether a load balancer in the tables has source ranges.
    pub fn has_source_ranges(&self) -> bool {
        self.planner.last().has_source_ranges()
    }

    /// The used entries and the capacity of the maps of [`Planner::fullness`].
    pub fn fullness(&self) -> Vec<Fullness> {
        self.planner.last().fullness()
    }

    /// Frees the retired entries after a grace period, or returns when a retry is due. Waits for ever if neither is pending.
    pub async fn wake(&mut self) -> Result<()> {
        tokio::select! {
            result = finished(&mut self.grace) => {
                self.grace = None;
                result?;
                self.planner.last_mut().release();
                Ok(())
            }
            () = due(self.retry.as_ref()) => Ok(()),
        }
    }

    /// Whether a write, or the replacement of another set's programs, has failed, and the retry has not succeeded yet.
    pub fn is_failing(&self) -> bool {
        self.retry.is_some()
    }

    /// Whether the tables may be written now: false while a retry waits.
    pub fn may_write(&self) -> bool {
        self.retry.as_ref().is_none_or(Retry::is_due)
    }

    /// Plans the changes, or all entries if [`PlanScope`] requires it, and makes the writes of the plan. If they need more
    /// room, makes them in a larger copy of the tables.
    pub fn write(&mut self, desired: &Desired, changes: Changes) -> Result<Written> {
        let started = Instant::now();
        let (mut plan, mut has_changes) = self.plan(desired, changes)?;
        while let Some(larger) = self.datapath.larger(&self.fullness(), |room| plan.lacks(room)) {
            self.grow(larger);
            (plan, has_changes) = self.plan(desired, Changes::default())?;
        }
        for step in &plan.steps {
            tracing::debug!("{step}");
        }
        self.applied += u64::from(!plan.steps.is_empty());
        apply::apply(&mut self.datapath.maps, &plan)?;
        Ok(Written { plan, scope: self.scope, has_changes, took: started.elapsed() })
    }

    /// Replaces the tables by a larger copy. The next plan compares all entries with it. A failure is logged, and the tables
    /// stay.
    fn grow(&mut self, capacity: Capacity) {
        let Capacity { services, backends, .. } = capacity;
        tracing::info!("making larger tables, for {services} frontends and {backends} backends of each family");
        match self.datapath.grow(capacity) {
            Ok(()) => self.has_grown = true,
            Err(error) => tracing::error!("the tables keep their size: {error:#}"),
        }
        self.planner.invalidate();
        if self.scope == PlanScope::Changes {
            self.scope = PlanScope::All;
        }
    }

    /// Whether the tables were replaced by a larger copy since the last call.
    pub fn take_growth(&mut self) -> bool {
        std::mem::take(&mut self.has_grown)
    }

    /// Plans the changes, or all entries if [`PlanScope`] requires it. Also returns whether the plan compared any entry, not
    /// counting entries that found no room before.
    fn plan(&mut self, desired: &Desired, mut changes: Changes) -> Result<(Plan, bool)> {
        self.refresh_model()?;
        let planner = self.planner.last_mut();
        if self.scope != PlanScope::Changes {
            changes.extend(desired.table().everything());
            changes.extend(planner.everything());
        }
        let has_changes = !changes.is_empty();
        changes.extend(planner.take_retries());
        planner.set_cidrs(&desired.cidrs(), desired.owners());
        Ok((planner.plan(desired.changed(&changes)), has_changes))
    }

    /// Ends a successful write: the next plan compares changes only, and retired entries are freed after a grace period.
    pub fn confirm(&mut self) {
        (self.scope, self.retry) = (PlanScope::Changes, None);
        if self.grace.is_none() && self.planner.last_mut().seal() {
            let pins = self.datapath.pins.clone();
            self.grace = Some(tokio::spawn(wait_for_grace(pins)));
        }
    }

    /// Ends a failed write: the tables are read again, and all entries compared, when the retry is due.
    pub fn retry_later(&mut self, error: &anyhow::Error) {
        let retry = Retry::after(self.retry.as_ref());
        tracing::error!("{error:#}; trying again in {:?}", retry.wait());
        (self.scope, self.retry) = (PlanScope::All, Some(retry));
        self.planner.invalidate();
    }

    /// Replaces the planner's model by the tables that a comparison has read, if they differ. The next plan then repairs the
    /// tables.
    pub fn compare_with(&mut self, tables: Planner) {
        if !self.planner.last().is_confirmed_by(&tables) {
            self.planner.replace(tables);
            // In the new model no entry waits for this grace period.
            (self.grace, self.scope) = (None, PlanScope::Repair);
        }
    }

    /// Reads the tables into the model again, if a failed write has made the model unknown.
    fn refresh_model(&mut self) -> Result<()> {
        let Datapath { maps, pins, .. } = &self.datapath;
        let is_read = self.planner.refresh(|| planner::read(maps, pins))?;
        if is_read {
            // In the new model no entry waits for this grace period.
            self.grace = None;
        }
        Ok(())
    }
}

/// Returns after a grace period: then no program reads a retired entry any more. Tries again after a lack of descriptors or
/// memory.
async fn wait_for_grace(pins: Pins) -> Result<()> {
    persist(|| {
        let pins = pins.clone();
        let wait = tokio::task::spawn_blocking(move || Grace::open(&pins)?.wait());
        async { wait.await.context("the wait for a grace period crashed")? }
    })
    .await
}

/// Returns the result of the task. Waits for ever without a task.
async fn finished(task: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    match task {
        Some(task) => task.await.context("the wait for a grace period crashed")?,
        None => std::future::pending().await,
    }
}

/// Returns when the retry is due. Waits for ever without a retry.
async fn due(retry: Option<&Retry>) {
    match retry {
        Some(retry) => retry.due().await,
        None => std::future::pending().await,
    }
}
