//! The stages of the agent's loop one after another, on the real maps, each timed: store → resolve → plan → apply.
//!
//! It is what `portmap::agent` does between an event and the kernel, without its queue, its log and the wait for more events.

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

/// The node that is resolved for.
pub const NODE: &str = "this-node";

/// What the agent has between two events.
pub struct Stages {
    desired: Desired,
    planner: Planner,
    maps: BpfMaps,
}

/// Which frontends are compared with the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All, as after a start.
    Everything,
    /// Those that the events concern.
    Changes,
}

/// The times of taking over the maps as they are.
#[derive(Clone, Copy, Debug)]
pub struct Takeover {
    /// Until the maps were open.
    pub open: Duration,
    /// Until no program could read what an earlier agent had retired.
    pub wait: Duration,
    /// Until everything in the maps was read.
    pub read: Duration,
    /// Until the planner had made its model of it.
    pub adopt: Duration,
}

/// The times of the stages, and what they did.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Taking in the events.
    pub store: Duration,
    /// From objects to the desired table.
    pub resolve: Duration,
    /// From the table to writes.
    pub plan: Duration,
    /// The writes.
    pub apply: Duration,
    /// How many writes there were.
    pub writes: usize,
}

impl Pass {
    /// From the events to the last write.
    #[must_use]
    pub fn total(&self) -> Duration {
        let Self { store, resolve, plan, apply, writes: _ } = *self;
        store + resolve + plan + apply
    }
}

impl Stages {
    /// Starts on the maps as they are.
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

    /// Brings the maps to where the events say.
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

    /// The maps.
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

/// Times one thing after another.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the last lap.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}
