//! The deletion of UDP flows of clients outside the node whose endpoint ended. The client's next datagram then reaches another
//! endpoint.
//!
//! The agent's loop requests a search after endpoints changed. Among the targets that a search finds, it chooses those whose
//! flows are deleted.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;

use super::FlowResult;
use crate::{
    kernel::exhaustion::{self, is_exhausted},
    maps::{
        flows::{FlowMaps, ended::UdpTarget},
        grace::Grace,
        pin::Pins,
    },
};

/// The shortest time between the starts of two searches. A search reads all flows.
const PAUSE: Duration = Duration::from_secs(1);

/// The searches for UDP flows of ended endpoints, and the deletion that is under way.
pub struct EndedFlows {
    maps: Arc<FlowMaps>,
    search: Option<JoinHandle<Result<BTreeSet<UdpTarget>>>>,
    deletion: Option<JoinHandle<Result<u64>>>,
    is_requested: bool,
    /// The start of the last search.
    last: Option<Instant>,
}

impl EndedFlows {
    /// Without a request.
    pub fn new(maps: Arc<FlowMaps>) -> Self {
        Self { maps, search: None, deletion: None, is_requested: false, last: None }
    }

    /// Requests a search. It is made at once, or [`PAUSE`] after the last one.
    pub fn request(&mut self) {
        self.is_requested = true;
    }

    /// Starts a search if one is due, and no search or deletion is under way.
    pub fn start_if_due(&mut self, pins: &Pins) {
        let is_idle = self.search.is_none() && self.deletion.is_none();
        if is_idle && self.is_requested && self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            (self.is_requested, self.last) = (false, Some(Instant::now()));
            let (pins, maps) = (pins.clone(), self.maps.clone());
            self.search = Some(tokio::task::spawn_blocking(move || search(&pins, &maps)));
        }
    }

    /// Waits for the end of the search or deletion that is under way. Waits for ever without a task.
    pub async fn result(&mut self) -> FlowResult {
        let result = match (&mut self.search, &mut self.deletion) {
            (Some(search), _) => {
                search.await.context("the search for ended UDP flows crashed").flatten().map(FlowResult::Found)
            }
            (None, Some(deletion)) => {
                deletion.await.context("the deletion of ended UDP flows crashed").flatten().map(FlowResult::Deleted)
            }
            (None, None) => std::future::pending().await,
        };
        (self.search, self.deletion) = (None, None);
        result.unwrap_or_else(|error| {
            self.give_up(&error);
            FlowResult::Failed
        })
    }

    /// Starts to delete the UDP flows with these targets in a task. Starts none without targets.
    pub fn delete(&mut self, targets: BTreeSet<UdpTarget>) {
        if !targets.is_empty() {
            let maps = self.maps.clone();
            self.deletion = Some(tokio::task::spawn_blocking(move || maps.delete_udp_flows(&targets)));
        }
    }

    /// Logs a failure. After a failure for lack of descriptors or memory, another search is made.
    fn give_up(&mut self, error: &anyhow::Error) {
        if is_exhausted(error) {
            self.is_requested = true;
            exhaustion::report(error);
        } else {
            tracing::warn!("{error:#}; UDP flows of clients outside the node may stay with ended endpoints");
        }
    }
}

fn search(pins: &Pins, maps: &FlowMaps) -> Result<BTreeSet<UdpTarget>> {
    // After a grace period, each program that chose an ended endpoint has written its flow.
    Grace::open(pins)?.wait()?;
    maps.udp_targets_without_endpoint()
}
