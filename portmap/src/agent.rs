//! The agent's loop: events → store → resolve → plan → apply, in that order, whenever something changed.

mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
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
        pin::{Lock, Pins},
    },
    maps::{Capacity, Maps as _, bpf::BpfMaps, grace::Grace},
    plan::{Full, Planner},
    resolve,
    source::{Event, Events, Kind, kube, manifests},
    store::Store,
    table::{Frontend, ObjectName, Table},
};

/// Events that may wait for the loop.
const QUEUE: usize = 1024;

/// A burst of events is taken in for this long before it is acted upon.
const COALESCE: Duration = Duration::from_millis(2);

/// First and longest wait before a failed apply is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Between two looks whether our pins are still there.
const LOOK: Duration = Duration::from_secs(1);

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
    /// This node's name.
    pub node: String,
    /// The directory of the pins.
    pub bpffs: PathBuf,
    /// The cgroup to attach to; the root of the hierarchy if not given.
    pub cgroup: Option<PathBuf>,
    /// The sizes of the maps.
    pub capacity: Capacity,
}

/// Runs until a signal, or until a part of it fails. What is pinned stays in force.
pub async fn run(options: Options) -> Result<()> {
    let (sender, mut events) = mpsc::channel(QUEUE);
    // The source first: without one, nothing should be attached.
    let source = open(&options, sender).await?;
    let (mut agent, _lock) = Agent::start(&options)?;
    let source = tokio::spawn(source);
    tokio::select! {
        ended = source => ended.context("the source of objects crashed")?.context("the source of objects ended"),
        ended = agent.serve(&mut events) => ended,
        signal = terminated() => {
            tracing::info!("stopping on {}; what is in the kernel's tables stays in force", signal?);
            Ok(())
        }
    }
}

/// What will send the events.
async fn open(options: &Options, sender: Events) -> Result<Pin<Box<dyn Future<Output = Result<()>> + Send>>> {
    Ok(match &options.source {
        Source::Kube(kubeconfig) => {
            let cluster = kube::client(kubeconfig.as_deref()).await?;
            Box::pin(kube::run(cluster, options.node.clone(), sender))
        }
        Source::Manifests(paths) => Box::pin(manifests::Watched::start(paths.clone())?.run(sender)),
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

/// The loop's state.
struct Agent {
    node: String,
    store: Store,
    table: Table,
    planner: Planner,
    maps: BpfMaps,
    pins: Pins,
    /// The wait for programs that may read what was retired, if one is under way.
    grace: Option<JoinHandle<Result<()>>>,
    /// The kernel's tables are to be compared as a whole: at the start, and after a failure.
    compare_all: bool,
    retry: Option<Retry>,
    skipped: BTreeMap<ObjectName, Vec<resolve::Skipped>>,
    left_out: BTreeMap<Frontend, Full>,
}

/// When a failed apply is tried again.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Agent {
    fn start(options: &Options) -> Result<(Self, Lock)> {
        let pins = Pins::new(&options.bpffs);
        let cgroup = Cgroup::open(options.cgroup.as_deref())?;
        pins.create()?;
        let Some(lock) = pins.lock()? else {
            bail!("another agent{} writes to {}", status::holder(&pins), pins.root().display());
        };
        let set = pins.set();
        if let Ok(mut earlier) = BpfMaps::open(&set) {
            // At once: until then the tables say that an agent is synced, and mean the one before.
            status::record_start(&mut earlier)?;
        }
        match attach::attach(&pins, &cgroup, options.capacity)? {
            Attached::New => tracing::info!("attached to {}", cgroup.path.display()),
            Attached::Replaced => tracing::info!("took over from an earlier agent at {}", cgroup.path.display()),
        }
        let mut maps = BpfMaps::open(&set)?;
        status::record_start(&mut maps)?;
        // Programs may still read what an earlier agent had retired when it ended.
        Grace::open(&set)?.wait()?;
        let planner = Planner::new(maps.capacity(), maps.read()?);
        let agent = Self {
            node: options.node.clone(),
            store: Store::default(),
            table: Table::default(),
            planner,
            maps,
            pins,
            grace: None,
            compare_all: true,
            retry: None,
            skipped: BTreeMap::new(),
            left_out: BTreeMap::new(),
        };
        Ok((agent, lock))
    }

    async fn serve(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<()> {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => self.pins.expect().context("the pins were removed while the agent ran")?,
                event = events.recv() => {
                    self.store.apply(event.context("the source of objects ended")?);
                    self.take_burst(events).await;
                }
                result = finished(&mut self.grace) => {
                    self.grace = None;
                    result?;
                    self.planner.release();
                }
                () = due(self.retry.as_ref()) => {}
            }
            if self.store.synced() && self.retry.as_ref().is_none_or(|retry| retry.at <= Instant::now()) {
                self.act();
            }
        }
    }

    /// Takes in what follows an event within moments.
    async fn take_burst(&mut self, events: &mut mpsc::Receiver<Event>) {
        let until = tokio::time::Instant::now() + COALESCE;
        while let Ok(Some(event)) = timeout_at(until, events.recv()).await {
            self.store.apply(event);
        }
    }

    /// Brings the kernel's tables to where the objects say.
    fn act(&mut self) {
        let changed = self.resolve();
        if let Err(error) = self.apply(&changed) {
            self.retry_later(&error);
            return;
        }
        self.retry = None;
        if self.grace.is_none() && self.planner.seal() {
            let set = self.pins.set();
            self.grace = Some(tokio::task::spawn_blocking(move || Grace::open(&set)?.wait()));
        }
    }

    /// Resolves the Services that events concerned; returns the frontends to look at.
    fn resolve(&mut self) -> BTreeSet<Frontend> {
        let mut changed = BTreeSet::new();
        for name in self.store.take_dirty() {
            let touched = match self.store.service(&name) {
                Some(service) => {
                    let resolved = resolve::resolve(service, &self.store.slices_of(&name), &self.node);
                    self.report_skipped(&name, resolved.skipped);
                    self.table.replace(&resolved.precedence, resolved.entries)
                }
                None => {
                    self.skipped.remove(&name);
                    self.table.remove(&name)
                }
            };
            self.report_losers(&touched);
            changed.extend(touched);
        }
        if self.compare_all {
            changed.extend(self.table.iter().map(|(frontend, _)| *frontend));
            changed.extend(self.planner.installed());
        }
        changed
    }

    fn apply(&mut self, changed: &BTreeSet<Frontend>) -> Result<()> {
        let started = Instant::now();
        let plan = self.planner.plan(&self.table, changed);
        for step in &plan.steps {
            tracing::debug!("{step}");
        }
        apply::apply(&mut self.maps, &plan)?;
        status::record_sync(&mut self.maps, plan.left_out.len())?;
        if !plan.steps.is_empty() {
            tracing::info!("applied {} writes in {:.1?}", plan.steps.len(), started.elapsed());
        }
        self.report_left_out(plan.left_out);
        if std::mem::take(&mut self.compare_all) {
            let counts = self.store.counts();
            tracing::info!(
                "synced: {} Services, {} EndpointSlices, {} frontends",
                counts[&Kind::Service],
                counts[&Kind::Slice],
                self.table.iter().count()
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
        let read = Grace::open(&self.pins.set()).and_then(|mut grace| grace.wait()).and_then(|()| self.maps.read());
        match read {
            Ok(snapshot) => self.planner = Planner::new(self.maps.capacity(), snapshot),
            Err(error) => tracing::error!("failed to read the tables: {error:#}"),
        }
        // It freed nothing of the new model.
        self.grace = None;
    }

    fn report_skipped(&mut self, name: &ObjectName, skipped: Vec<resolve::Skipped>) {
        if self.skipped.get(name).map(Vec::as_slice).unwrap_or_default() == skipped {
            return;
        }
        for skipped in &skipped {
            tracing::warn!("{skipped}");
        }
        self.skipped.insert(name.clone(), skipped);
    }

    fn report_losers(&self, touched: &BTreeSet<Frontend>) {
        for frontend in touched {
            for (loser, winner) in self.table.losers(frontend) {
                tracing::warn!("Service {loser}: {frontend} belongs to the older Service {winner}, and is left to it");
            }
        }
    }

    fn report_left_out(&mut self, left_out: BTreeMap<Frontend, Full>) {
        for (frontend, full) in left_out.iter().filter(|(frontend, _)| !self.left_out.contains_key(*frontend)) {
            let owner = self.table.get(frontend).map(|entry| entry.owner.service.to_string()).unwrap_or_default();
            tracing::error!("Service {owner}: {frontend} is left out: {}", full.advice(self.maps.capacity()));
        }
        if left_out.is_empty() && !self.left_out.is_empty() {
            tracing::info!("there is room again for all frontends");
        }
        self.left_out = left_out;
    }
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
