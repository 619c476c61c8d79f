//! The periodic comparison of the kernel's tables with what they should hold: somebody else may have changed them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::planner;
use crate::{
    maps::{bpf::BpfMaps, pin::Pins},
    plan::Planner,
};

/// When the tables are compared, and what was read of them.
pub struct Comparison {
    /// Between two of them; none: never.
    every: Option<Duration>,
    last: Instant,
    reading: Option<TableReading>,
}

/// The tables being read beside the loop.
struct TableReading {
    /// How many plans had been applied before.
    applied: u64,
    task: JoinHandle<Result<Planner>>,
}

impl Comparison {
    /// The first one is due after the first interval.
    pub fn new(every: Option<Duration>) -> Self {
        Self { every, last: Instant::now(), reading: None }
    }

    /// Begins to read the tables, if it is time.
    pub fn check(&mut self, pins: &Pins, applied: u64) {
        let is_due = self.every.is_some_and(|every| self.last.elapsed() >= every);
        if is_due && self.reading.is_none() {
            self.last = Instant::now();
            let pins = pins.clone();
            self.reading = Some(TableReading { applied, task: tokio::task::spawn_blocking(move || read(&pins)) });
        }
    }

    /// Returns when the tables have been read: a model of them, unless a plan was applied meanwhile. Never without a reading.
    pub async fn ended(&mut self, applied: u64) -> Option<Planner> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let read = (&mut reading.task).await.context("the comparison of the tables crashed").flatten();
        let is_current = reading.applied == applied;
        self.reading = None;
        match read {
            Ok(planner) => is_current.then_some(planner),
            Err(error) => {
                tracing::warn!("failed to compare the tables: {error:#}");
                None
            }
        }
    }
}

fn read(pins: &Pins) -> Result<Planner> {
    planner::read(&BpfMaps::open(pins)?, pins)
}
