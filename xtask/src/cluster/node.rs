//! The nodes: each has its own namespaces, containerd and kubelet.

pub mod init;
pub mod network;

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::addresses::Node;
use super::cgroups::Cgroups;
use super::component::Component;
use super::control_plane::kubectl;
use super::enclosure::Enclosure;
use super::images;
use super::interruption::Interruption;
use super::layout::{Layout, XTASK};
use super::process::SUBCOMMAND;

/// Time limit until a node is ready. It unpacks some hundred MiB of images first.
const READY_LIMIT: &str = "--timeout=180s";

/// The running nodes.
#[derive(Debug)]
pub struct Nodes {
    components: Vec<Component>,
}

impl Nodes {
    /// Starts the nodes, and waits until they are ready.
    pub fn start(
        nodes: &[Node],
        enclosure: &Enclosure,
        cgroups: &Cgroups,
        layout: &Layout,
        interruption: &Interruption,
    ) -> Result<Self> {
        configure_containerd(layout)?;
        let count = nodes.len().to_string();
        let spawn = |node: &Node| {
            let mut command = enclosure.command(XTASK);
            command.args([SUBCOMMAND, "node", &node.0.to_string(), &count, &cgroups.name]);
            Component::spawn(&node.name(), &mut command, &layout.logs())
        };
        let mut started = Self { components: nodes.iter().map(spawn).collect::<Result<_>>()? };
        for node in nodes {
            started
                .wait_for(*node, enclosure, interruption)
                .with_context(|| format!("{} does not become ready; logs: {}", node.name(), layout.logs().display()))?;
        }
        Ok(started)
    }

    fn wait_for(&mut self, node: Node, enclosure: &Enclosure, interruption: &Interruption) -> Result<()> {
        for condition in ["--for=create", "--for=condition=Ready"] {
            let mut kubectl = kubectl(enclosure);
            kubectl.args(["wait", condition, READY_LIMIT, &format!("node/{}", node.name())]).stdout(Stdio::null());
            let mut child = kubectl.spawn().context("failed to start kubectl")?;
            let status = interruption.wait(&mut child, || self.check())?;
            ensure!(status.success(), "kubectl failed ({status})");
        }
        Ok(())
    }

    /// Fails if a node has ended.
    pub fn check(&mut self) -> Result<()> {
        self.components.iter_mut().try_for_each(Component::check)
    }
}

fn configure_containerd(layout: &Layout) -> Result<()> {
    let configuration =
        include_str!("node/containerd.toml").replace("\"PAUSE\"", &format!("{:?}", images::name(layout, images::PAUSE)?));
    let path = layout.tools.join("containerd.toml");
    fs::write(&path, configuration).with_context(|| format!("failed to write {}", path.display()))
}
