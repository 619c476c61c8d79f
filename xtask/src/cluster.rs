//! A Kubernetes cluster on this machine: a real control plane, and nodes with real kubelets and containers.
//!
//! [`prepare`] builds and downloads all parts: [`programs`] from source, [`packages`] of Debian, and container [`images`]. No
//! registry is used. [`Cluster::start`] makes an [`enclosure`] of namespaces, and in it the [`control_plane`] and each
//! [`node`]. [`agent`] deploys portmap.
//!
//! The machine's mounts, settings and networks are not changed. Its root file system is read-only for the cluster. Only
//! [`cgroups`] are made beside the machine's. Dropping a [`Cluster`] removes everything except for the logs.

mod addresses;
mod agent;
mod cgroups;
mod component;
mod control_plane;
mod enclosure;
mod images;
mod interruption;
mod kube_proxy;
mod layout;
mod mounts;
mod network;
mod node;
mod packages;
pub mod process;
mod programs;
pub mod session;
mod stamp;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use anyhow::Result;

use self::addresses::Node;
pub use self::agent::{NAMESPACE as AGENT_NAMESPACE, chart};
use self::cgroups::Cgroups;
use self::control_plane::ControlPlane;
pub use self::control_plane::KUBECONFIG;
use self::enclosure::Enclosure;
pub use self::images::{AGNHOST, EARLIER, PAUSE, name as image_name, prepare_earlier_agent};
pub use self::interruption::{Interrupted, Interruption};
pub use self::layout::{Layout, TOOLS, WORK};
use self::node::Nodes;
use crate::screen::{Mark, Screen};
use crate::{files, setup};

/// Builds, downloads and packs all parts that are missing or outdated, and packs the program `agent` as the agent's image. The
/// first time takes about a quarter of an hour.
pub fn prepare(agent: &Path) -> Result<Layout> {
    let layout = Layout::new()?;
    let _lock = setup::lock()?;
    packages::unpack(&layout)?;
    programs::build(&layout)?;
    images::prepare(&layout)?;
    images::prepare_agent(&layout, agent)?;
    Ok(layout)
}

/// The Service proxy of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// portmap, installed with its Helm chart.
    Portmap,
    /// kube-proxy, without portmap.
    KubeProxy,
}

/// A running cluster with a Service proxy on each node. Its parts are removed in the order of the fields.
#[derive(Debug)]
pub struct Cluster<'a> {
    nodes: Nodes,
    control_plane: ControlPlane,
    enclosure: Enclosure,
    _cgroups: Cgroups,
    state: State<'a>,
    interruption: &'a Interruption,
}

impl<'a> Cluster<'a> {
    /// Starts a cluster, and waits until all nodes and the proxies on them are ready.
    pub fn start(layout: &'a Layout, nodes: u8, proxy: Proxy, interruption: &'a Interruption) -> Result<Self> {
        let nodes = Node::first(nodes);
        let state = State { layout, _lock: layout.occupy()? };
        let cgroups = Cgroups::create(&nodes)?;
        let enclosure = Enclosure::start()?;
        progress("starting the control plane", layout);
        let control_plane = ControlPlane::start(&enclosure, layout, interruption)?;
        match proxy {
            Proxy::Portmap => agent::deploy(&enclosure)?,
            Proxy::KubeProxy => kube_proxy::deploy(&enclosure)?,
        }
        progress(&format!("starting {} nodes", nodes.len()), layout);
        let nodes = Nodes::start(&nodes, &enclosure, &cgroups, layout, interruption)?;
        let (namespace, name) = match proxy {
            Proxy::Portmap => (agent::NAMESPACE, agent::DAEMON_SET),
            Proxy::KubeProxy => (kube_proxy::NAMESPACE, kube_proxy::DAEMON_SET),
        };
        control_plane::wait(&enclosure, interruption, namespace, name)?;
        Ok(Self { nodes, control_plane, enclosure, _cgroups: cgroups, state, interruption })
    }

    /// A command that runs in the network outside of the nodes. Its paths are those inside the cluster's namespaces.
    pub fn command(&self, program: &str) -> Command {
        self.enclosure.command(program)
    }

    /// A command of kubectl with all permissions.
    pub fn kubectl(&self) -> Command {
        control_plane::kubectl(&self.enclosure)
    }

    /// A command of helm with all permissions.
    pub fn helm(&self) -> Command {
        agent::helm(&self.enclosure)
    }

    /// Creates or changes objects, which are YAML or JSON.
    pub fn apply(&self, objects: &str) -> Result<()> {
        control_plane::apply(&self.enclosure, objects)
    }

    /// Waits until a Deployment or `DaemonSet` has all its pods, and they are ready. `name` has the kind.
    pub fn wait_for(&self, namespace: &str, name: &str) -> Result<()> {
        control_plane::wait(&self.enclosure, self.interruption, namespace, name)
    }

    /// The directories of the cluster.
    pub fn layout(&self) -> &'a Layout {
        self.state.layout
    }

    /// Waits for the end of a command in the cluster. Fails if a part of the cluster ends before it.
    pub fn wait(&mut self, child: &mut Child) -> Result<ExitStatus> {
        self.interruption.wait(child, || {
            self.control_plane.check()?;
            self.nodes.check()
        })
    }
}

fn progress(step: &str, layout: &Layout) {
    Screen::Stderr.marked(Mark::Doing, step, &format!("logs in {}", layout.logs().display()));
}

/// The state of a cluster's programs on disk. Dropping this removes it.
#[derive(Debug)]
struct State<'a> {
    layout: &'a Layout,
    _lock: File,
}

impl Drop for State<'_> {
    fn drop(&mut self) {
        if let Err(error) = files::remove(&self.layout.state()) {
            eprintln!("{error:#}");
        }
    }
}
