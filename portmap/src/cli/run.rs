//! `portmap run`: the arguments of the node agent, and their checks and defaults.

mod devices;
mod outside;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use portmap::{
    agent::{self, EventWriting, Leaving, Options, Source, Waiting},
    datapath::load::{LogLevel, PeerNames, Scope, Switches},
    kernel::{descriptors, heap, memory},
    maps::{Capacity, flows_for, pin::Mounting},
    serve::{Addresses, EVERYWHERE},
};

use super::{ClusterArguments, ObjectArguments, PinsArguments, objects::TableArguments};
use devices::DeviceArguments;
use outside::OutsideArguments;

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "shown on a terminal")]
pub struct Arguments {
    /// Read objects from this file or directory (or - for standard input) instead of a cluster; repeatable
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    objects: ObjectArguments,
    #[command(flatten)]
    table: TableArguments,
    #[command(flatten)]
    pins: PinsArguments,
    #[command(flatten)]
    life: Life,
    #[command(flatten)]
    listening: Listening,
    #[command(flatten)]
    outside: OutsideArguments,
    /// Translate only for processes in or below this cgroup v2 directory [default: the root of the hierarchy]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Translate only for processes in the agent's network namespace: not for pods with their own
    #[arg(long)]
    only_host: bool,
    /// Do not translate for processes in or below this cgroup v2 directory; repeatable, up to 8 times
    #[arg(long, value_name = "DIR", conflicts_with = "only_host")]
    exclude_cgroup: Vec<PathBuf>,
    /// Address of /healthz, /livez and /readyz, or none; repeatable. [::] means all IPv4 and IPv6 addresses [default:
    /// [::]:10256 with a cluster, none with --manifests]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', value_parser = bind_address)]
    healthz_bind_address: Vec<Bind>,
    /// Address of /metrics, or none [default: 127.0.0.1:10249 with a cluster, none with --manifests]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = bind_address)]
    metrics_bind_address: Option<Bind>,
    /// Peer that getpeername() of a TCP socket shows; with "pod", connect() needs less kernel memory and time
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    peer_names: PeerNames,
    /// Level of the programs' log. Each decision is logged at the level debug; other levels cost nothing
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    datapath_log: LogLevel,
    #[command(flatten)]
    devices: DeviceArguments,
    /// Largest number of frontends (a Service port on one address). The maps begin small, and grow as needed
    #[arg(long, value_name = "N", default_value_t = Capacity::default().services, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_services: u32,
    /// Largest number of backends (an endpoint of a Service port) of each address family. The maps begin small, and grow as
    /// needed
    #[arg(long, value_name = "N", default_value_t = Capacity::default().backends, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_backends: u32,
    /// Room for this many clients of Services with session affinity; more clients replace the least recent ones
    #[arg(long, value_name = "N", default_value_t = Capacity::default().affinity_clients, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_affinity_clients: u32,
    /// Room for this many entries of flows of clients outside the node, of each address family: 2 per flow, or 4 if its
    /// backend is on another node [default: a thousandth of the memory, at 296 bytes each, as a power of two from 32768 to
    /// 1048576]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(256..=16_777_216))]
    max_flows: Option<u32>,
}

/// How the agent starts and ends, and how often it compares the tables.
#[derive(Debug, Args)]
struct Life {
    /// Do not mount a BPF file system if none is mounted at /sys/fs/bpf
    #[arg(long)]
    no_mount_bpffs: bool,
    /// Wait for the end of another agent that writes to the tables
    #[arg(long)]
    wait: bool,
    /// Remove the programs and tables after SIGTERM or SIGINT: connections to Services then fail
    #[arg(long)]
    cleanup_on_exit: bool,
    /// Interval of comparisons of the kernel's tables with the objects, and repairs; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    compare_interval: u64,
}

/// The check that programs listen for the backends.
#[derive(Debug, Args)]
struct Listening {
    /// Interval of checks that programs listen for the backends of this node; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    listening_interval: u64,
    /// Write a Kubernetes Event about a Service when no program listens for its backends on this node
    #[arg(long, conflicts_with = "manifests")]
    events: bool,
}

/// A listening address; `None` for the argument `none`.
#[derive(Clone, Copy, Debug)]
struct Bind(Option<SocketAddr>);

fn bind_address(text: &str) -> Result<Bind, String> {
    match text {
        "none" => Ok(Bind(None)),
        _ => text.parse().map(|address| Bind(Some(address))).map_err(|_| "expected ADDRESS:PORT or none".to_owned()),
    }
}

/// An interval of this number of seconds; none for 0.
fn interval(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        descriptors::raise_limit();
        let default = |port, address: IpAddr| Bind(self.manifests.is_empty().then(|| (address, port).into()));
        let health = match self.healthz_bind_address {
            given if given.is_empty() => vec![default(10_256, EVERYWHERE)],
            given => given,
        };
        let metrics = self.metrics_bind_address.unwrap_or_else(|| default(10_249, Ipv4Addr::LOCALHOST.into()));
        let source =
            if self.manifests.is_empty() { Source::Kube(self.cluster.into()) } else { Source::Manifests(self.manifests) };
        let capacity = Capacity {
            services: self.max_services,
            backends: self.max_backends,
            affinity_clients: self.max_affinity_clients,
            flows: self.max_flows.unwrap_or_else(|| flows_for(memory::total())),
        };
        let options = Options {
            source,
            wanted: self.objects.wanted()?,
            abi: self.pins.abi_version(),
            bpffs: self.pins.bpffs,
            mounting: if self.life.no_mount_bpffs { Mounting::Forbidden } else { Mounting::Allowed },
            waiting: if self.life.wait { Waiting::ForLock } else { Waiting::No },
            leaving: if self.life.cleanup_on_exit { Leaving::Nothing } else { Leaving::Datapath },
            compare_every: interval(self.life.compare_interval),
            listening_every: interval(self.listening.listening_interval),
            events: if self.listening.events { EventWriting::Yes } else { EventWriting::No },
            cgroup: self.cgroup,
            capacity,
            switches: Switches {
                scope: Scope { only_host: self.only_host, excluded: self.exclude_cgroup },
                peer_names: self.peer_names,
                log: self.datapath_log,
                outside: self.outside.switches(),
            },
            client_ports: self.outside.client_ports(),
            service_cidrs: self.table.service_cidr,
            node_port_addresses: self.table.nodeport_addresses,
            device_attach: self.devices.device_attach,
            devices: self.devices.options()?,
            serve: Addresses { health: health.into_iter().filter_map(|bind| bind.0).collect(), metrics: metrics.0 },
        };
        heap::keep_small();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.context("failed to start the runtime")?.block_on(agent::run(options))?;
        Ok(ExitCode::SUCCESS)
    }
}
