//! The node agent: the loop that brings the kernel's tables to the desired state, and the tasks beside the loop.
//!
//! [`Agent::serve`] is the loop. [`desired`] holds the desired state, [`installed`] holds and writes the installed state, and
//! [`reporting`] reports each write. The source of objects, the HTTP servers and the tasks of [`Tasks`] run beside the loop.

mod affinity_evictions;
mod client_ports;
mod clients;
mod comparison;
mod datapath;
mod desired;
mod devices;
mod ended_sockets;
mod flows;
mod installed;
mod listening;
mod options;
mod own_node;
mod planner;
mod problems;
mod record;
mod reporting;
mod retry;
mod source;

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
    model::event::Event,
    plan::{Plan, Planner, Step},
    resolve::desired::entries::EntryReader,
    serve,
    source::{Watches, kube::events::ServiceWarning},
};
use clients::Clients;
use comparison::Comparison;
use desired::DesiredState;
use devices::Devices;
pub use devices::{DeviceOptions, DeviceSelection, NamePattern};
use ended_sockets::EndedSockets;
use flows::Flows;
use installed::{Installed, PlanScope, Written};
use listening::Listening;
pub use options::{ClientPorts, EventWriting, Leaving, Options, Source, Sysctls, Waiting};
use reporting::Reporting;

/// The capacity of the channel from the source of objects to the loop, in events.
const QUEUE: usize = 1024;

/// The time for which a burst of events is collected before it is written.
const COALESCE: Duration = Duration::from_millis(2);

/// The interval at which the loop runs without an event. It then checks pins, programs, network namespaces and the sockets
/// of ended endpoints.
const CHECK: Duration = Duration::from_secs(1);

/// Runs until SIGTERM, SIGINT or a failure. The tables and programs stay in force, unless a signal ends an agent with
/// [`Leaving::Nothing`].
pub async fn run(options: Options) -> Result<()> {
    let (sender, mut events) = mpsc::channel(QUEUE);
    let watches = Arc::new(Watches::default());
    // The source comes first: without a source of objects, no program is attached.
    let (source, service_events) = source::open(&options, sender, watches.clone()).await?;
    let (mut agent, diagnostics) = Agent::start(&options, watches, service_events).await?;
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
        Leaving::Datapath => tracing::info!("stopping on {signal}; the tables and programs in the kernel stay in force"),
        Leaving::Nothing => {
            tracing::info!("stopping on {signal}; removing all tables and programs from the kernel");
            let (_, failed) = removal::clean_up(&agent.installed.datapath.pins)?;
            for error in &failed {
                tracing::error!("{error:#}");
            }
            let root = agent.installed.datapath.pins.root().display();
            ensure!(failed.is_empty(), "{} pins or directories under {root} were left; the log names them", failed.len());
        }
    }
    Ok(())
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

/// A future that copies the messages of the BPF programs into the agent's log. It waits for ever if `--datapath-log` is off.
type Diagnostics = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The state of the agent's loop.
struct Agent {
    desired: DesiredState,
    installed: Installed,
    devices: Devices,
    tasks: Tasks,
    reporting: Reporting,
    /// Whether a write has brought the kernel's tables to the desired state since the agent's start.
    is_initialized: bool,
    /// Whether a list of objects or a comparison may have left free memory in the heap, which [`heap::give_back`] returns.
    has_free_heap: bool,
}

/// The tasks that run beside the loop.
struct Tasks {
    /// Reads the addresses of the network namespaces on this node, for the source ranges of load balancers.
    clients: Clients,
    /// Finds and destroys connected UDP sockets whose endpoint ended.
    ended_sockets: EndedSockets,
    /// Deletes flows of clients outside the node, after they have expired or their endpoint ended.
    flows: Flows,
    /// Reads the kernel's tables periodically, to compare them with the planner's model.
    comparison: Comparison,
    /// Checks that programs listen for the backends of this node.
    listening: Listening,
}

impl Agent {
    async fn start(
        options: &Options,
        watches: Arc<Watches>,
        service_events: Option<mpsc::Sender<ServiceWarning>>,
    ) -> Result<(Self, Diagnostics)> {
        let mut installed = Installed::start(options).await?;
        let ended_sockets = EndedSockets::new(&installed.datapath.pins, installed.datapath.maps.capacity())?;
        record::record_features(&mut installed.datapath.maps, ended_sockets.is_supported())?;
        let diagnostics: Diagnostics = match options.switches.log {
            LogLevel::Off => Box::pin(std::future::pending()),
            LogLevel::Error | LogLevel::Warn | LogLevel::Info | LogLevel::Debug => {
                Box::pin(log::run(installed.datapath.diagnostics()?))
            }
        };
        let mut desired = DesiredState::start(options)?;
        desired.keep_node_addresses(installed.node_port_addresses());
        let devices = Devices::start(&options.devices, options.device_attach)?;
        let flows = Flows::new(&installed.datapath.pins)?;
        let comparison = Comparison::new(options.compare_every)?;
        let listening = Listening::new(options.listening_every, service_events);
        let tasks = Tasks { clients: Clients::default(), ended_sockets, flows, comparison, listening };
        let agent = Self {
            desired,
            installed,
            devices,
            tasks,
            reporting: Reporting::new(watches),
            is_initialized: false,
            has_free_heap: false,
        };
        Ok((agent, diagnostics))
    }

    async fn serve(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<()> {
        let mut checks = tokio::time::interval(CHECK);
        loop {
            let applied = self.installed.applied();
            tokio::select! {
                _ = checks.tick() => self.check()?,
                event = events.recv() => self.take_burst(event.context("the source of objects ended")?, events).await,
                result = self.desired.address_change() => wait_out(result)?,
                result = self.devices.changed() => wait_out(result)?,
                result = self.installed.wake() => result?,
                sockets = self.tasks.ended_sockets.found() => self.destroy(sockets),
                result = self.tasks.flows.result() => self.take_flow_result(result)?,
                tables = self.tasks.comparison.ended(applied) => self.compare_with(tables),
                result = self.tasks.listening.ended() => {
                    self.has_free_heap = true;
                    self.tasks.listening.take(result, &self.reporting.metrics);
                }
                () = self.tasks.clients.changed() => {}
            }
            wait_out(self.desired.list_addresses())?;
            if self.desired.is_known() && self.installed.may_write() {
                self.reconcile()?;
            } else if self.is_initialized {
                wait_out(self.devices.follow(&self.installed.datapath, &self.desired.node_addresses()))?;
            }
            self.start_due_work()?;
        }
    }

    /// Takes in an event, and the events that follow within [`COALESCE`].
    async fn take_burst(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        let until = tokio::time::Instant::now() + COALESCE;
        self.take(first);
        while let Ok(Some(event)) = timeout_at(until, events.recv()).await {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        self.reporting.metrics.queued(event.kind());
        self.has_free_heap |= matches!(event, Event::Listed(..));
        if self.is_initialized {
            self.reporting.published.queued();
        }
        self.desired.take(event);
    }

    /// Attaches detached programs again, reports the counters, and returns free memory to the kernel. Fails if the pins were
    /// removed, or if a report fails for another reason than a shortage of descriptors or memory.
    fn check(&mut self) -> Result<()> {
        let datapath = &mut self.installed.datapath;
        wait_out(datapath.pins.expect()).context("the pins were removed while the agent ran")?;
        let (is_attached, has_devices) = (datapath.keep_attached(), self.devices.keep(datapath));
        self.reporting.published.set_attached(is_attached && has_devices);
        wait_out(self.reporting.refresh(&self.desired, &self.devices, &mut datapath.maps))?;
        if self.is_initialized && std::mem::take(&mut self.has_free_heap) {
            heap::give_back();
        }
        Ok(())
    }

    /// Brings the kernel's tables to the desired state. A failed write is retried later. So is a failure to replace the
    /// programs of another set of maps for lack of descriptors or memory.
    fn reconcile(&mut self) -> Result<()> {
        let changes = self.desired.take_changes(self.reporting.published.owners());
        let written = self.installed.write(&self.desired.table, changes);
        if self.installed.take_growth() {
            self.follow_growth()?;
        }
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                self.retry_later(&error);
                return Ok(());
            }
        };
        // The programs come before the report, so that `portmap status` calls the agent synced when it serves all clients.
        if let Err(error) = self.take_over() {
            if !is_exhausted(&error) {
                return Err(error);
            }
            self.retry_later(&error);
            return Ok(());
        }
        if let Err(error) = self.report(written) {
            self.retry_later(&error);
            return Ok(());
        }
        self.is_initialized = true;
        wait_out(self.reporting.publish(&self.desired, &mut self.installed))?;
        self.installed.confirm();
        Ok(())
    }

    /// Lets the devices and the tasks continue with the larger copy of the tables.
    fn follow_growth(&mut self) -> Result<()> {
        let datapath = &self.installed.datapath;
        self.devices.forget_programs();
        self.tasks.clients.start_over();
        self.tasks.ended_sockets.follow(&datapath.pins, datapath.maps.capacity())
    }

    /// Attaches the programs to the devices, and replaces the programs of another set of maps, if there is one. The tables must
    /// be filled.
    fn take_over(&mut self) -> Result<()> {
        let datapath = &mut self.installed.datapath;
        datapath.take_over()?;
        self.devices.follow(datapath, &self.desired.node_addresses())?;
        datapath.remove_others();
        Ok(())
    }

    fn report(&mut self, written: Written) -> Result<()> {
        if !written.plan.steps.is_empty() {
            self.tasks.listening.changed();
        }
        // An endpoint that found no room in ENDPOINTS looks like an ended one, so nothing of it is searched for meanwhile.
        if written.plan.without_room == 0 {
            if written.scope == PlanScope::All || ends_endpoints(&written.plan) {
                self.tasks.ended_sockets.request();
            }
            self.tasks.flows.written(&written);
        }
        let frontends = self.installed.frontends();
        let datapath = &mut self.installed.datapath;
        self.reporting.written(written, &mut self.desired, &mut datapath.maps, frontends)?;
        datapath.mark_synced()
    }

    fn retry_later(&mut self, error: &anyhow::Error) {
        self.installed.retry_later(error);
        self.reporting.failed();
    }

    /// Starts the tasks beside the loop that are due.
    fn start_due_work(&mut self) -> Result<()> {
        let Tasks { clients, ended_sockets, flows, comparison, listening } = &mut self.tasks;
        if let Some(guarded) = self.desired.table.take_guarded() {
            clients.set_destinations(guarded);
        }
        let (has_source_ranges, applied) = (self.installed.has_source_ranges(), self.installed.applied());
        let (datapath, metrics) = (&mut self.installed.datapath, &self.reporting.metrics);
        let result = if has_source_ranges { clients.start_if_due(datapath, metrics) } else { clients.stop(datapath, metrics) };
        wait_out(result)?;
        ended_sockets.start_if_due(&datapath.pins);
        flows.start_if_due(&datapath.pins);
        if self.is_initialized && !self.installed.is_failing() {
            comparison.start_if_due(&self.installed.datapath.pins, applied);
            listening.start_if_due(&self.installed.datapath.pins);
        }
        Ok(())
    }

    /// Starts to destroy the sockets whose endpoint no longer serves the frontend that the socket was connected to.
    fn destroy(&mut self, sockets: Vec<EndedSocket>) {
        let mut entries = EntryReader::new(&self.desired.table);
        let ended = sockets.into_iter().filter(|socket| !entries.serves(&socket.asked, socket.peer));
        self.tasks.ended_sockets.destroy(ended.collect());
    }

    /// Compares the planner's model with the tables that a comparison has read, if it has read any. Skips the comparison
    /// after a failed write, and while changes wait to be written.
    fn compare_with(&mut self, tables: Option<Planner>) {
        self.has_free_heap = true;
        if let Some(tables) = tables.filter(|_| !self.installed.is_failing() && !self.desired.has_changes()) {
            self.installed.compare_with(tables);
        }
    }
}

/// Whether the plan removes endpoints from ENDPOINTS. Sockets may be connected to such endpoints.
fn ends_endpoints(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Remove(Item::Endpoint(..))))
}
