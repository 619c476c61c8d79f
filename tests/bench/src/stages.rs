//! Runs and times the stages of the agent's loop on real maps: store → resolve → plan → apply.
//!
//! `portmap::agent` runs the same stages, and also has an event queue, a log and a delay to collect events.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portmap::apply;
use portmap::maps::Maps as _;
use portmap::maps::bpf::BpfMaps;
use portmap::model::event::Event;
use portmap::plan::Planner;
use portmap::resolve::changes::Changes;
use portmap::resolve::desired::Desired;

use crate::tables::Tables;

/// The name of the node for which Services are resolved.
pub const NODE: &str = "this-node";

/// The agent's state, which it keeps between two runs of its stages: objects, planner and maps.
pub struct Stages {
    desired: Desired,
    planner: Planner,
    maps: BpfMaps,
}

/// The frontends that one run of the stages compares with the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All frontends, as after the agent's start.
    Everything,
    /// The frontends that the events affect.
    Changes,
}

/// The times of the steps with which the agent takes over existing maps, before the first run of its stages.
#[derive(Clone, Copy, Debug)]
pub struct Takeover {
    /// Time to open the maps.
    pub open: Duration,
    /// Duration of a grace period. After it, no BPF program reads entries that an earlier agent has replaced or removed.
    pub wait: Duration,
    /// Time to read all entries of the maps.
    pub read: Duration,
    /// Time to build the planner's model of the entries.
    pub adopt: Duration,
}

/// The times of one run of the agent's stages, and the number of its writes to the maps.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Time to store the objects of the events.
    pub store: Duration,
    /// Time to compute the desired table from the objects.
    pub resolve: Duration,
    /// Time to compute the writes from the desired table.
    pub plan: Duration,
    /// Time to write to the maps.
    pub apply: Duration,
    /// Number of writes to the maps.
    pub writes: usize,
}

impl Pass {
    /// Time from the events to the last write.
    #[must_use]
    pub fn total(&self) -> Duration {
        let Self { store, resolve, plan, apply, writes: _ } = *self;
        store + resolve + plan + apply
    }
}

impl Stages {
    /// Takes over the existing maps, as the agent does at its start.
    pub fn start(tables: &Tables) -> Result<(Self, Takeover)> {
        let mut clock = Clock::start();
        let maps = tables.maps()?;
        let open = clock.lap();
        tables.wait_for_readers()?;
        let wait = clock.lap();
        let found = maps.read()?;
        let read = clock.lap();
        let planner = Planner::new(maps.capacity(), found);
        let takeover = Takeover { open, wait, read, adopt: clock.lap() };
        Ok((Self { desired: Desired::new(NODE.into(), Vec::new(), Vec::new()), planner, maps }, takeover))
    }

    /// Runs all stages once: stores these events, and writes the changes to the maps. Fails if frontends do not fit into the
    /// maps.
    pub fn pass(&mut self, events: Vec<Event>, scope: Scope) -> Result<Pass> {
        let mut clock = Clock::start();
        for event in events {
            self.desired.apply(event);
        }
        let store = clock.lap();
        let changes = self.resolve(scope);
        let resolve = clock.lap();
        let plan = self.planner.plan(self.desired.changed(&changes));
        let planned = clock.lap();
        apply::apply(&mut self.maps, &plan)?;
        let applied = clock.lap();
        let left_out = plan.left_out.len();
        ensure!(left_out == 0, "{left_out} frontends did not fit into the maps: {:?}", self.maps.capacity());
        Ok(Pass { store, resolve, plan: planned, apply: applied, writes: plan.steps.len() })
    }

    /// The open maps, to which [`Self::pass`] writes.
    #[must_use]
    pub fn maps(&self) -> &BpfMaps {
        &self.maps
    }

    fn resolve(&mut self, scope: Scope) -> Changes {
        let mut changes = self.desired.resolve();
        if scope == Scope::Everything {
            changes.extend(self.desired.table().everything());
            changes.extend(self.planner.everything());
        }
        changes
    }
}

/// A stopwatch for consecutive steps.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the last call, or since the start.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}
