//! Measures the agent's memory with a real API server: during the initial lists, after the first synchronization, and under
//! changes.

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

/// Limit of the agent's anonymous memory (`RssAnon`) after the first synchronization, in MiB. The rest of the resident set is
/// pages of the program file and of BPF maps, which the kernel may reclaim or has allocated anyway.
const AIM: f64 = 40.0;

/// Time limit of the first synchronization.
const PATIENCE: Duration = Duration::from_mins(5);

/// Time from the end of the first synchronization to the measurement of the idle agent's memory.
const IDLE_TIME: Duration = Duration::from_secs(20);

/// Pause between two checks of the agent's status.
const PAUSE: Duration = Duration::from_millis(100);

/// Measure the memory of an agent with a real API server
///
/// The first run builds the API server, which takes minutes. Creating 30,000 Services takes two more minutes.
#[derive(Args, Clone, Copy, Debug)]
pub struct MemoryArguments {
    /// Number of Services in the API server, each with one port
    #[arg(long, value_name = "COUNT", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    services: u32,
    /// Number of endpoints of each Service
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    endpoints: u32,
    /// Changes of endpoints per second after the first synchronization
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    changes: u32,
    /// Duration of the changes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u32,
}

/// Runs the measurement. Dropping the future removes everything that it made.
pub async fn run(arguments: MemoryArguments) -> Result<Report> {
    let MemoryArguments { services, endpoints, changes, seconds } = arguments;
    let size = Size { services, endpoints };
    let machine = Machine::look();
    let cluster = Cluster::new(size, Protocol::Tcp, &[Family::V4])?;
    let plane = fill(&cluster).await?;
    let world = World::new("bench-memory")?;
    progress("starting the agent");
    let agent = Agent::start(&world, plane.admin_kubeconfig(), &cluster)?;
    let sync = agent.await_sync(&world).await?;
    sleep(IDLE_TIME).await;
    let idle = agent.usage()?;
    progress(&format!("changing {changes} endpoints each second"));
    let number = changes * seconds;
    let rate = change_slices(&plane.admin()?, NAMESPACE, (0..number).map(|turn| change(turn, size)), changes).await?;
    let busy = agent.usage()?;
    let cpu = (busy.cpu - idle.cpu) * 1000.0 / f64::from(number);
    Ok(Report {
        bench: "memory",
        about: format!(
            "memory of an agent that was synchronized after {:.1} s, and then handled {rate:.0} changes of endpoints per second",
            sync.as_secs_f64()
        ),
        machine,
        size,
        connect: Vec::new(),
        programs: Vec::new(),
        aims: vec![Aim::at_most("anonymous memory after the first synchronization, MiB", AIM, idle.anonymous)],
        sections: vec![memory(&idle, &busy), time(cpu)],
    })
}

/// Starts an API server and creates all objects of the cluster.
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

/// The name of a slice, and the merge patch of the change `turn`. The patch replaces all endpoints of the slice by one with a
/// new address.
fn change(turn: u32, size: Size) -> (String, serde_json::Value) {
    let number = turn % size.services;
    let address = format!("10.{}.{}.{}", 200 + turn / 65_536, turn / 256 % 256, turn % 256);
    let endpoint = json!({"addresses": [address], "conditions": {"ready": true}});
    (Cluster::slice_name(number), json!({"endpoints": [endpoint]}))
}

fn memory(idle: &Usage, busy: &Usage) -> Section {
    let row = |name, value| Row { name, figures: Figures::of(vec![value]) };
    Section {
        name: "memory",
        title: "Resident memory of the agent".to_owned(),
        unit: "MiB",
        rows: vec![
            row("peak of the first synchronization", idle.peak),
            row("after the first synchronization", idle.resident),
            row("  anonymous memory", idle.anonymous),
            row("  mapped files and BPF maps", idle.resident - idle.anonymous),
            row("after the changes", busy.resident),
            row("  anonymous memory, after the changes", busy.anonymous),
        ],
    }
}

fn time(cpu: f64) -> Section {
    let rows = vec![Row { name: "one change", figures: Figures::of(vec![cpu]) }];
    Section { name: "time", title: "CPU time of the agent".to_owned(), unit: "ms", rows }
}

/// A running `portmap run` in the host's network namespace, because the API server listens on its loopback.
struct Agent {
    child: Child,
}

/// Memory and processor time of the agent's process.
struct Usage {
    /// Largest resident set so far, in MiB.
    peak: f64,
    /// Current resident set, in MiB.
    resident: f64,
    /// Anonymous part of the resident set, in MiB.
    anonymous: f64,
    /// Processor time in seconds.
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
        Ok(Self { child: child.context("failed to run setpriv; install util-linux")? })
    }

    /// Waits until `portmap status` succeeds, and returns the time of the wait. Fails if the agent ends, or after [`PATIENCE`].
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
        bail!("the agent is not synchronized after {PATIENCE:?}")
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
            kibibytes.map(|number| number / 1024.0).with_context(|| format!("/proc shows no {field} of the agent"))
        };
        // The fields after the name in brackets begin with the state. The 12th and 13th are utime and stime in ticks of 10 ms.
        let ticks = stat.rsplit(") ").next().into_iter().flat_map(str::split_whitespace).skip(11).take(2);
        let cpu = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0;
        Ok(Usage { peak: mebibytes("VmHWM")?, resident: mebibytes("VmRSS")?, anonymous: mebibytes("RssAnon")?, cpu })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("warning: failed to kill the agent: {error}");
        }
    }
}
