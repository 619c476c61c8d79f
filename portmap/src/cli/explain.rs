//! `portmap explain`: the chain from a destination to its backends, with the reason of each step.
//!
//! The objects and the tables are read one after the other, while the agent may write. So after a difference both are read again,
//! until they agree or a difference is there again.

mod client;
mod kernel;
mod objects;
pub mod text;

use std::{mem, path::PathBuf, process::ExitCode, thread};

use anyhow::Result;
use clap::Args;
use portmap::inspect::{
    differences::Difference,
    explain::{
        Explanation,
        target::{ServiceTarget, Target},
    },
};
use serde::Serialize;

use super::{
    NO, PinsArguments,
    objects::{PAUSE, READINGS, Source, SourceArguments, agent_addresses},
    output::{self, Format},
};
use client::ClientNamespace;
pub use kernel::Kernel;
pub use objects::Objects;

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "shown on a terminal")]
#[command(
    after_help = "Without tables of portmap in the kernel, as on a laptop, the objects alone are explained. Give the same \
                  --manifests, --node-name, --service-cidr and other selections as to the agent. Exit codes: 0 a connection \
                  would reach a backend, 1 it would not, 2 wrong usage, 3 failure."
)]
pub struct Arguments {
    /// The destination: an address and port (10.96.0.10:80, [fd00::1]:53/udp), or a Service (svc/web, svc/web.shop:http)
    #[arg(value_name = "ADDRESS:PORT[/udp] | svc/NAME[.NAMESPACE][:PORT]")]
    target: Target,
    /// Namespace of svc/NAME, if the destination names none [default: default, or the only one with the Service]
    #[arg(short, long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    namespace: Option<String>,
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    pins: PinsArguments,
    /// Explain for a client in the network namespace of this process, such as a process of a pod
    #[arg(long, value_name = "PID", conflicts_with = "from_netns")]
    from_pid: Option<u32>,
    /// Explain for a client in this network namespace: a path, or a name in /run/netns
    #[arg(long, value_name = "PATH")]
    from_netns: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The output of `portmap explain`. The names and values of its JSON are a stable contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name of the node whose view is explained.
    pub node: String,
    /// Whether a connection would reach a backend, at each of the frontends.
    pub connects: bool,
    /// One explanation for an address. For a Service one for each ClusterIP and port, or one without them.
    pub explanations: Vec<Explanation>,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let kernel = Kernel::open(&self.pins);
        let network = kernel.network()?;
        let client = match (self.from_pid, &self.from_netns) {
            (Some(id), _) => Some(ClientNamespace::of_process(id, network)?),
            (None, Some(name)) => Some(ClientNamespace::of_name(name, network)?),
            (None, None) => None,
        };
        let source = self.source.open()?;
        let target = match self.target {
            Target::Service(target) => {
                Target::Service(ServiceTarget { namespace: target.namespace.or(self.namespace), ..target })
            }
            Target::Frontend(frontend) => Target::Frontend(frontend),
        };
        let (report, warnings) = explain(&source, &target, &kernel, client.as_ref())?;
        for warning in &warnings {
            output::warning(warning);
        }
        if !output::print_data(&report, self.output)? {
            text::print(&report)?;
        }
        Ok(if report.connects { ExitCode::SUCCESS } else { NO.into() })
    }
}

/// Reads the objects and the tables, and explains. After a difference it reads both again. Returns also the warnings.
pub fn explain(
    source: &Source,
    target: &Target,
    kernel: &Kernel,
    client: Option<&ClientNamespace>,
) -> Result<(Report, Vec<String>)> {
    let (mut explanations, mut warnings) = read(source, target, kernel, client)?;
    for _ in 1..READINGS {
        if !source.is_repeatable() || differences(&explanations).next().is_none() {
            break;
        }
        thread::sleep(PAUSE);
        let (now, newer_warnings) = read(source, target, kernel, client)?;
        let before = mem::replace(&mut explanations, now);
        warnings = newer_warnings;
        if differences(&explanations).any(|now| differences(&before).any(|before| is_confirmed(now, before))) {
            break;
        }
    }
    let connects = explanations.iter().all(|explanation| explanation.connects);
    Ok((Report { node: source.wanted.node.to_string(), connects, explanations }, warnings))
}

/// The differences between the tables and the objects.
fn differences(explanations: &[Explanation]) -> impl Iterator<Item = &Difference> {
    explanations.iter().filter_map(|explanation| explanation.kernel.difference.as_ref())
}

/// Whether a part of a difference was there in an earlier reading.
fn is_confirmed(now: &Difference, before: &Difference) -> bool {
    now.frontend == before.frontend && now.clone().common(before).is_some()
}

/// Reads the objects and the tables once, and explains. Returns also the warnings.
fn read(
    source: &Source,
    target: &Target,
    kernel: &Kernel,
    client: Option<&ClientNamespace>,
) -> Result<(Vec<Explanation>, Vec<String>)> {
    // Without tables there is no agent, and the interfaces of this machine may not be those of the node.
    let (local, warning) = kernel.network()?.map(agent_addresses).transpose()?.unwrap_or_default();
    let mut objects = Objects::read(source, target, local)?;
    objects.warnings.extend(warning);
    Ok((objects.explain(target, kernel, client)?, objects.warnings))
}
