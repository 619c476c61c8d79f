//! What the agent takes of a node's memory, from a real API server: while it lists everything, and after.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use portmap::model::Family;
use portmap_harness::control_plane::ControlPlane;
use portmap_harness::control_plane::load::{change_slices, create_all};
use portmap_harness::control_plane::objects::ensure_namespace;
use portmap_harness::listen::Protocol;
use portmap_harness::world::{Group, World, program};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, NAMESPACE};
use crate::figures::{Aim, Figures};
use crate::machine::Machine;
use crate::report::{Row, Section};
use crate::{Report, Size, progress};

/// What the agent may keep, in MiB.
const AIM: f64 = 40.0;

/// An agent that is not synced after that never is.
const PATIENCE: Duration = Duration::from_mins(5);

/// From the first sync to the settled figure.
const SETTLING: Duration = Duration::from_secs(20);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Measure what the agent takes of memory, with everything from a real API server
///
/// The first time, the API server is built, which takes minutes. Creating 30,000 Services takes two more.
#[derive(Args, Clone, Copy, Debug)]
pub struct Arguments {
    /// Services in the API server, each with one port
    #[arg(long, value_name = "COUNT", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    services: u32,
    /// Endpoints of each Service
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    endpoints: u32,
    /// Changes of endpoints each second, once everything is known
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    changes: u32,
    /// How long the changes go on, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u32,
}

/// Measures. Dropping the future removes everything that it made.
pub async fn run(arguments: Arguments) -> Result<Report> {
    let Arguments { services, endpoints, changes, seconds } = arguments;
    let size = Size { services, endpoints };
    let machine = Machine::look();
    let cluster = Cluster::new(size, Protocol::Tcp, &[Family::V4])?;
    let plane = fill(&cluster).await?;
    let world = World::new("bench-memory")?;
    progress("starting the agent");
    let agent = Agent::start(&world, plane.admin_kubeconfig(), &cluster)?;
    let sync = agent.await_sync(&world).await?;
    sleep(SETTLING).await;
    let settled = agent.usage()?;
    progress(&format!("changing {changes} endpoints each second"));
    let number = changes * seconds;
    let made = change_slices(&plane.admin()?, NAMESPACE, (0..number).map(|turn| change(turn, size)), changes).await?;
    let busy = agent.usage()?;
    let cpu = (busy.cpu - settled.cpu) * 1000.0 / f64::from(number);
    Ok(Report {
        bench: "memory",
        about: format!(
            "an agent's memory, synced after {:.1} s, then {made:.0} changes of endpoints each second",
            sync.as_secs_f64()
        ),
        machine,
        size,
        connect: Vec::new(),
        programs: Vec::new(),
        aims: vec![Aim::at_most("memory after the first sync, MiB", AIM, settled.resident)],
        sections: vec![memory(&settled, &busy), time(cpu)],
    })
}

/// An API server with all the cluster's objects.
async fn fill(cluster: &Cluster) -> Result<ControlPlane> {
    progress("starting an API server");
    let plane = ControlPlane::start().await?;
    let client = plane.admin()?;
    ensure_namespace(&client, NAMESPACE).await?;
    progress("creating Services");
    create_all(&client, NAMESPACE, cluster.all_services()).await?;
    progress("creating EndpointSlices");
    create_all(&client, NAMESPACE, cluster.all_slices()).await?;
    Ok(plane)
}

/// Another first endpoint for one Service after the other.
fn change(turn: u32, size: Size) -> (String, serde_json::Value) {
    let number = turn % size.services;
    let address = format!("10.{}.{}.{}", 200 + turn / 65_536, turn / 256 % 256, turn % 256);
    let endpoint = json!({"addresses": [address], "conditions": {"ready": true}});
    (Cluster::slice_name(number), json!({"endpoints": [endpoint]}))
}

fn memory(settled: &Usage, busy: &Usage) -> Section {
    let row = |name, value| Row { name, figures: Figures::of(vec![value]) };
    Section {
        name: "memory",
        title: "Resident memory of the agent".to_owned(),
        unit: "MiB",
        rows: vec![
            row("at most until then", settled.peak),
            row("after the first sync", settled.resident),
            row("  its own", settled.own),
            row("  the program, and mapped tables", settled.resident - settled.own),
            row("after the changes", busy.resident),
        ],
    }
}

fn time(cpu: f64) -> Section {
    let rows = vec![Row { name: "one change", figures: Figures::of(vec![cpu]) }];
    Section { name: "time", title: "CPU time of the agent".to_owned(), unit: "ms", rows }
}

/// `portmap run` on the node's own network, where the API server is.
struct Agent {
    child: Child,
}

/// Of one process.
struct Usage {
    /// MiB.
    peak: f64,
    resident: f64,
    own: f64,
    /// Seconds.
    cpu: f64,
}

impl Agent {
    fn start(world: &World, kubeconfig: &Path, cluster: &Cluster) -> Result<Self> {
        let capacity = cluster.capacity();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program::find("portmap")?).arg("run");
        command.arg("--kubeconfig").arg(kubeconfig).args(["--node-name", "bench"]);
        command.arg("--cgroup").arg(world.cgroup(Group::Clients)).arg("--bpffs").arg(world.bpffs());
        command.args(["--healthz-bind-address", "none", "--metrics-bind-address", "none"]);
        command.args(["--max-services", &capacity.services.to_string(), "--max-backends", &capacity.backends.to_string()]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RUST_LOG", "warn");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self { child: child.context("failed to run setpriv (from util-linux)")? })
    }

    /// How long it takes until the tables hold everything.
    async fn await_sync(&self, world: &World) -> Result<Duration> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let mut status = Command::new(program::find("portmap")?);
            status.arg("status").arg("--bpffs").arg(world.bpffs()).stdout(Stdio::null()).stderr(Stdio::null());
            if status.status().context("failed to run portmap status")?.success() {
                return Ok(started.elapsed());
            }
            self.usage().context("the agent ended")?;
            sleep(PAUSE).await;
        }
        bail!("the agent is not synced after {PATIENCE:?}")
    }

    fn usage(&self) -> Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let mebibytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kibibytes.map(|number| number / 1024.0).with_context(|| format!("the kernel gives no {field}"))
        };
        // After the name in brackets: the state, and the 12th and 13th field on from there are the times in ticks of 10 ms.
        let ticks = stat.rsplit(") ").next().into_iter().flat_map(str::split_whitespace).skip(11).take(2);
        let cpu = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0;
        Ok(Usage { peak: mebibytes("VmHWM")?, resident: mebibytes("VmRSS")?, own: mebibytes("RssAnon")?, cpu })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("warning: failed to end the agent: {error}");
        }
    }
}
