//! The agent's loop: events → store → resolve → plan → apply, in that order, whenever something changed.

mod affinity_evictions;
mod clients;
mod comparison;
mod ended_sockets;
mod installation;
mod options;
mod own_node;
mod planner;
mod problems;
mod record;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep_until, timeout_at},
};

use crate::{
    apply,
    datapath::{load::LogLevel, log, removal},
    kernel::{
        addresses,
        exhaustion::{is_exhausted, persist, wait_out},
        heap,
    },
    maps::{Item, Maps as _, grace::Grace, pin::Pins},
    model::{
        Family, ObjectName,
        event::{Event, Kind},
    },
    plan::{Plan, Planner, Step},
    resolve::{
        Traffic,
        changes::Changes,
        desired::{Desired, entries::EntryReader},
    },
    serve::{self, Facts, Metrics, Sync},
    source::{Events, Watches, kube, manifests},
};
use affinity_evictions::Forgotten;
use clients::Clients;
use comparison::Comparison;
use ended_sockets::Stale;
use installation::Kernel;
pub use options::{Leaving, Options, Source, Waiting};
use own_node::OwnNode;
use planner::Model;
use problems::Report;

/// Events that may wait for the loop.
const QUEUE: usize = 1024;

/// A burst of events is taken in for this long before it is acted upon.
const COALESCE: Duration = Duration::from_millis(2);

/// First and longest wait before a failed apply is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Between two looks whether our pins and programs are still there, clients were kept out, or sockets went stale.
const LOOK: Duration = Duration::from_secs(1);

/// The kinds that may be missing are waited for so long.
const LISTING: Duration = Duration::from_secs(5);

/// Runs until a signal, or until a part of it fails. What is pinned stays in force, unless it was asked for otherwise.
pub async fn run(options: Options) -> Result<()> {
    let (sender, mut events) = mpsc::channel(QUEUE);
    let watches = Arc::new(Watches::default());
    // The source first: without one, nothing should be attached.
    let source = open(&options, sender, watches.clone()).await?;
    let (mut agent, diagnostics) = Agent::start(&options, watches).await?;
    let source = tokio::spawn(source);
    let servers = tokio::spawn(serve::run(options.serve.clone(), agent.facts.clone(), agent.metrics.clone()));
    let signal = tokio::select! {
        ended = servers => return ended.context("an HTTP server crashed")?.context("an HTTP server ended"),
        ended = source => return ended.context("the source of objects crashed")?.context("the source of objects ended"),
        ended = diagnostics => return ended.context("the log of the programs ended"),
        ended = agent.serve(&mut events) => return ended,
        signal = terminated() => signal?,
    };
    match options.leaving {
        Leaving::Datapath => tracing::info!("stopping on {signal}; what is in the kernel's tables stays in force"),
        Leaving::Nothing => {
            tracing::info!("stopping on {signal}; taking everything out of the kernel");
            let (_, failed) = removal::clean_up(&agent.kernel.pins)?;
            for error in &failed {
                tracing::error!("{error:#}");
            }
            let root = agent.kernel.pins.root().display();
            ensure!(failed.is_empty(), "{} pins or directories under {root} were left; the warnings name them", failed.len());
        }
    }
    Ok(())
}

/// What will send the events.
async fn open(
    options: &Options,
    sender: Events,
    watches: Arc<Watches>,
) -> Result<Pin<Box<dyn Future<Output = Result<()>> + Send>>> {
    Ok(match &options.source {
        Source::Kube(kubeconfig) => {
            let cluster = kube::open(kubeconfig.as_deref(), watches).await?;
            Box::pin(kube::run(cluster, options.wanted.clone(), sender))
        }
        Source::Manifests(paths) => {
            Box::pin(manifests::Watched::start(paths.clone(), options.wanted.clone(), watches)?.run(sender))
        }
    })
}

async fn terminated() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// The programs' diagnostics, being passed on.
type Diagnostics = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The loop's state.
struct Agent {
    desired: Desired,
    model: Model,
    kernel: Kernel,
    started: Instant,
    own_node: OwnNode,
    /// Whether the tables have been brought to where the objects say once.
    is_initialized: bool,
    address_changes: addresses::Changes,
    /// Whether the addresses of the interfaces have to be listed anew.
    is_address_due: bool,
    /// The wait for programs that may read what was retired, if one is under way.
    grace: Option<JoinHandle<Result<()>>>,
    clients: Clients,
    stale: Stale,
    forgotten: Forgotten,
    comparison: Comparison,
    /// How many plans wrote something.
    applied: u64,
    facts: Arc<Facts>,
    metrics: Arc<Metrics>,
    report: Report,
    /// What is to be looked at with the next plan.
    changes: Changes,
    compare: Compare,
    retry: Option<Retry>,
    /// Whether much of the heap has become free.
    is_heap_free: bool,
}

/// Whether the next plan is about the tables as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    /// Only what changed.
    Changes,
    /// All: at the start, and after a failure.
    All,
    /// All, and whatever has to be written was changed by somebody else.
    Repair,
}

/// When a failed apply is tried again.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Agent {
    async fn start(options: &Options, watches: Arc<Watches>) -> Result<(Self, Diagnostics)> {
        let mut kernel = Kernel::start(options).await?;
        let stale = Stale::new(&kernel.pins, options.capacity)?;
        record::record_features(&mut kernel.maps, stale.is_supported())?;
        // In this order, so that no change is missed between the two.
        let address_changes = addresses::Changes::listen()?;
        let mut desired =
            Desired::new(options.wanted.node.clone(), options.node_port_addresses.clone(), options.service_cidrs.clone())
                .allowing(options.wanted.external_ips.clone());
        desired.note_triggers();
        let changes = desired.set_local(addresses::networks()?);
        let diagnostics: Diagnostics = match options.switches.log {
            LogLevel::Off => Box::pin(std::future::pending()),
            LogLevel::Error | LogLevel::Warn | LogLevel::Info | LogLevel::Debug => Box::pin(log::run(kernel.diagnostics()?)),
        };
        let agent = Self {
            desired,
            model: Model::new(Planner::new(kernel.maps.capacity(), kernel.maps.read()?)),
            kernel,
            started: Instant::now(),
            own_node: OwnNode::new(matches!(options.source, Source::Kube(_))),
            is_initialized: false,
            address_changes,
            is_address_due: false,
            grace: None,
            clients: Clients::default(),
            stale,
            forgotten: Forgotten::default(),
            comparison: Comparison::new(options.compare_every),
            applied: 0,
            facts: Arc::new(Facts::new(watches)),
            metrics: Arc::default(),
            report: Report::default(),
            changes,
            compare: Compare::All,
            retry: None,
            is_heap_free: false,
        };
        Ok((agent, diagnostics))
    }

    async fn serve(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<()> {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => self.look()?,
                event = events.recv() => {
                    self.take(event.context("the source of objects ended")?);
                    self.take_burst(events).await;
                }
                word = self.address_changes.next() => {
                    wait_out(word)?;
                    self.is_address_due = true;
                }
                result = finished(&mut self.grace) => {
                    self.grace = None;
                    result?;
                    self.model.last().release();
                }
                sockets = self.stale.found() => {
                    let mut entries = EntryReader::new(&self.desired);
                    let ended = sockets.into_iter().filter(|socket| !entries.serves(&socket.asked, socket.peer));
                    self.stale.destroy(ended.collect());
                }
                tables = self.comparison.ended(self.applied) => self.compare_with(tables),
                () = self.clients.word() => {}
                () = due(self.retry.as_ref()) => {}
            }
            wait_out(self.list_addresses())?;
            if self.may_act() {
                let moved = self.own_node.place_node_ports(&mut self.desired, self.started.elapsed());
                self.changes.extend(moved);
                self.act()?;
            }
            if let Some(guarded) = self.desired.take_guarded() {
                self.clients.set_destinations(guarded);
            }
            if self.model.last().has_source_ranges() {
                wait_out(self.clients.check(&mut self.kernel, &self.metrics))?;
            } else {
                wait_out(self.clients.rest(&mut self.kernel, &self.metrics))?;
            }
            self.stale.check(&self.kernel.pins);
            if self.is_initialized && self.retry.is_none() {
                self.comparison.check(&self.kernel.pins, self.applied);
            }
        }
    }

    /// What is looked at from time to time.
    fn look(&mut self) -> Result<()> {
        wait_out(self.kernel.pins.expect()).context("the pins were removed while the agent ran")?;
        self.facts.set_attached(self.kernel.keep_attached());
        wait_out(self.record())?;
        if self.is_initialized && std::mem::take(&mut self.is_heap_free) {
            heap::give_back();
        }
        Ok(())
    }

    /// Records what is known without a sync.
    fn record(&mut self) -> Result<()> {
        let outage = self.facts.outage();
        record::record_outage(&mut self.kernel.maps, outage.as_ref())?;
        let lacks_node = self.own_node.is_missed(&self.desired, self.facts.watches());
        record::record_mistakes(&mut self.kernel.maps, lacks_node, self.desired.faulty())?;
        self.metrics.set_outage(outage.as_ref());
        let totals = self.kernel.maps.totals()?;
        self.metrics.set_totals(&totals, self.forgotten.count(&self.kernel.maps, &totals)?);
        Ok(())
    }

    /// Lists the addresses of the interfaces if they may have changed.
    fn list_addresses(&mut self) -> Result<()> {
        if self.is_address_due {
            let moved = self.desired.set_local(addresses::networks()?);
            self.is_address_due = false;
            self.changes.extend(moved);
        }
        Ok(())
    }

    /// Takes in what follows an event within moments.
    async fn take_burst(&mut self, events: &mut mpsc::Receiver<Event>) {
        let until = tokio::time::Instant::now() + COALESCE;
        while let Ok(Some(event)) = timeout_at(until, events.recv()).await {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        self.metrics.queued(event.kind() != Kind::Slice);
        self.is_heap_free |= matches!(event, Event::Listed(..));
        if self.is_initialized {
            self.facts.queued();
        }
        self.desired.apply(event);
    }

    /// Builds on the tables as they were found in the kernel, instead of as they should be there.
    fn compare_with(&mut self, tables: Option<Planner>) {
        self.is_heap_free = true;
        if self.retry.is_some() || !self.changes.is_empty() {
            return;
        }
        if let Some(tables) = tables.filter(|tables| !self.model.last().is_confirmed_by(tables)) {
            self.model.replace(tables);
            // It freed nothing of the new model, in which nothing is retired.
            self.grace = None;
            self.compare = Compare::Repair;
        }
    }

    /// Tells those who ask, over HTTP or by a subcommand, what is in the tables now.
    fn publish(&mut self) -> Result<()> {
        self.facts.synced();
        self.facts.set_eligible(self.own_node.is_eligible(&self.desired));
        let losers: Vec<ObjectName> = self.facts.set_checks(self.desired.health_checks()).into_iter().cloned().collect();
        self.report.check_losers(losers);
        for family in Family::ALL {
            self.metrics.set_lacking(family, "internal", self.desired.lacking(family, Traffic::Internal));
            self.metrics.set_lacking(family, "external", self.desired.lacking(family, Traffic::External));
        }
        self.metrics.set_trouble(self.report.left_out(), self.report.without_room(), self.desired.table().contested());
        let fullness = self.model.last().fullness();
        self.metrics.set_fullness(&fullness);
        self.report.fullness(&fullness);
        record::record_fullness(&mut self.kernel.maps, &fullness)
    }

    /// Whether enough is known, and no failure is to be waited out.
    fn may_act(&self) -> bool {
        let is_known = self.desired.is_complete() || (self.desired.is_synced() && self.started.elapsed() >= LISTING);
        is_known && self.retry.as_ref().is_none_or(|retry| retry.at <= Instant::now())
    }

    /// Brings the kernel's tables to where the objects say.
    fn act(&mut self) -> Result<()> {
        let changes = self.desired.resolve();
        self.own_node.report(&self.desired);
        self.changes.extend(changes);
        if let Err(error) = self.know_model() {
            self.retry_later(&error);
            return Ok(());
        }
        if self.compare != Compare::Changes {
            self.changes.extend(self.desired.table().everything());
            self.changes.extend(self.model.last().everything());
        }
        let changes = std::mem::take(&mut self.changes);
        if let Err(error) = self.apply(changes) {
            self.retry_later(&error);
            return Ok(());
        }
        if let Err(error) = self.kernel.take_over() {
            if !is_exhausted(&error) {
                return Err(error);
            }
            self.retry_later(&error);
            return Ok(());
        }
        self.retry = None;
        self.is_initialized = true;
        wait_out(self.publish())?;
        if self.grace.is_none() && self.model.last().seal() {
            let pins = self.kernel.pins.clone();
            self.grace = Some(tokio::spawn(wait_for_grace(pins)));
        }
        Ok(())
    }

    fn apply(&mut self, mut changes: Changes) -> Result<()> {
        let started = Instant::now();
        self.desired.set_owners(self.facts.owners());
        let planner = self.model.last();
        planner.set_cidrs(&self.desired.cidrs(), self.desired.owners());
        let is_without_change = changes.is_empty();
        changes.extend(planner.take_retries());
        let plan = planner.plan(self.desired.changed(&changes));
        for step in &plan.steps {
            tracing::debug!("{step}");
        }
        self.applied += u64::from(!plan.steps.is_empty());
        apply::apply(&mut self.kernel.maps, &plan)?;
        let repaired = if self.compare == Compare::Repair { plan.steps.len() } else { 0 };
        record::record_sync(&mut self.kernel.maps, &plan, self.desired.table().contested(), repaired)?;
        self.metrics.settled();
        let triggers = self.desired.take_triggers();
        // The loop also looks without a change: that is no sync.
        match self.compare {
            Compare::All | Compare::Repair => self.metrics.synced(Sync::Full, started.elapsed(), &triggers),
            Compare::Changes if is_without_change => {}
            Compare::Changes => self.metrics.synced(Sync::Partial, started.elapsed(), &triggers),
        }
        self.metrics.repaired(repaired);
        self.say(&plan, started.elapsed());
        // An endpoint that found no room in the map of those that serve would look like one that ended.
        if plan.without_room == 0 && (self.compare == Compare::All || ends_endpoints(&plan)) {
            self.stale.want();
        }
        self.report.plan(plan, self.desired.table(), self.kernel.maps.capacity());
        self.compare = Compare::Changes;
        Ok(())
    }

    /// Logs what was done.
    fn say(&self, plan: &Plan, took: Duration) {
        let count = plan.steps.len();
        match (self.compare, plan.steps.first()) {
            (Compare::Repair, Some(first)) => {
                tracing::warn!("somebody else had changed the tables: repaired by {count} writes; the first: {first}");
            }
            (Compare::Changes | Compare::All, Some(_)) => tracing::info!("applied {count} writes in {took:.1?}"),
            (_, None) => {}
        }
        if self.compare == Compare::All {
            let store = self.desired.store();
            tracing::info!(
                "synced: {} Services, {} EndpointSlices, {} frontends",
                store.count(Kind::Service),
                store.count(Kind::Slice),
                self.model.frontends()
            );
        }
    }

    /// Reads the kernel's tables again after a failed write.
    fn know_model(&mut self) -> Result<()> {
        let Kernel { maps, pins, .. } = &self.kernel;
        let is_read = self.model.know(|| {
            Grace::open(pins)?.wait()?;
            Ok(Planner::new(maps.capacity(), maps.read().context("failed to read the tables")?))
        })?;
        if is_read {
            // It freed nothing of the new model.
            self.grace = None;
        }
        Ok(())
    }

    /// Has everything compared again later.
    fn retry_later(&mut self, error: &anyhow::Error) {
        let (first, longest) = RETRY;
        let wait = self.retry.as_ref().map_or(first, |retry| (retry.wait * 2).min(longest));
        tracing::error!("{error:#}; trying again in {wait:?}");
        self.retry = Some(Retry { at: Instant::now() + wait, wait });
        self.compare = Compare::All;
        self.model.doubt();
        self.metrics.failed();
        self.facts.failed();
    }
}

/// Whether endpoints end that sockets may be connected to.
fn ends_endpoints(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Remove(Item::Endpoint(..))))
}

/// Returns after a grace period.
async fn wait_for_grace(pins: Pins) -> Result<()> {
    persist(|| {
        let pins = pins.clone();
        let wait = tokio::task::spawn_blocking(move || Grace::open(&pins)?.wait());
        async { wait.await.context("the wait for a grace period crashed")? }
    })
    .await
}

/// Returns when the task ends; never without one.
async fn finished(task: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    match task {
        Some(task) => task.await.context("the wait for a grace period crashed")?,
        None => std::future::pending().await,
    }
}

/// Returns when the retry is due; never without one.
async fn due(retry: Option<&Retry>) {
    match retry {
        Some(retry) => sleep_until(retry.at.into()).await,
        None => std::future::pending().await,
    }
}
