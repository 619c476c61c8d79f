//! `portmap run`: the node agent.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use portmap::{
    agent::{self, Options, Source},
    maps::Capacity,
};

use super::{NodeArguments, PinsArguments};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Read objects from this file or directory (or - for standard input) instead of a cluster; repeatable
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// The kubeconfig of the cluster [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    pins: PinsArguments,
    /// The cgroup v2 directory whose processes are served [default: the root of the hierarchy]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Room for this many frontends: a Service port on one address
    #[arg(long, value_name = "N", default_value_t = Capacity::default().services, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_services: u32,
    /// Room for this many backends of each address family: an endpoint of a service port
    #[arg(long, value_name = "N", default_value_t = Capacity::default().backends, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_backends: u32,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let source = if self.manifests.is_empty() { Source::Kube(self.kubeconfig) } else { Source::Manifests(self.manifests) };
        let options = Options {
            source,
            node: self.node.name()?,
            bpffs: self.pins.bpffs,
            cgroup: self.cgroup,
            capacity: Capacity { services: self.max_services, backends: self.max_backends },
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.context("failed to start the runtime")?.block_on(agent::run(options))?;
        Ok(ExitCode::SUCCESS)
    }
}
