//! The node agent: the loop that brings the kernel's tables to where the objects say, and the work beside it.
//!
//! [`Agent::serve`] is the table of contents. [`desired`] has the objects, [`installed`] the tables, [`reporting`] tells how it goes;
//! beside the loop run the source, the HTTP servers, and what [`Beside`] names.

mod affinity_evictions;
mod clients;
mod comparison;
mod datapath;
mod desired;
mod ended_sockets;
mod installed;
mod options;
mod own_node;
mod planner;
mod problems;
mod record;
mod reporting;
mod retry;

use std::{pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{sync::mpsc, time::timeout_at};

use crate::{
    datapath::{iterators::EndedSocket, load::LogLevel, log, removal},
    kernel::{
        exhaustion::{is_exhausted, wait_out},
        heap,
    },
    maps::Item,
    model::event::{Event, ObjectKind},
    plan::{Plan, Planner, Step},
    resolve::desired::entries::EntryReader,
    serve,
    source::{Events, Watches, kube, manifests},
};
use clients::Clients;
use comparison::Comparison;
use desired::DesiredState;
use ended_sockets::EndedSockets;
use installed::{Installed, PlanScope, Written};
pub use options::{Leaving, Options, Source, Waiting};
use reporting::Reporting;

/// Events that may wait for the loop.
const QUEUE: usize = 1024;

/// The time for which a burst of events is collected before it is written.
const COALESCE: Duration = Duration::from_millis(2);

/// The interval of looks at what sends no events: the pins and programs, excluded clients, sockets of ended endpoints.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until a signal, or until a part of it fails. What is pinned stays in force, unless it was asked for otherwise.
pub async fn run(options: Options) -> Result<()> {
    let (sender, mut events) = mpsc::channel(QUEUE);
    let watches = Arc::new(Watches::default());
    // The source first: without one, nothing should be attached.
    let source = open(&options, sender, watches.clone()).await?;
    let (mut agent, diagnostics) = Agent::start(&options, watches).await?;
    let source = tokio::spawn(source);
    let servers =
        tokio::spawn(serve::run(options.serve.clone(), agent.reporting.published.clone(), agent.reporting.metrics.clone()));
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
            let (_, failed) = removal::clean_up(&agent.installed.datapath.pins)?;
            for error in &failed {
                tracing::error!("{error:#}");
            }
            let root = agent.installed.datapath.pins.root().display();
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
    desired: DesiredState,
    installed: Installed,
    beside: Beside,
    reporting: Reporting,
    /// Whether the tables were brought to the desired state once.
    is_initialized: bool,
    /// Whether much of the heap has become free.
    is_heap_free: bool,
}

/// Work in tasks beside the loop.
struct Beside {
    /// The survey of the clients on this node, for source ranges.
    clients: Clients,
    /// The destruction of UDP sockets whose endpoints ended.
    ended_sockets: EndedSockets,
    /// The periodic comparison of the kernel's tables with the model.
    comparison: Comparison,
}

impl Agent {
    async fn start(options: &Options, watches: Arc<Watches>) -> Result<(Self, Diagnostics)> {
        let mut installed = Installed::start(options).await?;
        let ended_sockets = EndedSockets::new(&installed.datapath.pins, options.capacity)?;
        record::record_features(&mut installed.datapath.maps, ended_sockets.is_supported())?;
        let diagnostics: Diagnostics = match options.switches.log {
            LogLevel::Off => Box::pin(std::future::pending()),
            LogLevel::Error | LogLevel::Warn | LogLevel::Info | LogLevel::Debug => {
                Box::pin(log::run(installed.datapath.diagnostics()?))
            }
        };
        let beside = Beside { clients: Clients::default(), ended_sockets, comparison: Comparison::new(options.compare_every) };
        let agent = Self {
            desired: DesiredState::start(options)?,
            installed,
            beside,
            reporting: Reporting::new(watches),
            is_initialized: false,
            is_heap_free: false,
        };
        Ok((agent, diagnostics))
    }

    async fn serve(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<()> {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let applied = self.installed.applied();
            tokio::select! {
                _ = looks.tick() => self.look()?,
                event = events.recv() => self.take_burst(event.context("the source of objects ended")?, events).await,
                result = self.desired.address_change() => wait_out(result)?,
                result = self.installed.wake() => result?,
                sockets = self.beside.ended_sockets.found() => self.destroy(sockets),
                tables = self.beside.comparison.ended(applied) => self.compare_with(tables),
                () = self.beside.clients.word() => {}
            }
            wait_out(self.desired.list_addresses())?;
            if self.desired.is_known() && self.installed.may_write() {
                self.reconcile()?;
            }
            self.start_due_work()?;
        }
    }

    /// Takes an event in, and the events that follow within moments.
    async fn take_burst(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        let until = tokio::time::Instant::now() + COALESCE;
        self.take(first);
        while let Ok(Some(event)) = timeout_at(until, events.recv()).await {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        self.reporting.metrics.queued(event.kind() != ObjectKind::Slice);
        self.is_heap_free |= matches!(event, Event::Listed(..));
        if self.is_initialized {
            self.reporting.published.queued();
        }
        self.desired.take(event);
    }

    /// Looks at what sends no events.
    fn look(&mut self) -> Result<()> {
        let datapath = &mut self.installed.datapath;
        wait_out(datapath.pins.expect()).context("the pins were removed while the agent ran")?;
        self.reporting.published.set_attached(datapath.keep_attached());
        wait_out(self.reporting.look(&self.desired, &mut datapath.maps))?;
        if self.is_initialized && std::mem::take(&mut self.is_heap_free) {
            heap::give_back();
        }
        Ok(())
    }

    /// Brings the kernel's tables to the desired state. A failure is retried later.
    fn reconcile(&mut self) -> Result<()> {
        let changes = self.desired.take_changes(self.reporting.published.owners());
        let written = self.installed.write(&self.desired.table, changes);
        if let Err(error) = written.and_then(|written| self.report(written)) {
            self.retry_later(&error);
            return Ok(());
        }
        if let Err(error) = self.installed.datapath.take_over() {
            if !is_exhausted(&error) {
                return Err(error);
            }
            self.retry_later(&error);
            return Ok(());
        }
        self.is_initialized = true;
        wait_out(self.reporting.publish(&self.desired, &mut self.installed))?;
        self.installed.confirm();
        Ok(())
    }

    fn report(&mut self, written: Written) -> Result<()> {
        // An endpoint without room in ENDPOINTS would look like an endpoint that ended.
        let has_all_endpoints = written.plan.without_room == 0;
        if has_all_endpoints && (written.scope == PlanScope::All || ends_endpoints(&written.plan)) {
            self.beside.ended_sockets.want();
        }
        let frontends = self.installed.frontends();
        self.reporting.written(written, &mut self.desired, &mut self.installed.datapath.maps, frontends)
    }

    fn retry_later(&mut self, error: &anyhow::Error) {
        self.installed.retry_later(error);
        self.reporting.failed();
    }

    /// Starts the work beside the loop that is due.
    fn start_due_work(&mut self) -> Result<()> {
        let Beside { clients, ended_sockets, comparison } = &mut self.beside;
        if let Some(guarded) = self.desired.table.take_guarded() {
            clients.set_destinations(guarded);
        }
        let (has_source_ranges, applied) = (self.installed.has_source_ranges(), self.installed.applied());
        let (datapath, metrics) = (&mut self.installed.datapath, &self.reporting.metrics);
        let result = if has_source_ranges { clients.check(datapath, metrics) } else { clients.rest(datapath, metrics) };
        wait_out(result)?;
        ended_sockets.check(&datapath.pins);
        if self.is_initialized && !self.installed.is_failing() {
            comparison.check(&self.installed.datapath.pins, applied);
        }
        Ok(())
    }

    /// Destroys the sockets whose endpoints have ended.
    fn destroy(&mut self, sockets: Vec<EndedSocket>) {
        let mut entries = EntryReader::new(&self.desired.table);
        let ended = sockets.into_iter().filter(|socket| !entries.serves(&socket.asked, socket.peer));
        self.beside.ended_sockets.destroy(ended.collect());
    }

    /// Goes on from the tables that a comparison has read, unless they are about to change.
    fn compare_with(&mut self, tables: Option<Planner>) {
        self.is_heap_free = true;
        if let Some(tables) = tables.filter(|_| !self.installed.is_failing() && !self.desired.has_changes()) {
            self.installed.compare_with(tables);
        }
    }
}

/// Whether endpoints end that sockets may be connected to.
fn ends_endpoints(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Remove(Item::Endpoint(..))))
}
