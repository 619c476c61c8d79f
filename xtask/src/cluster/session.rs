//! `cargo xtask cluster`: a shell, or another command, in a cluster that exists as long as it runs.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::getpgrp;

use super::{Cluster, Interrupted, Interruption, KUBECONFIG, Proxy};
use crate::release::architecture::Architecture;
use crate::release::binary;
use crate::screen::{Mark, Screen};
use crate::setup::{self, Purpose};
use crate::workspace;

/// Exit code after Ctrl-C, as shells use it.
const INTERRUPTED: u8 = 130;

/// The greeting of the shell.
const GREETING: &str = "This shell is in the cluster's network. Some commands to try:
  kubectl get nodes,pods --all-namespaces
  kubectl apply -f docs/cluster/shop.yaml
  kubectl --namespace portmap-system exec -it daemonset/portmap -- portmap top
Ctrl-D ends the shell, and removes the cluster.";

/// Run a Kubernetes cluster on this machine, with portmap as its only Service proxy
///
/// Starts a real control plane and nodes with real kubelets and containers, in namespaces of their own without a route to other
/// networks. Then runs a shell in it, in which `kubectl` works. The cluster is removed when the shell ends. Needs no container
/// registry. The first time it builds Kubernetes, which takes about a quarter of an hour; later starts take some seconds.
#[derive(clap::Args)]
pub struct ClusterArgs {
    /// Number of nodes
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// The agent, instead of a build of this workspace
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Run this command instead of a shell, for example: -- kubectl get nodes
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,
}

/// Starts a cluster, runs the command in it, and removes the cluster. Returns the exit code of the command.
pub fn run(args: &ClusterArgs) -> Result<ExitCode> {
    ensure!(
        !args.command.is_empty() || (io::stdin().is_terminal() && io::stdout().is_terminal()),
        "a shell needs a terminal as standard input and standard output; give a command after --, such as: -- kubectl get nodes"
    );
    setup::require(&[Purpose::Build, Purpose::Kernel, Purpose::ControlPlane])?;
    let layout = super::prepare(&program(args.agent.as_deref())?)?;
    let interruption = Interruption::watch()?;
    let run = || {
        let mut cluster = Cluster::start(&layout, args.nodes, Proxy::Portmap, &interruption)?;
        let mut child = command(&cluster, &args.command).spawn().context("failed to start the command")?;
        cluster.wait(&mut child)
    };
    unless_interrupted(run().map(|status| ExitCode::from(code(status))))
}

/// The result of work in a cluster that is removed by now. After Ctrl-C it is an exit code, and no error.
pub fn unless_interrupted(result: Result<ExitCode>) -> Result<ExitCode> {
    match result {
        Err(error) if error.is::<Interrupted>() => {
            Screen::Stderr.line("interrupted: the cluster is removed");
            Ok(ExitCode::from(INTERRUPTED))
        }
        result => result,
    }
}

/// The path of the agent's program, which must be statically linked. Builds it if the user names none.
pub fn program(agent: Option<&Path>) -> Result<PathBuf> {
    if let Some(agent) = agent {
        return agent.canonicalize().with_context(|| format!("failed to find {}", agent.display()));
    }
    setup::require(&[Purpose::Release])?;
    binary::build(Architecture::own()?)
}

/// The command with the kubeconfig of the cluster; a shell in a terminal of its own without words.
fn command(cluster: &Cluster<'_>, words: &[OsString]) -> Command {
    let mut command = cluster.command("env");
    command.arg("--chdir").arg(workspace::root());
    if words.is_empty() {
        Screen::Stderr.marked(Mark::Done, "the cluster is ready", "portmap is its only Service proxy");
        Screen::Stderr.line(GREETING);
        // The shell needs a terminal whose processes are in its own namespace of process ids.
        command.args(["script", "--quiet", "--return", "--command", "bash --norc", "/dev/null"]).stdin(Stdio::inherit());
    } else {
        command.args(words);
    }
    // In the foreground of this terminal: Ctrl-C ends the command, too, and a shell may read.
    command.process_group(getpgrp().as_raw());
    command
        .env("KUBECONFIG", KUBECONFIG)
        .env("PS1", "cluster:\\w\\$ ")
        .envs(std::env::vars_os().filter(|(name, _)| name == "TERM"));
    command
}

/// The exit code of a command, as shells show it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
