//! Measures the time that portmap adds to a client's socket calls, with all Services in the maps. Runs `portmap-pod bench`.
//!
//! The client and the server are two network namespaces on one bridge, without kube-proxy, packet filter and connection
//! tracking. The client connects to some Services in turn, and for comparison directly to the pod behind them.

use std::net::{IpAddr, SocketAddr};
use std::process::{Output, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum as _};
use portmap::datapath::load::{PeerNames, Switches};
use portmap::maps::Maps as _;
use portmap::model::Family;
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::pod_bench::{self, Arm, Work};
use portmap_harness::world::{Client, Group, Pod, World, program};
use tokio::process::Command;

use crate::cluster::{Cluster, PORT, Reached, TARGET_PORT, service_address};
use crate::figures::Aim;
use crate::machine::Machine;
use crate::programs::{ProgramTime, Statistics};
use crate::stages::{Scope, Stages};
use crate::tables::Tables;
use crate::tracing::{self, Tracing};
use crate::{Report, Size, progress};

/// Limits of time ratios: call, arm, limit. A ratio is the median time of the arm in a round, divided by that of the arm
/// `clean`. The calls of `clean` go to a pod, without portmap. The median of all rounds is compared with the limit.
const AIMS: [(Work, Arm, f64); 4] = [
    (Work::TcpConnect, Arm::Hit, 1.05),
    (Work::TcpConnect, Arm::Miss, 1.02),
    (Work::UdpConnected, Arm::Hit, 1.05),
    (Work::UdpUnconnected, Arm::Hit, 1.10),
];

/// Last byte of the IPv4 address that is the server's first additional one. Pods and clients get lower addresses.
///
/// 155 addresses remain (100 to 254). A Service that the client connects to has at most these 155 endpoints.
const FIRST_HOST: u8 = 100;

/// Calls before the timed ones of a block. They fill the CPU's caches and branch predictors.
const WARM_UP: u32 = 20;

/// Measure the time of socket calls through portmap, compared with direct calls
///
/// Three arms take turns: clean (to a pod, without portmap), miss (to a pod, with portmap: the cost for destinations that are
/// no Service) and hit (to a Service). Each round gives a ratio to its clean arm; the report shows the median of these ratios.
#[derive(Args, Clone, Debug)]
pub struct ConnectArguments {
    #[command(flatten)]
    size: Size,
    /// Number of rounds; each arm is measured once per round
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Timed calls per arm and round
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    per_round: u32,
    /// Number of Services that the client connects to in turn; with many, the CPU's caches do not hold their map entries
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=5000))]
    in_turn: u32,
    /// Address that `getpeername()` returns for TCP sockets; with "service" the programs also store it per socket
    #[arg(long, value_enum, default_value_t)]
    peer_names: PeerNames,
    /// Run `portmap trace` during the measurement, and count the connections that it loses
    #[arg(long)]
    trace: bool,
    /// Calls to measure; all if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    work: Vec<Work>,
}

/// Runs the measurement. Dropping the future removes everything that it made.
pub async fn run(arguments: ConnectArguments) -> Result<Report> {
    let machine = Machine::look();
    let works: &[Work] = if arguments.work.is_empty() { &Work::ALL } else { &arguments.work };
    let (mut connect, mut programs, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let of_protocol = || works.iter().filter(|work| work.is_udp() == (protocol == Protocol::Udp));
        if of_protocol().next().is_none() {
            continue;
        }
        let scene = Scene::set(&arguments, protocol)?;
        for work in of_protocol() {
            // Lets the runtime handle a signal.
            tokio::task::yield_now().await;
            let tracing = arguments.trace.then(|| Tracing::start(&scene.world)).transpose()?;
            let (began, before) = (Instant::now(), scene.forwarded()?);
            connect.push(scene.measure(&arguments, *work).await?);
            if let Some(tracing) = tracing {
                events.push(tracing.end(scene.forwarded()? - before, began)?);
            }
        }
        // The BPF programs are timed separately, because the kernel's statistics take time in every call.
        programs.extend(scene.programs(&arguments, of_protocol().copied()).await?);
    }
    let in_turn = arguments.in_turn.min(arguments.size.services);
    let aims = AIMS.iter().filter(|_| arguments.size == Size::AIMED_AT).filter_map(|(work, arm, limit)| {
        let report = connect.iter().find(|report| report.work == *work)?;
        let measured = report.arms.get(arm)?.ratio.p50;
        Some(Aim::at_most(&format!("{work}, ratio of {arm} to clean, p50"), *limit, measured))
    });
    Ok(Report {
        bench: "connect",
        about: format!(
            "calls to a pod without portmap (clean), to a pod with portmap (miss), and to {in_turn} Services in turn (hit)"
        ),
        machine,
        size: arguments.size,
        aims: aims.collect(),
        connect,
        programs,
        sections: if events.is_empty() { Vec::new() } else { vec![tracing::section(&events)] },
    })
}

/// A server, a client and filled maps. The fields are dropped in this order.
struct Scene {
    protocol: Protocol,
    cluster: Cluster,
    stages: Stages,
    tables: Tables,
    client: Client,
    /// The pod of the server; dropping it ends the server.
    _server: Pod,
    /// The IP addresses at which the server replies.
    pod: Vec<IpAddr>,
    world: World,
}

impl Scene {
    fn set(arguments: &ConnectArguments, protocol: Protocol) -> Result<Self> {
        let size = arguments.size;
        progress(&format!("loading {} Services × {} endpoints for {protocol}", size.services, size.endpoints));
        let world = World::new("bench-connect")?;
        let (mut server, client) = (world.pod("server")?, world.client("client")?);
        server.serve_in_turn(&[Listen { protocol, port: TARGET_PORT }])?;
        let pod = match protocol {
            Protocol::Tcp => more_addresses(&server, size.endpoints)?,
            // The server's UDP socket replies from the pod's first address, so other addresses would not work.
            Protocol::Udp => vec![server.ipv4().into()],
        };
        let reached = Reached { pod: pod.clone(), services: arguments.in_turn };
        let cluster = Cluster::new(size, protocol, &[Family::V4])?.reaching(reached);
        let switches = Switches { peer_names: arguments.peer_names, ..Switches::default() };
        let tables = Tables::create_with(&world, cluster.capacity(), &switches)?;
        let (mut stages, _) = Stages::start(&tables)?;
        stages.pass(cluster.events(), Scope::Everything)?;
        Ok(Self { protocol, cluster, stages, tables, client, _server: server, pod, world })
    }

    async fn measure(&self, arguments: &ConnectArguments, work: Work) -> Result<pod_bench::Report> {
        let ConnectArguments { rounds, per_round, .. } = arguments;
        progress(&format!("measuring {work}: {rounds} rounds of 3 × {per_round}"));
        let before = self.forwarded()?;
        let mut command = Command::from(self.command(arguments, work)?);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let Output { status, stdout, stderr } = command.output().await.context("failed to run portmap-pod bench")?;
        ensure!(status.success(), "portmap-pod bench failed: {}", String::from_utf8_lossy(&stderr).trim_end());
        // The programs' counters verify that exactly the calls to Services (arm `hit`) were translated.
        let hits = u64::from(*rounds) * (u64::from(*per_round) + u64::from(WARM_UP));
        let forwarded = self.forwarded()? - before;
        ensure!(forwarded == hits, "{hits} calls were made to Services, but {forwarded} were translated");
        serde_json::from_slice(&stdout).context("failed to parse the output of portmap-pod bench")
    }

    /// Repeats a tenth of the rounds of these calls with the kernel's statistics. Returns the mean run time of each BPF
    /// program.
    async fn programs(&self, arguments: &ConnectArguments, works: impl Iterator<Item = Work>) -> Result<Vec<ProgramTime>> {
        let arguments = ConnectArguments { rounds: arguments.rounds.div_ceil(10), ..arguments.clone() };
        let statistics = Statistics::of(&self.tables)?;
        for work in works {
            self.measure(&arguments, work).await?;
        }
        statistics.read(self.protocol)
    }

    fn command(&self, arguments: &ConnectArguments, work: Work) -> Result<std::process::Command> {
        let direct = self.pod.iter().map(|address| SocketAddr::new(*address, TARGET_PORT).to_string());
        let services =
            self.cluster.reached().map(|number| SocketAddr::new(service_address(Family::V4, number), PORT).to_string());
        let mut command = self.client.command_on_first_processor();
        command.arg(program::find("portmap-pod")?).args([
            "bench",
            "--json",
            "--direct",
            &direct.collect::<Vec<_>>().join(","),
            "--service",
            &services.collect::<Vec<_>>().join(","),
        ]);
        command.arg("--cgroup-clean").arg(self.world.cgroup(Group::Clean));
        command.arg("--cgroup-portmap").arg(self.world.cgroup(Group::Clients));
        command.args(["--rounds", &arguments.rounds.to_string(), "--per-round", &arguments.per_round.to_string()]);
        command.args(["--warm-up", &WARM_UP.to_string()]);
        let name = work.to_possible_value().context("the call has no name on the command line")?;
        command.args(["--work", name.get_name()]);
        Ok(command)
    }

    fn forwarded(&self) -> Result<u64> {
        let maps = self.stages.maps();
        let mut forwarded = 0;
        for (_, found) in maps.read()?.frontends {
            forwarded += maps.counters(found.number)?.forwarded;
        }
        Ok(forwarded)
    }
}

/// Adds `count` IPv4 addresses to the pod, at most 155, and returns them. One listening socket serves all addresses. With a
/// socket per address, the kernel would wake another thread for every connection, which would slow the client down.
fn more_addresses(pod: &Pod, count: u32) -> Result<Vec<IpAddr>> {
    const ADD: &str = r#"for address in "$@"; do ip address add "$address/24" dev eth0 || exit; done"#;
    let [a, b, c, _] = pod.ipv4().octets();
    let hosts = (FIRST_HOST..u8::MAX).zip(0..count);
    let addresses: Vec<IpAddr> = hosts.map(|(host, _)| IpAddr::from([a, b, c, host])).collect();
    let mut command = pod.command_in(Group::Clean, "sh");
    command.args(["-c", ADD, "sh"]).args(addresses.iter().map(ToString::to_string));
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output().context("failed to run `ip`")?;
    ensure!(status.success(), "failed to add addresses to the server: {}", String::from_utf8_lossy(&stderr).trim_end());
    Ok(addresses)
}
