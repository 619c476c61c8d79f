//! Installs portmap on a cluster of three nodes with its Helm chart, in place of kube-proxy, upgrades it, and removes it, while
//! pods and a client outside the nodes connect to a Service without a pause.

mod steps;
mod traffic;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::earlier;
use crate::cluster::{self, Cluster, Interruption, Layout, Proxy, session};
use crate::screen::{Mark, Screen};
use crate::setup::{self, Purpose};

use steps::Operator;
use traffic::Traffic;

/// Pods move between the nodes, so there are several.
const NODES: u8 = 3;

/// Starts a cluster with kube-proxy, and takes all steps of an operator. The agent is the program `agent`, or else that of this
/// workspace. Fails at the first step that fails, and if a connection failed.
pub fn run(agent: Option<&Path>) -> Result<ExitCode> {
    setup::require(&[Purpose::Build, Purpose::Kernel, Purpose::ControlPlane])?;
    let layout = cluster::prepare(&session::program(agent)?)?;
    cluster::prepare_earlier_agent(&layout, &earlier::static_agent()?)?;
    let interruption = Interruption::watch()?;
    session::unless_interrupted(run_in_cluster(&layout, &interruption).map(|()| ExitCode::SUCCESS))
}

fn run_in_cluster(layout: &Layout, interruption: &Interruption) -> Result<()> {
    let cluster = Cluster::start(layout, NODES, Proxy::KubeProxy, interruption)?;
    let operator = Operator { cluster: &cluster, interruption };
    step("clients connect to a Service by kube-proxy");
    let mut traffic = Traffic::start(&operator, layout)?;
    for (text, take) in STEPS {
        step(text);
        take(&operator)?;
        traffic.goes_on(&operator)?;
    }
    let count = traffic.end(&operator)?;
    Screen::Stdout.marked(Mark::Done, &format!("{count} connections, none failed"), "from pods of all nodes, and from outside");
    Ok(())
}

/// A step, and its text.
type Step = (&'static str, fn(&Operator<'_>) -> Result<()>);

/// The steps of an operator, in their order.
const STEPS: [Step; 10] = [
    ("helm install of an earlier version, beside kube-proxy", |operator| operator.install_earlier()),
    ("stop kube-proxy, and remove its rules", |operator| operator.stop_kube_proxy()),
    ("helm upgrade: the agents are replaced one by one", |operator| operator.upgrade(&[])),
    ("helm test", |operator| operator.test()),
    ("the agents are ended, and started again", |operator| operator.end_agents()),
    ("capabilities instead of a privileged container", |operator| operator.upgrade(&CAPABILITIES)),
    ("drain a node, and take it back", |operator| operator.drain()),
    ("privileged again", |operator| operator.upgrade(&[])),
    ("start kube-proxy, and remove portmap from the nodes", |operator| operator.uninstall()),
    ("nothing of portmap is left", |operator| operator.finds_nothing()),
];

/// The values of the chart for a container with capabilities. `SYS_RESOURCE` is left out: some virtual machines lack it, and
/// kernels from 5.11 on do not need it.
const CAPABILITIES: [&str; 3] = [
    "securityContext.privileged=false",
    "securityContext.capabilities.drop={ALL}",
    "securityContext.capabilities.add={BPF,NET_ADMIN,PERFMON,SYS_ADMIN,SYS_PTRACE}",
];

fn step(text: &str) {
    Screen::Stdout.marked(Mark::Doing, text, "");
}
