//! The comparison of the kernel's tables with the planner's model, which finds changes by other programs (drift). It runs at an
//! interval, and after the signal SIGUSR1, which `portmap verify --repair` sends.
//!
//! This module reads the tables in a task; [`super::installed`] compares them, and repairs differences.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

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
    /// SIGUSR1, which requests a comparison.
    requests: Signal,
    is_requested: bool,
    reading: Option<TableReading>,
}

/// A task that reads the tables beside the loop.
struct TableReading {
    /// The number of plans with writes that were applied before the reading began.
    applied: u64,
    task: JoinHandle<Result<Planner>>,
}

impl Comparison {
    /// The first comparison is due after one interval. Handles SIGUSR1 from now on.
    pub fn new(every: Option<Duration>) -> Result<Self> {
        let requests = signal(SignalKind::user_defined1()).context("failed to handle SIGUSR1")?;
        Ok(Self { every, last: Instant::now(), requests, is_requested: false, reading: None })
    }

    /// Starts to read the tables if a comparison is due, and no reading is under way. `applied`: the number of plans with
    /// writes so far.
    pub fn start_if_due(&mut self, pins: &Pins, applied: u64) {
        let is_due = self.is_requested || self.every.is_some_and(|every| self.last.elapsed() >= every);
        if is_due && self.reading.is_none() {
            self.is_requested = false;
            self.last = Instant::now();
            let pins = pins.clone();
            self.reading = Some(TableReading { applied, task: tokio::task::spawn_blocking(move || read(&pins)) });
        }
    }

    /// Waits for the tables that are being read. Returns `None` if the reading failed, or if a plan made writes since it
    /// began, and after a request: the next [`Self::start_if_due`] then starts a comparison.
    pub async fn ended(&mut self, applied: u64) -> Option<Planner> {
        let read = tokio::select! {
            read = finished(&mut self.reading) => read,
            Some(()) = self.requests.recv() => {
                tracing::info!("comparing the kernel's tables with the objects: SIGUSR1 requests it");
                self.is_requested = true;
                return None;
            }
        };
        let is_current = self.reading.take().is_some_and(|reading| reading.applied == applied);
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

/// The tables that are being read. Waits for ever if no reading is under way.
async fn finished(reading: &mut Option<TableReading>) -> Result<Planner> {
    match reading {
        Some(reading) => (&mut reading.task).await.context("the reading of the tables crashed").flatten(),
        None => std::future::pending().await,
    }
}

fn read(pins: &Pins) -> Result<Planner> {
    planner::read(&BpfMaps::open(pins)?, pins)
}
