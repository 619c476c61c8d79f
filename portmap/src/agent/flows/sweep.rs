//! The periodic deletion of expired flows of clients outside the node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;

use super::FlowResult;
use crate::{
    kernel::exhaustion::{self, is_exhausted},
    maps::{
        Fullness,
        flows::{self, FlowMaps, sweep::Swept},
    },
};

/// The usual time between two sweeps.
const USUAL: Duration = Duration::from_secs(10);

/// The time between two sweeps while FLOWS fills up. It is less than a second, so that each check of the loop, once a second,
/// starts a sweep.
const FAST: Duration = Duration::from_millis(900);

/// The schedule of sweeps, and the sweep that is under way.
pub struct Sweep {
    maps: Arc<FlowMaps>,
    interval: Duration,
    /// The start of the last sweep.
    last: Option<Instant>,
    task: Option<JoinHandle<Result<Swept>>>,
}

impl Sweep {
    /// The first sweep is due at once: flows may have expired while no agent ran.
    pub fn new(maps: Arc<FlowMaps>) -> Self {
        Self { maps, interval: USUAL, last: None, task: None }
    }

    /// Starts a sweep if one is due, and no sweep is under way.
    pub fn start_if_due(&mut self) {
        if self.task.is_none() && self.last.is_none_or(|last| last.elapsed() >= self.interval) {
            self.last = Some(Instant::now());
            let maps = self.maps.clone();
            self.task = Some(tokio::task::spawn_blocking(move || maps.sweep(flows::now())));
        }
    }

    /// Waits for the end of the sweep that is under way. Waits for ever without a sweep.
    pub async fn result(&mut self) -> FlowResult {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let swept = task.await.context("the sweep of flows crashed").flatten();
        self.task = None;
        match swept {
            Ok(swept) => {
                self.interval = interval(&swept.fullness);
                FlowResult::Swept(swept)
            }
            Err(error) => {
                if is_exhausted(&error) {
                    exhaustion::report(&error);
                } else {
                    tracing::warn!("failed to delete expired flows: {error:#}; trying again after {:?}", self.interval);
                }
                FlowResult::Failed
            }
        }
    }
}

/// The time until the next sweep: shorter if more than three quarters of a map of FLOWS are in use.
fn interval(maps: &[Fullness]) -> Duration {
    let fills_up = |map: &Fullness| map.name.starts_with("FLOWS") && u64::from(map.used) * 4 > u64::from(map.capacity) * 3;
    if maps.iter().any(fills_up) { FAST } else { USUAL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_more_frequent_while_flows_fill_up() {
        let interval = |name, used| interval(&[Fullness { name, used, capacity: 1_000 }]);
        assert_eq!(interval("FLOWS_V4", 750), USUAL);
        assert_eq!(interval("FLOWS_V4", 751), FAST);
        assert_eq!(interval("FLOWS_V6", 1_000), FAST);
        assert_eq!(interval("OPENING_V4", 1_000), USUAL, "a flood fills it, and the kernel evicts its oldest entries");
    }
}
