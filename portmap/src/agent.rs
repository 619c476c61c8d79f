//! The agent's loop: events → store → resolve → plan → apply, in that order, whenever something changed.

mod clients;
mod own_node;
mod stale;
mod status;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep_until, timeout_at},
};

use crate::{
    apply,
    datapath::{
        attach::{self, Attached},
        cgroup::Cgroup,
        load::{Constants, LogLevel, Switches},
        log,
        pin::{Lock, Pins},
    },
    desired::Desired,
    maps::{Capacity, Item, Maps as _, bpf::BpfMaps, grace::Grace},
    network::addresses,
    node_ports::Eligible,
    plan::{Full, Plan, Planner, Step},
    resolve::Traffic,
    serve::{self, Facts, Metrics, Sync},
    source::{Event, Events, Kind, Wanted, Watches, kube, manifests},
    table::{Changes, Family, Frontend, ObjectName},
};
use clients::Clients;
use own_node::OwnNode;
use stale::Stale;

/// Events that may wait for the loop.
const QUEUE: usize = 1024;

/// A burst of events is taken in for this long before it is acted upon.
const COALESCE: Duration = Duration::from_millis(2);

/// First and longest wait before a failed apply is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Between two looks whether our pins are still there, clients were kept out, or sockets went stale.
const LOOK: Duration = Duration::from_secs(1);

/// The kinds that may be missing are waited for so long.
const LISTING: Duration = Duration::from_secs(5);

/// Where the objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The API server, of this kubeconfig or of the environment.
    Kube(Option<PathBuf>),
    /// Files and directories.
    Manifests(Vec<PathBuf>),
}

/// What `portmap run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the objects come from.
    pub source: Source,
    /// Which of them count.
    pub wanted: Wanted,
    /// The directory of the pins.
    pub bpffs: PathBuf,
    /// The cgroup to attach to; the root of the hierarchy if not given.
    pub cgroup: Option<PathBuf>,
    /// The sizes of the maps.
    pub capacity: Capacity,
    /// What the programs are told.
    pub switches: Switches,
    /// The ranges that ClusterIPs are given from, where no ServiceCIDR says so.
    pub service_cidrs: Vec<IpNet>,
    /// On which addresses node ports are served.
    pub node_port_addresses: Vec<Eligible>,
    /// Where to answer over HTTP.
    pub serve: serve::Addresses,
}

/// Runs until a signal, or until a part of it fails. What is pinned stays in force.
pub async fn run(options: Options) -> Result<()> {
    let (sender, mut events) = mpsc::channel(QUEUE);
    let watches = Arc::new(Watches::default());
    // The source first: without one, nothing should be attached.
    let source = open(&options, sender, watches.clone()).await?;
    let (mut agent, diagnostics, _lock) = Agent::start(&options, watches)?;
    let source = tokio::spawn(source);
    let servers = tokio::spawn(serve::run(options.serve, agent.facts.clone(), agent.metrics.clone()));
    tokio::select! {
        ended = servers => ended.context("an HTTP server crashed")?.context("an HTTP server ended"),
        ended = source => ended.context("the source of objects crashed")?.context("the source of objects ended"),
        ended = diagnostics => ended.context("the log of the programs ended"),
        ended = agent.serve(&mut events) => ended,
        signal = terminated() => {
            tracing::info!("stopping on {}; what is in the kernel's tables stays in force", signal?);
            Ok(())
        }
    }
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
        Source::Manifests(paths) => Box::pin(manifests::Watched::start(paths.clone(), options.wanted.clone())?.run(sender)),
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
    planner: Planner,
    maps: BpfMaps,
    pins: Pins,
    started: Instant,
    own_node: OwnNode,
    /// Whether the tables have been brought to where the objects say once.
    is_initialized: bool,
    address_changes: addresses::Changes,
    /// The wait for programs that may read what was retired, if one is under way.
    grace: Option<JoinHandle<Result<()>>>,
    clients: Clients,
    stale: Stale,
    facts: Arc<Facts>,
    metrics: Arc<Metrics>,
    /// Services without a server at their `healthCheckNodePort`, which is another's.
    check_losers: Vec<ObjectName>,
    /// What is to be looked at with the next plan.
    changes: Changes,
    /// The kernel's tables are to be compared as a whole: at the start, and after a failure.
    compare_all: bool,
    retry: Option<Retry>,
    left_out: BTreeMap<Frontend, Full>,
    /// How much else found no room.
    without_room: usize,
}

/// When a failed apply is tried again.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Agent {
    fn start(options: &Options, watches: Arc<Watches>) -> Result<(Self, Diagnostics, Lock)> {
        let pins = Pins::new(&options.bpffs);
        let cgroup = Cgroup::open(options.cgroup.as_deref())?;
        let constants = Constants::new(&options.switches, &cgroup)?;
        pins.create()?;
        let Some(lock) = pins.lock()? else {
            bail!("another agent{} writes to {}", status::holder(&pins), pins.root().display());
        };
        let set = pins.set();
        if let Ok(mut earlier) = BpfMaps::open(&set) {
            // At once: until then the tables say that an agent is synced, and mean the one before.
            status::record_start(&mut earlier)?;
        }
        let (programs, attached) = attach::attach(&pins, &cgroup, options.capacity, &constants)?;
        match attached {
            Attached::New => tracing::info!("attached to {}", cgroup.path.display()),
            Attached::Replaced => tracing::info!("took over from an earlier agent at {}", cgroup.path.display()),
        }
        let mut maps = BpfMaps::open(&set)?;
        status::record_start(&mut maps)?;
        status::record_features(&mut maps)?;
        // Programs may still read what an earlier agent had retired when it ended.
        Grace::open(&set)?.wait()?;
        // In this order, so that no change is missed between the two.
        let address_changes = addresses::Changes::listen()?;
        let mut desired =
            Desired::new(options.wanted.node.clone(), options.node_port_addresses.clone(), options.service_cidrs.clone());
        desired.note_triggers();
        let changes = desired.set_local(addresses::local()?);
        let diagnostics: Diagnostics = match options.switches.log {
            LogLevel::Off => Box::pin(std::future::pending()),
            LogLevel::Error | LogLevel::Warn | LogLevel::Info | LogLevel::Debug => Box::pin(log::run(programs)),
        };
        let agent = Self {
            desired,
            planner: Planner::new(maps.capacity(), maps.read()?),
            maps,
            pins,
            started: Instant::now(),
            own_node: OwnNode::new(matches!(options.source, Source::Kube(_))),
            is_initialized: false,
            address_changes,
            grace: None,
            clients: Clients::default(),
            stale: Stale::default(),
            facts: Arc::new(Facts::new(watches)),
            metrics: Arc::default(),
            check_losers: Vec::new(),
            changes,
            compare_all: true,
            retry: None,
            left_out: BTreeMap::new(),
            without_room: 0,
        };
        Ok((agent, diagnostics, lock))
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
                    word?;
                    let moved = self.desired.set_local(addresses::local()?);
                    self.changes.extend(moved);
                }
                result = finished(&mut self.grace) => {
                    self.grace = None;
                    result?;
                    self.planner.release();
                }
                () = self.stale.ended() => {}
                () = due(self.retry.as_ref()) => {}
            }
            if self.may_act() {
                let moved = self.own_node.place_node_ports(&mut self.desired, self.started.elapsed());
                self.changes.extend(moved);
                self.act();
            }
            if self.planner.has_source_ranges() {
                self.clients.check(self.pins.set(), &self.maps).await?;
            }
            self.stale.check(self.pins.set());
        }
    }

    /// What is looked at from time to time.
    fn look(&mut self) -> Result<()> {
        self.pins.expect().context("the pins were removed while the agent ran")?;
        let outage = self.facts.outage();
        status::record_outage(&mut self.maps, outage.as_ref())?;
        self.metrics.set_outage(outage.as_ref());
        self.metrics.set_totals(&self.maps.totals()?);
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
        if self.is_initialized {
            self.facts.queued();
        }
        self.desired.apply(event);
    }

    /// Tells those who ask over HTTP what is in the tables now.
    fn publish(&mut self) {
        self.facts.synced();
        self.facts.set_eligible(self.own_node.is_eligible(&self.desired));
        let losers: Vec<ObjectName> = self.facts.set_checks(self.desired.health_checks()).into_iter().cloned().collect();
        for loser in losers.iter().filter(|loser| !self.check_losers.contains(loser)) {
            tracing::warn!("Service {loser}: its healthCheckNodePort is another Service's, and is left to it");
        }
        self.check_losers = losers;
        for family in Family::ALL {
            self.metrics.set_lacking(family, "internal", self.desired.lacking(family, Traffic::Internal));
            self.metrics.set_lacking(family, "external", self.desired.lacking(family, Traffic::External));
        }
        self.metrics.set_trouble(self.left_out.len(), self.desired.table().contested());
        self.metrics.set_fullness(&self.planner.fullness());
    }

    /// Whether enough is known, and no failure is to be waited out.
    fn may_act(&self) -> bool {
        let is_known = self.desired.is_complete() || (self.desired.is_synced() && self.started.elapsed() >= LISTING);
        is_known && self.retry.as_ref().is_none_or(|retry| retry.at <= Instant::now())
    }

    /// Brings the kernel's tables to where the objects say.
    fn act(&mut self) {
        let changes = self.desired.resolve();
        self.own_node.report(&self.desired);
        self.changes.extend(changes);
        if self.compare_all {
            self.changes.extend(self.desired.table().everything());
            self.changes.extend(self.planner.everything());
        }
        let changes = std::mem::take(&mut self.changes);
        if let Err(error) = self.apply(&changes) {
            self.retry_later(&error);
            return;
        }
        self.retry = None;
        self.is_initialized = true;
        self.publish();
        if self.grace.is_none() && self.planner.seal() {
            let set = self.pins.set();
            self.grace = Some(tokio::task::spawn_blocking(move || Grace::open(&set)?.wait()));
        }
    }

    fn apply(&mut self, changes: &Changes) -> Result<()> {
        let started = Instant::now();
        self.planner.set_cidrs(&self.desired.cidrs());
        let plan = self.planner.plan(self.desired.table(), changes);
        for step in &plan.steps {
            tracing::debug!("{step}");
        }
        apply::apply(&mut self.maps, &plan)?;
        status::record_sync(&mut self.maps, plan.left_out.len(), self.desired.table().contested())?;
        self.metrics.settled();
        let triggers = self.desired.take_triggers();
        // The loop also looks without a change: that is no sync.
        if self.compare_all || !changes.is_empty() {
            let kind = if self.compare_all { Sync::Full } else { Sync::Partial };
            self.metrics.synced(kind, started.elapsed(), &triggers);
        }
        if !plan.steps.is_empty() {
            tracing::info!("applied {} writes in {:.1?}", plan.steps.len(), started.elapsed());
        }
        self.report_lacking_room(plan.without_room);
        // An endpoint that found no room in the map of those that serve would look like one that ended.
        if plan.without_room == 0 && (self.compare_all || ends_endpoints(&plan)) {
            self.stale.want();
        }
        self.report_left_out(plan.left_out);
        if std::mem::take(&mut self.compare_all) {
            let store = self.desired.store();
            tracing::info!(
                "synced: {} Services, {} EndpointSlices, {} frontends",
                store.count(Kind::Service),
                store.count(Kind::Slice),
                self.planner.frontends()
            );
        }
        Ok(())
    }

    /// After a failure only the kernel knows what the tables hold: they are read again, and all is compared.
    fn retry_later(&mut self, error: &anyhow::Error) {
        let (first, longest) = RETRY;
        let wait = self.retry.as_ref().map_or(first, |retry| (retry.wait * 2).min(longest));
        tracing::error!("{error:#}; trying again in {wait:?}");
        self.retry = Some(Retry { at: Instant::now() + wait, wait });
        self.compare_all = true;
        self.metrics.failed();
        self.facts.failed();
        let read = Grace::open(&self.pins.set()).and_then(|mut grace| grace.wait()).and_then(|()| self.maps.read());
        match read {
            Ok(snapshot) => self.planner = Planner::new(self.maps.capacity(), snapshot),
            Err(error) => tracing::error!("failed to read the tables: {error:#}"),
        }
        // It freed nothing of the new model.
        self.grace = None;
    }

    fn report_lacking_room(&mut self, without_room: usize) {
        if without_room > 0 && self.without_room == 0 {
            tracing::error!(
                "{without_room} endpoints, source ranges or ClusterIPs are not in their maps, which are full: UDP sockets may \
                 change their backend, and clients be kept out; raise --max-backends and --max-services (needs: portmap cleanup)"
            );
        }
        self.without_room = without_room;
    }

    fn report_left_out(&mut self, left_out: BTreeMap<Frontend, Full>) {
        for (frontend, full) in left_out.iter().filter(|(frontend, _)| !self.left_out.contains_key(*frontend)) {
            let owner = self.desired.table().get(frontend).map(|entry| entry.owner.service.to_string()).unwrap_or_default();
            tracing::error!("Service {owner}: {frontend} is left out: {}", full.advice(self.maps.capacity()));
        }
        if left_out.is_empty() && !self.left_out.is_empty() {
            tracing::info!("there is room again for all frontends");
        }
        self.left_out = left_out;
    }
}

/// Whether endpoints end that sockets may be connected to.
fn ends_endpoints(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Remove(Item::Endpoint(..))))
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
