//! Which addresses the clients on this node have, and call from, for the source ranges of load balancers.
//!
//! The network namespaces are looked at when one calls that is not known, when a load balancer's address is new, when the kernel
//! says that a namespace with several addresses has changed, and from time to time. A client that is kept out costs nothing.

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

/// Addresses change rarely without a new namespace: those of namespaces with one address are looked up anew this often.
const REFRESH: Duration = Duration::from_secs(5);

/// Between two looks, however many clients are not known. Doubled up to [`REFRESH`] while looks find nothing new.
const AGAIN: Duration = Duration::from_millis(500);

/// What is known of the namespaces, and the look at them that is under way.
pub struct Clients {
    /// None while a look has it, and before the first.
    survey: Option<Survey>,
    look: Option<JoinHandle<(Option<Survey>, Result<Findings>)>>,
    watches: NamespaceWatches,
    /// The addresses of load balancers that have source ranges; none before all objects are known.
    destinations: Option<Arc<BTreeSet<IpAddr>>>,
    is_destination_new: bool,
    /// Calls from namespaces that were not known, as of the last look.
    unknown: u64,
    last: Option<Instant>,
    last_of_all: Option<Instant>,
    /// Until the next look for what is not known.
    wait: Duration,
    /// Whether something could not be looked at.
    is_incomplete: bool,
    /// What could not be done has been said.
    failed: bool,
    left_out: u32,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            survey: None,
            look: None,
            watches: NamespaceWatches::default(),
            destinations: None,
            is_destination_new: false,
            unknown: 0,
            last: None,
            last_of_all: None,
            wait: AGAIN,
            is_incomplete: false,
            failed: false,
            left_out: 0,
        }
    }
}

impl Clients {
    /// Sets the addresses of load balancers that have source ranges.
    pub fn set_destinations(&mut self, destinations: BTreeSet<IpAddr>) {
        self.destinations = Some(Arc::new(destinations));
        self.is_destination_new = true;
    }

    /// Returns when there may be something to look at, or a look has ended.
    pub async fn word(&mut self) {
        let Some(look) = &mut self.look else { return self.watches.word().await };
        tokio::select! {
            ended = look => {
                self.look = None;
                self.take(ended.context("the look at network namespaces crashed"));
            }
            () = self.watches.word() => {}
        }
    }

    /// Begins a look that is due.
    pub fn check(&mut self, datapath: &mut Datapath, metrics: &Metrics) -> Result<()> {
        self.publish(datapath, metrics)?;
        if self.look.is_some() {
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
        self.look = Some(tokio::task::spawn_blocking(move || look(survey, &pins, &request)));
        Ok(())
    }

    /// There are no source ranges: nothing has to be known, and no namespace is watched.
    pub fn rest(&mut self, datapath: &mut Datapath, metrics: &Metrics) -> Result<()> {
        if self.last.is_some() && self.look.is_none() {
            *self = Self { destinations: self.destinations.take(), left_out: self.left_out, ..Self::default() };
            self.report(0);
            return self.publish(datapath, metrics);
        }
        Ok(())
    }

    /// What is to be looked at, if anything is.
    fn due(&mut self, unknown: u64) -> Option<SurveyScope> {
        let Some(survey) = &self.survey else {
            // Before the first look, or after one that failed altogether.
            let is_due = self.last.is_none_or(|last| last.elapsed() >= self.wait);
            return is_due.then_some(SurveyScope::All);
        };
        if self.is_destination_new {
            return Some(SurveyScope::These(survey.asking()));
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
                // How many it is about is not known; where the kernel tells of none, nothing is left out.
                if self.survey.is_some() {
                    self.report(self.left_out.max(1));
                }
                Some(error)
            }
        };
        match failure {
            None => self.failed = false,
            Some(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(
                    "{error:#}; trying again: until then, source ranges admit clients in network namespaces that are not known \
                     by the address that they are bound to only"
                );
            }
            Some(_) => {}
        }
    }

    /// Says once that namespaces are left out.
    fn report(&mut self, left_out: u32) {
        if left_out > 0 && self.left_out == 0 {
            tracing::error!(
                "{left_out} network namespaces are left out: NAMESPACES or SOURCES is full, or they could not be opened; load \
                 balancers with source ranges keep their clients out, unless these are bound to an address"
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

/// Looks at namespaces, and writes what is new of them.
fn look(survey: Option<Survey>, pins: &Pins, request: &Request) -> (Option<Survey>, Result<Findings>) {
    // A kernel that does not tell the cookie of our own does not tell others'.
    let open = || namespaces::cookie().and_then(|_| Survey::open(pins));
    match survey.map_or_else(open, Ok) {
        Ok(mut survey) => {
            let findings = namespaces::travel(|traveller| survey.look(request, traveller));
            (Some(survey), findings)
        }
        Err(error) => (None, Err(error)),
    }
}
