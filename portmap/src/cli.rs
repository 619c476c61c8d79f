//! The command line: what can be asked for, and which file answers.

mod cleanup;
mod output;
mod repeats;
mod resolve;
mod run;
mod services;
mod status;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;
use portmap::{maps::pin::Pins, model::event::Wanted};

/// The answer is "no", or "unhealthy".
const NO: u8 = 1;

/// It was not possible to look.
const COULD_NOT_LOOK: u8 = 3;

/// eBPF Service port translation for Kubernetes: ClusterIP:port becomes podIP:targetPort inside connect()
#[derive(Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "shown on a terminal")]
#[command(name = "portmap", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 fine, 1 the answer is \"no\" or \"unhealthy\", 2 wrong usage, 3 could not look.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log more: -v shows every write to the tables, -vv what libraries have to say
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node agent: keep the kernel's tables equal to what the objects say
    Run(Box<run::Arguments>),
    /// Print the table that objects in files should lead to; needs no privileges and no kernel
    Resolve(resolve::Arguments),
    /// Print what the kernel's tables hold now
    Services(services::Arguments),
    /// Say whether portmap is attached, synced and has room; the exit code says whether it is healthy
    Status(status::Arguments),
    /// Detach the programs and remove everything pinned, continuing past errors
    Cleanup(cleanup::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Where the pins are: the same for every subcommand that opens maps.
#[derive(Debug, Args)]
struct PinsArguments {
    /// The directory of portmap's pins, on a BPF file system
    #[arg(long, value_name = "DIR", default_value = portmap::maps::pin::DEFAULT)]
    bpffs: PathBuf,
    /// Go by another ABI version of the maps: for tests of upgrades
    #[cfg(feature = "testing")]
    #[arg(long, hide = true, env = "PORTMAP_ABI_VERSION", default_value_t = portmap_common::ABI_VERSION)]
    abi_version: u32,
}

impl PinsArguments {
    fn open(&self) -> Result<Pins> {
        Pins::find(&self.bpffs, self.abi_version())
    }

    fn abi_version(&self) -> u32 {
        #[cfg(feature = "testing")]
        return self.abi_version;
        #[cfg(not(feature = "testing"))]
        return portmap_common::ABI_VERSION;
    }
}

/// Which objects count: the same for what resolves them.
#[derive(Debug, Args)]
struct ObjectArguments {
    /// This node's name, as its Node object has it [default: the host name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
    /// Serve only Services whose label service.kubernetes.io/service-proxy-name is this [default: those without the label]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    service_proxy_name: Option<String>,
    /// Serve external IPs of Services in these ranges only; whoever may write a Service may claim any address by them
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allowed_external_ips: Option<Vec<IpNet>>,
}

impl ObjectArguments {
    fn wanted(self) -> Result<Wanted> {
        let node = match self.node_name.filter(|name| !name.is_empty()) {
            Some(name) => name,
            // Kubernetes' names are in lower case, and the kubelet registers the host name so.
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        Ok(Wanted {
            node: node.into(),
            proxy_name: self.service_proxy_name,
            external_ips: self.allowed_external_ips.map(Into::into),
        })
    }
}

/// Does what was asked for, and says how it went.
pub fn run(cli: Cli) -> ExitCode {
    output::log_to_stderr(cli.verbose);
    let result = match cli.command {
        Command::Run(arguments) => arguments.run(),
        Command::Resolve(arguments) => arguments.run(),
        Command::Services(arguments) => arguments.run(),
        Command::Status(arguments) => arguments.run(),
        Command::Cleanup(arguments) => arguments.run(),
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
        COULD_NOT_LOOK.into()
    })
}
