//! The clients on this node: the addresses of each network namespace, for the source ranges of load balancers.
//!
//! A survey enters network namespaces of this node, and lists their addresses. This module decides when a survey is due;
//! [`survey`] makes it, and writes NAMESPACES and SOURCES. Without source ranges in the tables, there is no survey. Otherwise
//! one is due every [`REFRESH`]. It is due earlier after a call from an unknown namespace or source address, after a change in
//! a watched namespace, or after a survey that failed in part. The same holds after a change of the load balancer addresses
//! with source ranges. A known client that is in no range causes no survey.

mod selection;
mod survey;
mod watch;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use portmap_common::Totals;
use tokio::task::JoinHandle;

use super::datapath::Datapath;
use crate::{kernel::namespaces, maps::pin::Pins, serve::Metrics};
use survey::{Findings, Request, Survey, SurveyScope};
use watch::NamespaceWatches;

/// The interval of surveys of all namespaces without a watch (see [`watch`]). Addresses rarely change without a new namespace.
const REFRESH: Duration = Duration::from_secs(5);

/// The shortest wait before a survey for unknown namespaces. The wait doubles up to [`REFRESH`] while surveys find nothing
/// new.
const AGAIN: Duration = Duration::from_millis(500);

/// The schedule of the surveys of this node's network namespaces, and the results of the last survey.
pub struct Clients {
    /// The results of earlier surveys; none before the first survey, while a survey is under way, and after a survey that
    /// crashed or could not start.
    survey: Option<Survey>,
    /// The task of the survey that is under way.
    task: Option<JoinHandle<(Option<Survey>, Result<Findings>)>>,
    watches: NamespaceWatches,
    /// The load balancer addresses that have source ranges; none before all objects are known.
    destinations: Option<Arc<BTreeSet<IpAddr>>>,
    is_destination_new: bool,
    /// `Totals::unknown_namespace` at the start of the last survey: the number of calls that were dropped because the
    /// client's namespace or source address was unknown.
    unknown: u64,
    last: Option<Instant>,
    last_of_all: Option<Instant>,
    /// The shortest time from the last survey to a survey for unknown namespaces.
    wait: Duration,
    /// Whether the last survey failed, or failed to visit a namespace.
    is_incomplete: bool,
    /// Whether the failure of the last survey was logged.
    is_failure_logged: bool,
    /// The number of namespaces that the last successful survey left out of NAMESPACES or SOURCES. It is at least 1 after a
    /// failed survey, unless that survey crashed or could not start.
    left_out: u32,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            survey: None,
            task: None,
            watches: NamespaceWatches::default(),
            destinations: None,
            is_destination_new: false,
            unknown: 0,
            last: None,
            last_of_all: None,
            wait: AGAIN,
            is_incomplete: false,
            is_failure_logged: false,
            left_out: 0,
        }
    }
}

impl Clients {
    /// Sets the load balancer addresses that have source ranges.
    pub fn set_destinations(&mut self, destinations: BTreeSet<IpAddr>) {
        self.destinations = Some(Arc::new(destinations));
        self.is_destination_new = true;
    }

    /// Returns after a change in a watched namespace, or after it has taken in the result of a survey.
    pub async fn changed(&mut self) {
        let Some(task) = &mut self.task else { return self.watches.changed().await };
        tokio::select! {
            ended = task => {
                self.task = None;
                self.take(ended.context("the survey of network namespaces crashed"));
            }
            () = self.watches.changed() => {}
        }
    }

    /// Publishes the number of namespaces that are left out. Starts a survey if one is due and none is under way.
    pub fn start_if_due(&mut self, datapath: &mut Datapath, metrics: &Metrics) -> Result<()> {
        self.publish(datapath, metrics)?;
        if self.task.is_some() {
            return Ok(());
        }
        let Totals { unknown_namespace, .. } = datapath.maps.totals()?;
        let Some(scope) = self.due(unknown_namespace) else { return Ok(()) };
        self.unknown = unknown_namespace;
        self.last = Some(Instant::now());
        if scope == SurveyScope::All {
            self.last_of_all = self.last;
        }
        self.is_destination_new = false;
        let request = Request { scope, destinations: self.destinations.clone(), lost: self.watches.take_lost() };
        let (survey, pins) = (self.survey.take(), datapath.pins.clone());
        self.task = Some(tokio::task::spawn_blocking(move || run(survey, &pins, &request)));
        Ok(())
    }

    /// Ends the watches and forgets the surveys, for the time in which no Service has source ranges. A survey that is under
    /// way ends first: until then, this does nothing.
    pub fn stop(&mut self, datapath: &mut Datapath, metrics: &Metrics) -> Result<()> {
        if self.last.is_some() && self.task.is_none() {
            self.start_over();
            self.report(0);
            return self.publish(datapath, metrics);
        }
        Ok(())
    }

    /// Forgets the surveys, also one that is under way.
    pub fn start_over(&mut self) {
        *self = Self { destinations: self.destinations.take(), left_out: self.left_out, ..Self::default() };
    }

    /// The namespaces that the next survey visits; `None` if no survey is due.
    fn due(&mut self, unknown: u64) -> Option<SurveyScope> {
        let Some(survey) = &self.survey else {
            // Before the first survey, or after a survey that crashed or could not start.
            let is_due = self.last.is_none_or(|last| last.elapsed() >= self.wait);
            return is_due.then_some(SurveyScope::All);
        };
        if self.is_destination_new {
            return Some(SurveyScope::These(survey.needing_sources()));
        }
        if self.last_of_all.is_none_or(|last| last.elapsed() >= REFRESH) {
            return Some(SurveyScope::All);
        }
        let changed = self.watches.take_changed();
        if !changed.is_empty() {
            return Some(SurveyScope::These(changed));
        }
        let has_waited = self.last.is_none_or(|last| last.elapsed() >= self.wait);
        (has_waited && (self.is_incomplete || unknown != self.unknown)).then_some(SurveyScope::Unknown)
    }

    /// Takes in the result of a survey.
    fn take(&mut self, ended: Result<(Option<Survey>, Result<Findings>)>) {
        let result = ended.and_then(|(survey, findings)| {
            self.survey = survey;
            findings
        });
        let failure = match result {
            Ok(Findings { is_new, left_out, failure, watched, opened }) => {
                self.watches.keep(&watched, opened);
                self.is_incomplete = failure.is_some();
                self.wait = if is_new { AGAIN } else { (self.wait * 2).min(REFRESH) };
                self.report(left_out);
                failure
            }
            Err(error) => {
                self.wait = (self.wait * 2).min(REFRESH);
                self.is_incomplete = true;
                // At least one namespace is left out. Without a `Survey`, as on kernels without cookies of namespaces, none
                // is counted.
                if self.survey.is_some() {
                    self.report(self.left_out.max(1));
                }
                Some(error)
            }
        };
        match failure {
            None => self.is_failure_logged = false,
            Some(error) if !self.is_failure_logged => {
                self.is_failure_logged = true;
                tracing::warn!(
                    "{error:#}; trying again; until then, source ranges admit a client in an unknown network namespace only if \
                     its socket is bound to an admitted address"
                );
            }
            Some(_) => {}
        }
    }

    /// Records the number of namespaces that are left out. Logs the first one, and the moment when none is left out any more.
    fn report(&mut self, left_out: u32) {
        if left_out > 0 && self.left_out == 0 {
            tracing::error!(
                "{left_out} network namespaces are left out: NAMESPACES or SOURCES is full, or they could not be opened; source \
                 ranges drop the calls of their clients, unless the socket is bound to an admitted address"
            );
        } else if left_out == 0 && self.left_out > 0 {
            tracing::info!("no network namespace is left out any more");
        }
        self.left_out = left_out;
    }

    fn publish(&self, datapath: &mut Datapath, metrics: &Metrics) -> Result<()> {
        metrics.set_namespaces_left_out(self.left_out);
        if datapath.maps.state()?.namespaces_left_out != self.left_out {
            datapath.maps.set_state(|state| state.namespaces_left_out = self.left_out)?;
        }
        Ok(())
    }
}

/// Makes a survey, and returns it for the next one; `None` if it cannot open the maps, or cannot read the cookie of the
/// agent's namespace. Blocks the thread.
fn run(survey: Option<Survey>, pins: &Pins, request: &Request) -> (Option<Survey>, Result<Findings>) {
    // Kernels before 5.14 have no cookies of namespaces. The query for the agent's own namespace then fails at once.
    let open = || namespaces::cookie().and_then(|_| Survey::open(pins));
    match survey.map_or_else(open, Ok) {
        Ok(mut survey) => {
            let findings = namespaces::travel(|traveller| survey.run(request, traveller));
            (Some(survey), findings)
        }
        Err(error) => (None, Err(error)),
    }
}
