//! `portmap trace`: one line for each connection or first datagram that the programs translate, refuse or drop.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use portmap::{
    datapath::cgroup::Cgroup,
    inspect::{
        flows::ServiceName,
        trace::{
            self, Filter, Names, Row,
            pods::{self, Pods},
        },
    },
    kernel::{cgroups::Cgroups, devices, readiness, uptime},
    maps::{
        pin::Pins,
        trace::{Effect, Origin, Traced, Tracer, names::ServiceNames},
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use super::{
    PinsArguments,
    backends::{self, Backends},
    output, runtime,
};

/// The interval at which the programs are told that this process still traces.
const KEEP: Duration = Duration::from_secs(1);

/// The most events that are printed in a row, before signals are handled and the programs are told to go on.
const BATCH: u32 = 4_096;

/// The events of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// All that there were.
    All,
    /// There may be more.
    Some,
}

/// The time for a write that is under way when a signal ends the trace.
const LAST_WRITE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pins: PinsArguments,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Show only connections to this Service: NAME (in every namespace), NAME.NAMESPACE or NAMESPACE/NAME
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Show only connections of this pod: NAME (in every namespace), NAMESPACE/NAME, or its UID
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Show only connections of the process with this id
    #[arg(long, value_name = "ID")]
    pid: Option<u32>,
    /// Show only connections that fail: refused or dropped
    #[arg(long)]
    refused: bool,
    /// Show only connections of clients outside the node
    #[arg(long, conflicts_with_all = ["pod", "pid"])]
    outside: bool,
    /// Stop after this number of lines
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The directory of the kubelet's logs, whose subdirectories name the pods of this node. The default is on the node also in a
    /// pod with hostPID
    #[arg(long, value_name = "DIR", default_value = "/proc/1/root/var/log/pods")]
    pod_logs: PathBuf,
    #[command(flatten)]
    backends: backends::Arguments,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line of text for each connection
    #[default]
    Text,
    /// One JSON object on a line for each connection
    Json,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        pins.expect()?;
        let is_wanted = |effect: &Effect| !self.refused || *effect != Effect::Forwarded;
        let effects: Vec<Effect> = Effect::ALL.into_iter().filter(is_wanted).collect();
        let Some(tracer) = Tracer::start(&pins, &effects)? else {
            bail!("another portmap trace is running, and each event is read only once; stop it first");
        };
        let runtime = runtime()?;
        let result = runtime.block_on(async { trace(tracer, Lines::new(self, &pins).await?).await });
        // A write may wait for the reader for ever.
        runtime.shutdown_timeout(LAST_WRITE);
        result.map(|()| ExitCode::SUCCESS)
    }
}

/// Prints events until SIGINT or SIGTERM, or until enough lines are printed. A signal also ends it while a write waits for the
/// reader of the lines.
async fn trace(mut tracer: Tracer, lines: Lines) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut lost = 0;
    tokio::select! {
        result = follow(&mut tracer, lines, &mut lost) => result?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    report_lost(&tracer, &mut lost)
}

/// Prints events until enough lines are printed. `lost`: the lost events that were reported.
async fn follow(tracer: &mut Tracer, mut lines: Lines, lost: &mut u64) -> Result<()> {
    let events = readiness::readable(tracer.as_fd()).context("failed to wait for events")?;
    eprintln!("waiting for connections to Services; stop with Ctrl-C");
    lines.warn();
    let mut keep = interval(KEEP);
    while lines.left != Some(0) {
        tokio::select! {
            ready = events.readable() => {
                if lines.print_some(tracer).await? == Batch::All {
                    ready?.clear_ready();
                }
            }
            _ = keep.tick() => {
                let stopped = tracer.keep()?;
                if !stopped.is_zero() {
                    output::warning(&format!("no connections are known for {stopped:.1?}: this process was stopped or its reader slow"));
                }
                report_lost(tracer, lost)?;
            }
        }
    }
    Ok(())
}

/// Warns of the events that were lost since the last call. `before`: all lost events at that call.
fn report_lost(tracer: &Tracer, before: &mut u64) -> Result<()> {
    let lost = tracer.lost()?;
    if lost > *before {
        output::warning(&format!("{} connections are missing: they came too fast", lost - *before));
    }
    *before = lost;
    Ok(())
}

/// Selects, names and prints events.
struct Lines {
    filter: Filter,
    format: Format,
    /// The number of lines that are still to be printed; none without a limit.
    left: Option<u64>,
    services: ServiceNames,
    cgroups: Cgroups,
    pods: Pods,
    backends: Backends,
    devices: BTreeMap<u32, String>,
    /// The time of day at boot.
    boot: Timestamp,
    is_colored: bool,
    buffer: Vec<u8>,
}

impl Lines {
    async fn new(arguments: Arguments, pins: &Pins) -> Result<Self> {
        let Arguments { pins: _, output, service, pod, pid, refused: _, outside, count, pod_logs, backends } = arguments;
        Ok(Self {
            filter: Filter { service, pod, process: pid, is_outside: outside },
            format: output,
            left: count,
            services: ServiceNames::new(pins),
            cgroups: Cgroups::new(&Cgroup::open(None)?.path),
            pods: Pods::new(&pod_logs),
            backends: backends.open().await?,
            devices: devices::names()?,
            boot: Timestamp::now() - uptime::monotonic(),
            is_colored: output::is_colored(&io::stdout()),
            buffer: Vec::new(),
        })
    }

    /// Prints the events that the programs have written, [`BATCH`] at most, and no line after the last one that is wanted.
    async fn print_some(&mut self, tracer: &mut Tracer) -> Result<Batch> {
        let mut batch = Batch::Some;
        for _ in 0..BATCH {
            if self.left == Some(0) {
                break;
            }
            let Some(event) = tracer.read() else {
                batch = Batch::All;
                break;
            };
            self.print(&event).await?;
        }
        self.flush().await?;
        Ok(batch)
    }

    /// Adds a line for an event that is wanted.
    async fn print(&mut self, traced: &Traced) -> Result<()> {
        let mut names = self.names(traced)?;
        if !self.filter.admits(traced, &names) {
            return Ok(());
        }
        if let (Some(owner), Some(backend)) = (&names.service, traced.backend) {
            names.backend = self.backends.pod(&owner.service, backend.ip()).await.cloned();
        }
        self.warn();
        let row = trace::row(traced, names, self.boot);
        let line = match self.format {
            Format::Json => serde_json::to_string(&row)?,
            Format::Text => self.text(&row),
        };
        writeln!(self.buffer, "{line}")?;
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }

    /// Says why the pods of backends are not named, at the first failure.
    fn warn(&mut self) {
        if let Some(warning) = self.backends.take_warning() {
            output::warning(&warning);
        }
    }

    /// Writes the lines in a task, because a write waits while the reader does not read.
    async fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        self.buffer.clear();
        tokio::task::spawn_blocking(move || output::print(&text)).await?
    }

    fn names(&mut self, traced: &Traced) -> Result<Names> {
        let service = self.services.of(traced)?.cloned();
        Ok(match traced.origin {
            Origin::Call { cgroup, .. } => {
                let pod_uid = self.cgroups.path(cgroup).and_then(pods::uid_of);
                let pod = pod_uid.as_ref().and_then(|uid| self.pods.name(uid)).cloned();
                Names { service, pod, pod_uid, ..Names::default() }
            }
            Origin::Packet { device, .. } => Names { service, device: self.devices.get(&device).cloned(), ..Names::default() },
        })
    }

    /// The columns are as wide as usual values, so that lines stay aligned without knowing the next ones.
    fn text(&self, row: &Row) -> String {
        let time = row.time.strftime("%H:%M:%S.%3f");
        let (client, service, result) = (row.client_text(), row.service_text(), row.result_text());
        let color = if row.backend.is_some() { "32" } else { "31" };
        let result = if self.is_colored { format!("\x1b[{color}m{result}\x1b[0m") } else { result };
        format!("{time}  {client:<28}  {:<22}  {service:<22}  {result}", row.frontend)
    }
}
