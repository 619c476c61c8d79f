//! The periodic comparison of the kernel's tables with the planner's model, which finds changes by other programs (drift).
//!
//! This module reads the tables in a task; [`super::installed`] compares them, and repairs differences.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::planner;
use crate::{
    maps::{bpf::BpfMaps, pin::Pins},
    plan::Planner,
};

/// The schedule of comparisons, and the task that reads the tables for the next one.
pub struct Comparison {
    /// The interval of comparisons; none: no comparison.
    every: Option<Duration>,
    last: Instant,
    reading: Option<TableReading>,
}

/// A task that reads the tables beside the loop.
struct TableReading {
    /// The number of plans with writes that were applied before the reading began.
    applied: u64,
    task: JoinHandle<Result<Planner>>,
}

impl Comparison {
    /// The first comparison is due after one interval.
    pub fn new(every: Option<Duration>) -> Self {
        Self { every, last: Instant::now(), reading: None }
    }

    /// Starts to read the tables if a comparison is due, and no reading is under way. `applied`: the number of plans with
    /// writes so far.
    pub fn start_if_due(&mut self, pins: &Pins, applied: u64) {
        let is_due = self.every.is_some_and(|every| self.last.elapsed() >= every);
        if is_due && self.reading.is_none() {
            self.last = Instant::now();
            let pins = pins.clone();
            self.reading = Some(TableReading { applied, task: tokio::task::spawn_blocking(move || read(&pins)) });
        }
    }

    /// Waits for the tables that are being read. Returns `None` if the reading failed, or if a plan made writes since it
    /// began. Waits for ever if no reading is under way.
    pub async fn ended(&mut self, applied: u64) -> Option<Planner> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let read = (&mut reading.task).await.context("the reading of the tables crashed").flatten();
        let is_current = reading.applied == applied;
        self.reading = None;
        match read {
            Ok(planner) => is_current.then_some(planner),
            Err(error) => {
                tracing::warn!(
                    "failed to compare the kernel's tables with the model: {error:#}; trying again after the next interval"
                );
                None
            }
        }
    }
}

fn read(pins: &Pins) -> Result<Planner> {
    planner::read(&BpfMaps::open(pins)?, pins)
}
