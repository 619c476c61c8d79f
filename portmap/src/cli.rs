//! The command line: the arguments, and one file for each subcommand.

mod backends;
mod cleanup;
mod doctor;
mod explain;
mod flows;
mod lint;
mod man;
mod objects;
mod output;
mod page;
pub mod plugin;
mod repeats;
mod resolve;
mod run;
mod services;
mod status;
mod top;
mod trace;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;
use portmap::{kernel::port_ranges::PortRange, maps::pin::Pins, model::event::Wanted, source::kube::ClusterConfig};
use tokio::runtime::{Builder, Runtime};

/// The exit code of a negative result: unhealthy, differing tables, no connection, no Service to resolve, a warning with `--strict`, or pins
/// that were left.
const NO: u8 = 1;

/// The exit code of a subcommand that failed. Code 2, for wrong usage, comes from clap.
const FAILURE: u8 = 3;

/// Kubernetes' default range of node ports.
const NODE_PORTS: PortRange = PortRange { first: 30_000, last: 32_767 };

/// eBPF Service port translation for Kubernetes: ClusterIP:port becomes podIP:targetPort inside connect()
#[derive(Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "shown on a terminal")]
#[command(name = "portmap", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 success, 1 the answer is \"no\" or \"unhealthy\", 2 wrong usage, 3 failure.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log more: -v adds each write to the tables, -vv adds the libraries' debug output
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node agent, which keeps the kernel's tables up to date with the objects
    Run(Box<run::Arguments>),
    /// Print the table for objects in files; needs no privileges
    Resolve(resolve::Arguments),
    /// Find mistakes in the ports of Services, pods, policies and routes, in files or in a cluster
    Lint(lint::Arguments),
    /// Explain one destination from the Service to the backends; exit with 1 if a connection would fail
    Explain(Box<explain::Arguments>),
    /// Print the content of the kernel's tables
    Services(services::Arguments),
    /// Print the flows of clients outside the node
    Flows(flows::Arguments),
    /// Print a line for each new connection to a Service: the client, the Service, and the backend or the error
    Trace(trace::Arguments),
    /// Show the rates of new connections of each Service, and the part of each backend
    Top(top::Arguments),
    /// Serve a live page of all Services on 127.0.0.1: ports, targetPorts and pods, with rates and explanations
    Page(page::Arguments),
    /// Print the health of the programs, the agent and the tables; exit with 1 if unhealthy
    Status(status::Arguments),
    /// Find mistakes on this node: ports on which nobody listens, other programs, firewalls; exit with 1 if there are any
    Doctor(doctor::Arguments),
    /// Compare the kernel's tables with the objects; exit with 1 if they differ
    Verify(verify::Arguments),
    /// Detach the programs and remove all pins of portmap, continuing past errors
    Cleanup(cleanup::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page, or write all of them into a directory
    Man(man::Arguments),
}

/// The directory of the pins, for each subcommand that uses them.
#[derive(Clone, Debug, Args)]
struct PinsArguments {
    /// The directory of portmap's pins, on a BPF file system
    #[arg(long, value_name = "DIR", default_value = portmap::maps::pin::DEFAULT)]
    bpffs: PathBuf,
    /// Use another ABI version of the maps, for tests of upgrades
    #[cfg(feature = "testing")]
    #[arg(long, hide = true, env = "PORTMAP_ABI_VERSION", default_value_t = portmap_common::ABI_VERSION)]
    abi_version: u32,
}

impl PinsArguments {
    fn open(&self) -> Result<Pins> {
        Pins::find(&self.bpffs, self.abi_version())
    }

    #[cfg(feature = "testing")]
    fn abi_version(&self) -> u32 {
        self.abi_version
    }

    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "tests can choose another version")]
    fn abi_version(&self) -> u32 {
        portmap_common::ABI_VERSION
    }
}

/// The cluster, for each subcommand that reads objects from one.
#[derive(Debug, Args)]
struct ClusterArguments {
    /// Kubeconfig of the cluster [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME", conflicts_with = "manifests")]
    context: Option<String>,
}

impl From<ClusterArguments> for ClusterConfig {
    fn from(arguments: ClusterArguments) -> Self {
        let ClusterArguments { kubeconfig, context } = arguments;
        Self { kubeconfig, context }
    }
}

/// The cluster of a subcommand that can do without: the given one, or else that of the pod in which this process runs.
fn optional_cluster(kubeconfig: Option<PathBuf>, context: Option<String>) -> Option<ClusterConfig> {
    // The kubelet sets this variable in containers.
    let is_in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    (kubeconfig.is_some() || context.is_some() || is_in_pod).then_some(ClusterConfig { kubeconfig, context })
}

/// The selection of objects, for each subcommand that resolves them.
#[derive(Debug, Args)]
struct ObjectArguments {
    /// Name of this node's Node object [default: the host name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
    /// Serve only Services with this value of the label service.kubernetes.io/service-proxy-name [default: Services without the
    /// label]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    service_proxy_name: Option<String>,
    /// Serve external IPs of Services only in these ranges [default: all addresses outside of the
    /// ServiceCIDRs; then anybody who may write Services may claim such an address]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allowed_external_ips: Option<Vec<IpNet>>,
}

impl ObjectArguments {
    fn wanted(self) -> Result<Wanted> {
        let node = match self.node_name.filter(|name| !name.is_empty()) {
            Some(name) => name,
            // The kubelet registers the host name in lower case.
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        Ok(Wanted {
            node: node.into(),
            proxy_name: self.service_proxy_name,
            external_ips: self.allowed_external_ips.map(Into::into),
        })
    }
}

/// A runtime on the calling thread, for subcommands that wait for a few things.
fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("failed to start the runtime")
}

/// Parses the value of an option for ports.
fn port_range(text: &str) -> Result<PortRange, String> {
    PortRange::parse(text).ok_or_else(|| "expected FIRST-LAST, two ports from 1 to 65535".to_owned())
}

/// Runs the subcommand, and returns its exit code. Prints a failure on standard error, unless standard output was closed.
pub fn run(cli: Cli) -> ExitCode {
    output::log_to_stderr(cli.verbose);
    let result = match cli.command {
        Command::Run(arguments) => arguments.run(),
        Command::Resolve(arguments) => arguments.run(),
        Command::Lint(arguments) => arguments.run(),
        Command::Explain(arguments) => arguments.run(),
        Command::Services(arguments) => arguments.run(),
        Command::Flows(arguments) => arguments.run(),
        Command::Trace(arguments) => arguments.run(),
        Command::Top(arguments) => arguments.run(),
        Command::Page(arguments) => arguments.run(),
        Command::Status(arguments) => arguments.run(),
        Command::Doctor(arguments) => arguments.run(),
        Command::Verify(arguments) => arguments.run(),
        Command::Cleanup(arguments) => arguments.run(),
        Command::Man(arguments) => arguments.run(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portmap", &mut script);
            output::print(&String::from_utf8_lossy(&script)).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        if !output::is_broken_pipe(&error) {
            output::error(&error);
        }
        FAILURE.into()
    })
}
