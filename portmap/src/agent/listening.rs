//! The check that a program listens for each local backend, beside the loop: some time after the tables changed, and at an
//! interval. `doctor` has the check; [`episodes`] tells new and ended mistakes apart.

mod episodes;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    doctor::{listening, sockets, tables},
    kernel::exhaustion::{self, is_exhausted},
    maps::{Maps as _, bpf::BpfMaps, pin::Pins},
    model::ServicePort,
    serve::Metrics,
    source::kube::events::ServiceWarning,
};
use episodes::{Changed, Episodes, Survey};

/// The time without a change after which a check is due. Programs of new pods need a moment to listen.
const SETTLED: Duration = Duration::from_secs(10);

/// The shortest time between two checks.
const PAUSE: Duration = Duration::from_secs(30);

/// The most mistakes that one check logs.
const LOGGED: usize = 20;

/// The schedule of checks, and the check that is under way.
pub struct Listening {
    /// The interval of checks without changes; none: no check.
    every: Option<Duration>,
    /// The time of the last change that no check has seen.
    changed: Option<Instant>,
    last: Option<Instant>,
    check: Option<JoinHandle<Result<Survey>>>,
    /// Whether the last check failed, which is logged once.
    has_failed: bool,
    episodes: Episodes,
    /// The writer of Kubernetes Events; none without `--events`.
    events: Option<mpsc::Sender<ServiceWarning>>,
}

impl Listening {
    /// The first check is due after [`SETTLED`].
    pub fn new(every: Option<Duration>, events: Option<mpsc::Sender<ServiceWarning>>) -> Self {
        Self {
            every,
            changed: Some(Instant::now()),
            last: None,
            check: None,
            has_failed: false,
            episodes: Episodes::default(),
            events,
        }
    }

    /// Requests a check, after a change of the tables.
    pub fn changed(&mut self) {
        self.changed = Some(Instant::now());
    }

    /// Starts a check if one is due, and none is under way.
    pub fn start_if_due(&mut self, pins: &Pins) {
        if self.check.is_none() && self.is_due() {
            (self.changed, self.last) = (None, Some(Instant::now()));
            let pins = pins.clone();
            self.check = Some(tokio::task::spawn_blocking(move || survey(&pins)));
        }
    }

    /// A short interval also shortens the waits after a change.
    fn is_due(&self) -> bool {
        let Some(every) = self.every else { return false };
        let has_passed = |since: Option<Instant>, wait| since.is_none_or(|since| since.elapsed() >= wait);
        let is_settled = self.changed.is_some() && has_passed(self.changed, SETTLED.min(every));
        has_passed(self.last, if is_settled { PAUSE.min(every) } else { every })
    }

    /// Waits for the end of a check. Waits for ever without one.
    pub async fn ended(&mut self) -> Result<Survey> {
        match &mut self.check {
            Some(check) => check.await.context("the check crashed").flatten(),
            None => std::future::pending().await,
        }
    }

    /// Takes the result of a check: sets the metric, and reports mistakes that began or ended.
    pub fn take(&mut self, result: Result<Survey>, metrics: &Metrics) {
        self.check = None;
        let Some(survey) = self.survey_of(result) else { return };
        let changed = self.episodes.next(survey);
        metrics.set_not_listening(changed.backends);
        log(&changed);
        if let Some(events) = &self.events {
            for (port, sentences) in changed.began.into_iter().take(LOGGED) {
                let warning = ServiceWarning { service: port.service, note: sentences.join("\n") };
                // A full queue means that the API server is slow. The log has the sentences, too.
                events.try_send(warning).ok();
            }
        }
        if self.episodes.has_suspects() {
            self.changed();
        }
    }

    /// Logs a failure, unless the check before failed, too.
    fn survey_of(&mut self, result: Result<Survey>) -> Option<Survey> {
        let had_failed = std::mem::replace(&mut self.has_failed, result.is_err());
        match result {
            Ok(survey) => return Some(survey),
            Err(error) if is_exhausted(&error) => exhaustion::report(&error),
            Err(_) if had_failed => {}
            Err(error) => tracing::warn!("failed to check whether programs listen for the backends of this node: {error:#}"),
        }
        None
    }
}

fn log(changed: &Changed) {
    let Changed { began, ended, backends: _ } = changed;
    for sentence in began.values().flatten().take(LOGGED) {
        tracing::warn!("{sentence}");
    }
    let hidden = began.values().flatten().count().saturating_sub(LOGGED);
    if hidden > 0 {
        tracing::warn!("{hidden} more mistakes with ports on which no program listens; portmap doctor lists all");
    }
    for port in ended.iter().take(LOGGED) {
        tracing::info!(
            "Service {} port {}: no local backend is without a listening program any more",
            port.service,
            name(port)
        );
    }
}

/// The name and protocol of a service port.
fn name(port: &ServicePort) -> String {
    if port.port.is_empty() { port.protocol.to_string() } else { format!("{} ({})", port.port, port.protocol) }
}

fn survey(pins: &Pins) -> Result<Survey> {
    let ports = tables::served_ports(&BpfMaps::open(pins)?.read()?);
    let found = sockets::survey(&tables::addresses(&ports))?;
    Ok(Survey { silent: listening::compare(&ports, &found).silent, is_complete: found.failure.is_none() })
}
